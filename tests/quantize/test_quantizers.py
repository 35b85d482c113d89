"""What auto_awq and auto_gptq have in common: going on after a kill, and what is refused."""

import pathlib
import signal
import subprocess

import numpy as np
import pytest
import tiny_models
from quantize_support import BINARY, FEW, check_same_files, end_when


@pytest.fixture(params=["auto_awq", "auto_gptq"])
def verb(request):
    return request.param


# Files that are there when a run is killed: results of so many layers; of auto_gptq also that of one which the samples
# have yet to go through.
KILLED_AT = {"auto_awq": [("*.scales", 2), ("*.scales", 5)], "auto_gptq": [("*.rounded", 2), ("layer-00005.rounded.new", 1)]}


def test_a_killed_run_goes_on_and_writes_the_same_bytes(verb, slow_folder, environment, run, text, tmp_path):
    flags = ["lite", verb, str(slow_folder), "--calib-dataset", str(text), "--calib-seqlen", "256", "--w-group-size",
             "64", "--no-report", "--calib-samples=48"]
    done = run(*flags, "--work-dir", tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    killed = 0
    part = tmp_path / "killed.part"
    for pattern, wanted in KILLED_AT[verb]:
        code, _, _ = end_when(lambda pattern=pattern, wanted=wanted: len(list(part.glob(f"unfinished/{pattern}"))) >= wanted,
                              signal.SIGKILL, [*flags, "--work-dir", tmp_path / "killed", "--resume"], environment)
        killed += code == -signal.SIGKILL
    assert killed == 2 and not (tmp_path / "killed").exists()
    again = run(*flags, "--work-dir", tmp_path / "killed")
    assert again.returncode == 1 and b"--resume" in again.stderr and part.exists()
    other = run(*flags[:-1], "--calib-samples=47", "--work-dir", tmp_path / "killed", "--resume")
    assert other.returncode == 1 and b"another calibration" in other.stderr and part.exists()
    done = run(*flags, "--work-dir", tmp_path / "killed", "--resume")
    assert done.returncode == 0, done.stderr
    assert not part.exists()
    check_same_files(tmp_path / "whole", tmp_path / "killed")


@pytest.fixture
def refused(run, tmp_path, verb):
    """refused(arguments…): the one line with which it is refused; nothing is left behind."""

    def refused_line(*arguments, **more):
        before = {path.name for path in tmp_path.iterdir()}
        done = run("lite", verb, *arguments, "--no-report", **more)
        assert done.returncode == 1 and done.stdout == b""
        assert {path.name for path in tmp_path.iterdir()} == before
        line = done.stderr.decode()
        assert line.count("\n") == 1 and line.startswith("lanner: error: ")
        return line

    return refused_line


def test_groups_that_do_not_fit_are_refused_with_the_command_that_does(refused, verb, write_model, tmp_path, text):
    model = tiny_models.llama()
    folder = write_model(model, "my model")
    line = refused(folder, "--calib-dataset", text, "--work-dir", tmp_path / "out", "--calib_samples", "4")
    command = line[line.index("lanner lite") :].strip()
    assert "32" in line and command.startswith(f"lanner lite {verb} '") and "--calib-samples 4" in command
    done = subprocess.run(["bash", "-c", command.replace("lanner", BINARY, 1) + " --calib-seqlen 32 --no-report"],
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_bad_weights_are_refused(refused, write_model, tmp_path, text):
    for name, value, what in (("model.layers.1.mlp.up_proj.weight", np.nan, "finite"),
                              ("model.layers.2.input_layernorm.weight", np.inf, "finite"),
                              ("model.layers.2.mlp.down_proj.weight", 3e38, "fp16"),
                              ("model.embed_tokens.weight", np.nan, "finite"),
                              ("lm_head.weight", 1e5, "fp16")):
        model = tiny_models.llama()
        model.tensors[name].flat[-1] = value
        folder = write_model(model)
        line = refused(folder, "--calib-dataset", text, "--work-dir", tmp_path / "out", "--w-group-size", "32", *FEW)
        assert what in line and (name in line or "layer" in line)


def test_bad_texts_are_refused(refused, write_model, tmp_path):
    folder = write_model(tiny_models.llama())
    cases = [(b"ten bytes.", "10 tokens"), (b"", "0 tokens"), (b"\xff\xfe" * 200, "UTF-8")]
    for content, what in cases:
        path = tmp_path / "bad.txt"
        path.write_bytes(content)
        line = refused(folder, "--calib-dataset", path, "--work-dir", tmp_path / "out", "--w-group-size", "32", *FEW)
        assert what in line and "bad.txt" in line
    line = refused(folder, "--calib-dataset", "ptb", "--work-dir", tmp_path / "out", "--w-group-size", "32", *FEW)
    assert "ptb/train.txt" in line
    line = refused(folder, "--calib-dataset", "nothing", "--work-dir", tmp_path / "out", "--w-group-size", "32", *FEW)
    assert "neither a file nor a data set" in line


def test_places_that_cannot_be_written_are_refused(refused, write_model, tmp_path, text):
    folder = write_model(tiny_models.llama())
    flags = (folder, "--calib-dataset", text, "--w-group-size", "32", *FEW)
    assert "cannot create" in refused(*flags, "--work-dir", "/proc/nowhere/out")
    assert "is there already" in refused(*flags, "--work-dir", folder)
    assert "is there already" in refused(*flags, "--work-dir", text)
    # A full disk, as far as a process can have one: files may not grow past some kilobytes.
    line = refused(*flags, "--work-dir", tmp_path / "out", preexec_fn=limit_files)
    assert "File too large" in line and "cannot write" in line


def limit_files():
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def test_what_is_no_folder_of_plain_weights_is_refused(refused, verb, write_model, quantize, tmp_path):
    model = tiny_models.llama()
    folder = write_model(model)
    quantize(folder, "--calib-samples", "0", verb=verb)
    assert "quantized already" in refused(tmp_path / "out", "--work-dir", tmp_path / "b", "--w-group-size", "32")
    model.write_gguf(pathlib.Path(tmp_path / "a.gguf"))
    assert "Hugging Face folder" in refused(tmp_path / "a.gguf", "--work-dir", tmp_path / "b", "--w-group-size", "32")
    assert "4 bits alone" in refused(folder, "--work-dir", tmp_path / "b", "--w-bits", "3")


def test_the_old_step_for_the_cache_says_that_it_is_not_needed(run, tmp_path):
    done = run("lite", "kv_qparams", "work_dir", "workspace/triton_models/weights", "--num-tp", "1", cwd=tmp_path)
    assert done.returncode == 0 and b"not needed" in done.stderr and not list(tmp_path.iterdir())
