#!/usr/bin/env python3
"""Fetches llama.cpp's folder models/ once and prints its path: vocabularies with expected tokens, and chat templates.

They serve only the tests that compare with llama.cpp and with Jinja2 (pytest -m peer):

    export LANNER_TEST_LLAMA_CPP_VOCABS=$(scripts/fetch_llama_cpp_models.py)
    .venv/bin/python -m pytest tests/text -m peer

The folder lies inside the source package of llama-cpp-python on PyPI (MIT), 77 MB. pip fetches it, so that pip's own
settings (index, proxy, certificates) hold. Before pip downloads a source package it asks the package's build tool for
its metadata: that tool goes into a throwaway environment, and nothing is built.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

REQUIREMENT = "llama-cpp-python==0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
BUILD_TOOL = "scikit-build-core"
MEMBERS = "/vendor/llama.cpp/models/"


def cache_folder():
    cache = os.environ.get("XDG_CACHE_HOME", "")
    base = pathlib.Path(cache) if os.path.isabs(cache) else pathlib.Path.home() / ".cache"
    return base / "lanner" / "llama.cpp-models-0.3.36"


def run(*command):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def download(folder):
    run(sys.executable, "-m", "venv", folder / "venv")
    pip = [folder / "venv" / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "install", BUILD_TOOL)
    run(*pip, "download", "--no-deps", "--no-cache-dir", "--no-build-isolation", "--no-binary", "llama-cpp-python",
        "--dest", folder / "package", REQUIREMENT)
    (package,) = (folder / "package").glob("*.tar.gz")
    if hashlib.sha256(package.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{package.name} is not the file this program expects; it was thrown away. Run this again.")
    return package


def extract(package, target):
    with tarfile.open(package) as archive:
        for member in archive:
            _, found, name = member.name.partition(MEMBERS)
            if not found or not member.isfile() or ".." in pathlib.PurePosixPath(name).parts:
                continue
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.extractfile(member) as packed, open(path, "wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)


def main():
    target = cache_folder()
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        print("Fetching the vocabularies and chat templates of llama.cpp, 77 MB", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as name:
            folder = pathlib.Path(name)
            extract(download(folder), folder / "models")
            os.replace(folder / "models", target)  # whole, or not there
    print(target)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"could not fetch the vocabularies of llama.cpp: pip ended with {error.returncode}")
