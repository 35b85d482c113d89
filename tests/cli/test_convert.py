"""lanner convert: what comes out answers as its source does, to the letter."""

import os
import pathlib
import shutil
import time

import pytest

PROMPTS = (b"What is the capital of France?\n", b"Write one sentence about the sea.\n")


@pytest.fixture(scope="session")
def folder():
    path = os.environ.get("LANNER_TEST_MODEL_DIR")
    if not path:
        pytest.fail("LANNER_TEST_MODEL_DIR does not name a model folder: `make test` sets it")
    return path


@pytest.fixture
def answers(run):
    def ask(model, *flags):
        texts = []
        for prompt in PROMPTS:
            done = run("chat", model, "--temperature", "0", "--max-new-tokens", "24", *flags, stdin=prompt)
            assert done.returncode == 0, done.stderr
            texts.append(done.stdout)
        return texts

    return ask


def test_a_converted_gguf_answers_the_same(run, answers, model, tmp_path):
    done = run("convert", model, "--dst-path", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert b"of weights" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metadata.gguf", "model.lanner"]
    assert answers(tmp_path / "out") == answers(model)
    assert answers(tmp_path / "out", "--dtype", "float32") == answers(model, "--dtype", "float32")


def test_a_converted_folder_answers_the_same(run, answers, folder, tmp_path):
    done = run("convert", "llama", folder, "--dst-path", tmp_path / "out", "--model-format", "hf", "--tp", "1")
    assert done.returncode == 0, done.stderr
    assert b"the name llama is not needed" in done.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.lanner", "config.json", "tokenizer.json"} <= names
    assert not any(name.endswith(".safetensors") for name in names)
    assert answers(tmp_path / "out") == answers(folder)


def test_a_converted_model_starts_at_once(run, model, tmp_path):
    assert run("convert", model, "--dst-path", tmp_path / "out").returncode == 0
    times = []
    for _ in range(5):
        start = time.monotonic()
        done = run("chat", tmp_path / "out", "--max-new-tokens", "1", stdin=b"Hi\n")
        times.append(time.monotonic() - start)
        assert done.returncode == 0
    print(f"start, one token, end: {min(times):.3f} s")
    assert min(times) < 3.0, "ten times what a quiet machine needs"


def test_what_is_there_is_not_overwritten(run, model, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine").write_text("x", encoding="utf-8")
    done = run("convert", model, "--dst-path", target)
    assert done.returncode == 1 and b"is there already" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["out"]
    assert (target / "mine").exists()


def test_broken_ones_are_refused_in_one_line(run, model, tmp_path):
    source = tmp_path / "out"
    assert run("convert", model, "--dst-path", source).returncode == 0
    done = run("convert", source, "--dst-path", tmp_path / "again")
    assert done.returncode == 1 and b"is converted already" in done.stderr
    weights = source / "model.lanner"
    whole = weights.stat().st_size
    for name, change in (
        ("cut", lambda file: file.truncate(whole // 2)),
        ("table", lambda file: (file.seek(whole - 5), file.write(b"@"))),
        ("version", lambda file: (file.seek(8), file.write(b"\x09"))),
    ):
        broken = tmp_path / name
        shutil.copytree(source, broken)
        with open(broken / "model.lanner", "r+b") as file:
            change(file)
        done = run("chat", broken, stdin=b"Hi\n")
        assert done.returncode == 1, name
        assert done.stderr.startswith(b"lanner: error: ") and done.stderr.count(b"\n") == 1, done.stderr
        assert b"model.lanner" in done.stderr
        shutil.rmtree(broken)


def test_the_folder_is_named_workspace_unless_told(run, model, tmp_path):
    done = run("convert", model, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert pathlib.Path(tmp_path, "workspace", "model.lanner").exists()
