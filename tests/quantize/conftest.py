import json
import os
import subprocess

import pytest
from quantize_support import BINARY, TEXT, wide_model, write_tokenizer
from safetensors.numpy import load_file


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


@pytest.fixture(scope="session")
def slow_folder(tmp_path_factory):
    """A model that takes some seconds."""
    folder = tmp_path_factory.mktemp("slow") / "model"
    wide_model(layers=8).write_folder(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture
def compare(run, text, tmp_path):
    """compare(a, b, flags…): the report of `lanner eval compare` on a few windows of the text."""

    def compare_folders(a, b, *flags, windows=4):
        done = run("eval", "compare", a, b, "--dataset", text, "--seqlen", "128", "--max-windows", windows, *flags, "--json",
                   tmp_path / "r.json")
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "r.json").read_text())

    return compare_folders


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "calibration.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def quantize(run, text, tmp_path):
    """quantize(folder, flags…): config.json and tensors of what comes out."""

    def quantize_folder(folder, *flags, name="out", verb="auto_awq"):
        out = tmp_path / name
        done = run("lite", verb, folder, "--work-dir", out, "--calib-dataset", text, "--w-group-size", "32",
                   "--no-report", *flags)
        assert done.returncode == 0, done.stderr.decode()
        assert not (tmp_path / f"{name}.part").exists()
        tensors = {}
        for path in sorted(out.glob("*.safetensors")):
            tensors |= load_file(path)
        return json.loads((out / "config.json").read_text()), tensors

    return quantize_folder
