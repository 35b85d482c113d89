#!/usr/bin/env python3
"""Fetches llama.cpp's folder models/ once and prints its path: vocabularies with expected tokens, and chat templates.

It lies in the source package of llama-cpp-python on PyPI (MIT), 77 MB, which is fetched with pip, so that pip's own
settings hold. pip looks into a source package before it keeps it and fetches a build tool for that: this takes minutes.
Only the tests marked `peer` want the folder; nothing of it becomes a part of this project.

    export LANNER_TEST_LLAMA_CPP_VOCABS=$(scripts/fetch_llama_cpp_models.py)
    .venv/bin/python -m pytest tests/text -m peer
    scripts/fetch_llama_cpp_models.py --offline    # fails where it has not been fetched
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

from fetch_default_model import FetchError, cause_of, models_folder, only_one_fetch, pip_command, say, sha256_of

REQUIREMENT = "llama-cpp-python==0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
INSIDE = "/vendor/llama.cpp/models/"


def download(folder):
    command = [*pip_command(folder), "download", "--no-deps", "--no-binary", ":all:", "--quiet", "--no-input",
               "--disable-pip-version-check", "--progress-bar", "off", "--dest", str(folder / "package"), REQUIREMENT]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    found = sorted((folder / "package").glob("*.tar.gz"))
    if done.returncode != 0 or len(found) != 1:
        raise FetchError(cause_of(done.stderr))
    if sha256_of(found[0]) != SHA256:
        raise FetchError(f"{found[0].name} has the wrong checksum, so it was thrown away. Run this again.")
    return found[0]


def extract(package, target):
    with tarfile.open(package) as archive:
        for member in archive:
            _, inside, name = member.name.partition(INSIDE)
            if not inside or not member.isfile() or ".." in pathlib.PurePosixPath(name).parts:
                continue
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.extractfile(member).read())


def ensure(offline):
    target = models_folder() / f"llama-cpp-models-{SHA256[:12]}"
    if target.is_dir():
        return target
    if offline:
        raise FetchError("it has not been fetched yet. Run this without --offline.")
    with only_one_fetch(target.parent):
        if not target.is_dir():
            say("Fetching llama.cpp's vocabularies and chat templates, 77 MB")
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as name:
                folder = pathlib.Path(name)
                extract(download(folder), folder / "models")
                os.replace(folder / "models", target)  # whole, or not there
    return target


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offline", action="store_true", help="fetch nothing")
    options = parser.parse_args()
    try:
        print(ensure(options.offline))
        return 0
    except (FetchError, OSError, tarfile.TarError) as error:
        say(f"Could not fetch llama.cpp's folder models/: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
