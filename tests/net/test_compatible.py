"""The cache is the one of huggingface_hub: what it wrote is read here, and what is written here it finds, offline."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from fake_hub import random_bytes
from tiny_model import SMALL, WEIGHTS


@pytest.fixture
def python(environment):
    """A Python program with huggingface_hub, and with this environment from its start: the package reads it on import. The
    programs fetch on one thread: with several, one that tries again may close the connection under another."""

    def run(program, **more):
        variables = {**environment, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1",
                     "HF_HUB_DISABLE_PROGRESS_BARS": "1", **more}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=variables, timeout=120,
                              check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_python_finds_what_was_downloaded(hub, repo, probe, python, store):
    folder = probe("find", "org/tiny").stdout.strip()
    hub.stop()
    found = python("""
import json
from huggingface_hub import scan_cache_dir, snapshot_download, hf_hub_download, try_to_load_from_cache
snapshot = snapshot_download("org/tiny", local_files_only=True)
weights = hf_hub_download("org/tiny", "model.safetensors")
cached = try_to_load_from_cache("org/tiny", "tokenizer.json")
report = scan_cache_dir()
(repository,) = report.repos
(revision,) = repository.revisions
print(json.dumps([snapshot, weights, cached, repository.repo_id, revision.commit_hash, sorted(revision.refs),
                  sorted(file.file_name for file in revision.files), [str(warning) for warning in report.warnings]]))
""", HF_HUB_OFFLINE="1")
    assert found == [folder, f"{folder}/model.safetensors", f"{folder}/tokenizer.json", "org/tiny", repo.commit(), ["main"],
                     ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"], []]


def test_python_goes_on_from_what_was_downloaded(hub, repo, probe, python, store):
    """Online, it fetches what it wants beside and leaves the rest."""
    assert probe("find", "org/tiny").returncode == 0
    hub.cdn_requests.clear()
    folder = python("import json, huggingface_hub; print(json.dumps(huggingface_hub.snapshot_download('org/tiny', max_workers=1)))")
    assert pathlib.Path(folder, "README.md").read_bytes() == SMALL["README.md"]
    assert not hub.cdn_requests


def test_what_python_downloaded_is_found(hub, repo, probe, python, environment):
    folder = python("import json, huggingface_hub; print(json.dumps(huggingface_hub.snapshot_download('org/tiny', max_workers=1)))")
    assert pathlib.Path(folder, "model.safetensors").read_bytes() == WEIGHTS
    hub.stop()
    environment["HF_HUB_OFFLINE"] = "1"
    done = probe("find", "org/tiny")
    assert (done.returncode, done.stdout) == (0, folder + "\n"), done.stderr
    assert probe("find", "org/tiny", repo.commit()).stdout == folder + "\n"


def test_contents_that_python_shares_between_models(hub, repo, probe, python, cache, store):
    """Its client moves what several models have in common to CACHE/blobs, and links to that."""
    folder = python("import json, huggingface_hub; print(json.dumps(huggingface_hub.snapshot_download('org/tiny', max_workers=1)))")
    blob = store / "blobs" / repo.etag("model.safetensors")
    shared = python(f"""
import json
from huggingface_hub.utils import _shared_blobs
print(json.dumps(_shared_blobs.publish_blob_to_shared_store(blob_path={str(blob)!r}, xet_hash={"5" * 64!r}, cache_dir={str(cache)!r},
                                                            expected_size={len(WEIGHTS)}, replace_existing=False)))
""")
    assert shared and blob.is_symlink() and blob.resolve().is_relative_to(cache / "blobs")
    hub.stop()
    assert probe("find", "org/tiny").stdout == folder + "\n"


def test_what_python_downloaded_in_part_is_completed(hub, repo, probe, python):
    """Transformers fetches file by file; a cache with only some of them is not taken for a model."""
    python("""
import huggingface_hub
for name in ("config.json", "tokenizer.json"):
    huggingface_hub.hf_hub_download("org/tiny", name)
print("1")
""")
    hub.requests.clear()
    done = probe("find", "org/tiny")
    assert done.returncode == 0, done.stderr
    resolved = {path.rsplit("/", 1)[1] for path in hub.paths() if "/resolve/" in path}
    assert resolved == {"generation_config.json", "tokenizer_config.json", "model.safetensors"}


@pytest.mark.parametrize("variables, below", [
    ({"HF_HOME": "{}/a"}, "a/hub"),
    ({"HF_HOME": "{}/a", "HF_HUB_CACHE": "{}/b"}, "b"),
    ({"HUGGINGFACE_HUB_CACHE": "{}/c"}, "c"),
    ({"HUGGINGFACE_HUB_CACHE": "{}/c", "HF_HUB_CACHE": "{}/d"}, "d"),
    ({"XDG_CACHE_HOME": "{}/e"}, "e/huggingface/hub"),
    ({"XDG_CACHE_HOME": "{}/e", "HF_HOME": "~/f"}, "home/f/hub"),
    ({}, "home/.cache/huggingface/hub"),
])
def test_both_look_in_the_same_place(hub, repo, probe, python, environment, tmp_path, variables, below):
    environment.update({name: value.format(tmp_path) for name, value in variables.items()})
    done = probe("find", "org/tiny")
    assert done.stdout.startswith(str(tmp_path / below / "models--org--tiny")), done.stderr
    cache = python("import json, huggingface_hub.constants as c; print(json.dumps(c.HF_HUB_CACHE))")
    assert os.path.samefile(cache, tmp_path / below)


def test_both_at_once(hub, repo, start_probe, python, store):
    """Python's client waits for the same locks."""
    hub.fault("/cdn/", stall_after=1_000_000, stall_for=1.5, times=1)
    ours = start_probe("find", "org/tiny")
    assert hub.stalled.wait(20)
    folder = python("import json, huggingface_hub; print(json.dumps(huggingface_hub.snapshot_download('org/tiny', max_workers=1)))")
    stdout, stderr = ours.communicate(timeout=60)
    assert ours.returncode == 0, stderr
    assert stdout.strip() == folder
    assert pathlib.Path(folder, "model.safetensors").read_bytes() == WEIGHTS
    assert len(list((store / "blobs").iterdir())) == len(repo.files)


def test_random_bytes_are_the_same_in_each_run():
    assert random_bytes(4, 1) == WEIGHTS[:4]
