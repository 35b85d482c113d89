"""Every architecture on tiny random checkpoints: the engine in fp32 against golden_tiny.json.

The goldens are Transformers' where it has the model, else those of remote_models.py (make_tiny_goldens.py). Each model runs
from its folder and, where tiny_models.py has one, from its GGUF form, and from what `lanner convert` makes of either; and with
each of its mutations, one wrong value in the configuration or the tensors, the comparison must fail: else it would not have
seen that the value is read.

`make test` sets LANNER_TINY_PROBE, the program built from tests/model/tiny_probe.cpp, and LANNER_BINARY.
"""

import json
import os
import pathlib
import subprocess

import pytest
import tiny_checkpoint
import tiny_models

GOLDEN = pathlib.Path(__file__).parent / "golden_tiny.json"
LARGEST_DIFFERENCE = 1e-4  # of the largest logit
CASES = [(name, mutation) for name, make in tiny_models.MODELS.items() for mutation in make().mutations]
GGUF_CASES = [(name, key) for name, make in tiny_models.MODELS.items() if make().gguf for key in make().wrong_gguf_values()]
GGUF_MODELS = [name for name, make in tiny_models.MODELS.items() if make().gguf is not None]


def compare(path, name):
    program = os.environ.get("LANNER_TINY_PROBE")
    if not program:
        pytest.fail("set LANNER_TINY_PROBE: `make test` does")
    done = subprocess.run([program, str(path), str(GOLDEN), name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def is_right(result):
    return result["same_tokens"] == result["tokens"] and result["largest_difference"] < LARGEST_DIFFERENCE


def test_every_model_has_a_golden():
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert golden["prompts"] == tiny_checkpoint.prompts()
    assert set(golden["models"]) == set(tiny_models.MODELS)
    for name, model in golden["models"].items():
        assert [(run["session_len"], [p["prompt"] for p in run["prompts"]]) for run in model["runs"]] == [
            (length, list(indices)) for length, indices in tiny_models.MODELS[name]().runs], name


@pytest.mark.parametrize("name", list(tiny_models.MODELS))
def test_folder(name, tmp_path):
    tiny_models.MODELS[name]().write_folder(tmp_path)
    result = compare(tmp_path, name)
    assert result["tokens"] >= 64 and is_right(result), result


@pytest.mark.parametrize("name", GGUF_MODELS)
def test_gguf(name, tmp_path):
    path = tmp_path / "model.gguf"
    tiny_models.MODELS[name]().write_gguf(path)
    result = compare(path, name)
    assert is_right(result), result


def convert(source, folder):
    program = os.environ.get("LANNER_BINARY")
    if not program:
        pytest.fail("set LANNER_BINARY: `make test` does")
    done = subprocess.run([program, "convert", str(source), "--dst-path", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", list(tiny_models.MODELS))
def test_converted_folder(name, tmp_path):
    tiny_models.MODELS[name]().write_folder(tmp_path / "source")
    result = compare(convert(tmp_path / "source", tmp_path / "converted"), name)
    assert is_right(result), result


@pytest.mark.parametrize("name", GGUF_MODELS)
def test_converted_gguf(name, tmp_path):
    tiny_models.MODELS[name]().write_gguf(tmp_path / "model.gguf")
    result = compare(convert(tmp_path / "model.gguf", tmp_path / "converted"), name)
    assert is_right(result), result


@pytest.mark.parametrize("name, mutation", CASES)
def test_a_wrong_value_is_seen(name, mutation, tmp_path):
    tiny_models.MODELS[name]().write_folder(tmp_path, mutation)
    result = compare(tmp_path, name)
    assert not is_right(result), result


@pytest.mark.parametrize("name, key", GGUF_CASES)
def test_a_wrong_value_of_a_gguf_is_seen(name, key, tmp_path):
    model = tiny_models.MODELS[name]()
    path = tmp_path / "model.gguf"
    model.write_gguf(path, {key: model.wrong_gguf_values()[key]})
    result = compare(path, name)
    assert not is_right(result), result
