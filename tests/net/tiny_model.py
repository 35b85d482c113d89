"""The model that the fake hub serves, what of it is to arrive, and the programs that fetch it."""

import os
import pathlib

from fake_hub import random_bytes

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("LANNER_BUILD_DIR", REPOSITORY / "build"))
BINARY = os.environ.get("LANNER_BINARY", str(BUILD / "lanner"))
PROBE = os.environ.get("LANNER_HUB_PROBE", str(BUILD / "src" / "net" / "hub_probe"))

SMALL = {
    "config.json": b'{"model_type": "llama"}',
    "generation_config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}' * 50,
    "tokenizer_config.json": b'{"clean": true}',
    "README.md": b"not needed",
    "modeling_tiny.py": b"raise SystemExit('never fetched')",
    "pytorch_model.bin": b"the safetensors are taken",
}
WEIGHTS = random_bytes(3_000_000, 1)
WANTED = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}


def assert_whole(store, repo, wanted=frozenset(WANTED), commit=None):
    """The snapshot holds the wanted files, each a link to a blob that is what its name says; nothing lies about."""
    commit = commit or repo.commit()
    folder = store / "snapshots" / commit
    assert {path.name for path in folder.iterdir()} == set(wanted)
    for path in folder.iterdir():
        assert path.is_symlink() and os.readlink(path) == f"../../blobs/{repo.etag(path.name)}"
        assert path.read_bytes() == repo.files[path.name]
    assert not list((store / "blobs").glob("*.incomplete"))
    return folder
