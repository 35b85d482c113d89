"""Ctrl-C in the middle of `lanner lite`: one line says what is left and how to go on, and going on works."""

import shlex
import signal

import pytest
from quantize_support import end_when

FEW = ("--calib-seqlen", "256", "--calib-samples", "24")


def interrupt(arguments, environment, ready):
    code, out, said = end_when(ready, signal.SIGINT, arguments, environment)
    return code, out, said.decode()


@pytest.mark.parametrize(("verb", "flags", "kind"), [
    ("auto_awq", ("--w-group-size=64", "--no-report"), "scales"), ("calibrate", (), "statistics")])
def test_an_interrupted_run_says_how_to_go_on(slow_folder, environment, run, text, tmp_path, verb, flags, kind):
    out = tmp_path / "my out"
    part = tmp_path / "my out.part"
    code, shown, said = interrupt(
        ("lite", verb, slow_folder, "--calib-dataset", text, *FEW, *flags, "--work-dir", f"{out}/"), environment,
        lambda: len(list(part.glob(f"unfinished/*.{kind}"))) >= 2)
    assert code == 130 and shown == b"" and said.count("\n") == 1
    assert said.startswith(f"lanner: interrupted: {part} is left; to go on: lanner lite {verb} ")
    assert part.exists() and not out.exists()
    words = shlex.split(said[said.index("lanner lite") :])
    assert words[-1] == "--resume"
    done = run(*words[1:])
    assert done.returncode == 0, done.stderr.decode()
    assert not part.exists() and len(list(out.iterdir())) >= 2


def test_what_leaves_nothing_says_nothing(slow_folder, environment, text, tmp_path):
    """In the report the model is there already, and nothing is to be gone on with."""
    out = tmp_path / "out"
    code, shown, said = interrupt(
        ("lite", "auto_awq", slow_folder, "--calib-dataset", text, "--calib-samples", "0", "--w-group-size=64",
         "--report-windows", "1000", "--work-dir", out), environment, out.exists)
    assert code == 130 and said == "" and (out / "config.json").exists()
