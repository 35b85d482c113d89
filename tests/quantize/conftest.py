import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("LANNER_BINARY", str(REPOSITORY / "build" / "lanner"))
TEXT = (REPOSITORY / "data/wikitext2/valid.txt").read_bytes()[:20_000].decode("utf-8", "ignore")


def byte_letters():
    """The letter that stands for each byte in byte-level vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


def write_tokenizer(folder):
    """One whose token ids are the bytes of the text."""
    tokenizer = Tokenizer(models.BPE({letter: byte for byte, letter in byte_letters().items()}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture
def environment(tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "LANNER_DATA"))}
    return {**kept, "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def run(environment):
    def run_program(*arguments, timeout=300, **more):
        return subprocess.run([BINARY, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True,
                              env=environment, timeout=timeout, check=False, **more)

    return run_program


@pytest.fixture
def write_model(tmp_path):
    """write_model(a Model of tiny_checkpoint.py): its folder, with a tokenizer."""

    def write(model, name="model"):
        folder = tmp_path / name
        model.write_folder(folder)
        write_tokenizer(folder)
        return folder

    return write


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "calibration.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def quantize(run, text, tmp_path):
    """quantize(folder, flags…): config.json and tensors of what comes out."""

    def quantize_folder(folder, *flags, name="out"):
        out = tmp_path / name
        done = run("lite", "auto_awq", folder, "--work-dir", out, "--calib-dataset", text, "--w-group-size", "32",
                   "--no-report", *flags)
        assert done.returncode == 0, done.stderr.decode()
        assert not (tmp_path / f"{name}.part").exists()
        tensors = {}
        for path in sorted(out.glob("*.safetensors")):
            tensors |= load_file(path)
        return json.loads((out / "config.json").read_text()), tensors

    return quantize_folder


def close(a, b, tolerance):
    return np.abs(np.asarray(a, np.float64) - b).max() <= tolerance
