#!/usr/bin/env python3
"""Fetches the vocabularies that llama.cpp tests its tokenizers with, and prints their folder.

They lie in the source package of llama-cpp-python on PyPI (MIT), 60 MB, which is fetched with pip, so that pip's own
settings hold. pip looks into a source package before it keeps it and fetches a build tool for that: this takes minutes.
Only the tests marked `peer` want them; nothing of them becomes a part of this project.

    folder=$(scripts/fetch_llama_cpp_vocabularies.py)
    folder=$(scripts/fetch_llama_cpp_vocabularies.py --offline)   # fails where they have not been fetched
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
INSIDE = "/vendor/llama.cpp/models/ggml-vocab-"


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
    target.mkdir()
    with tarfile.open(package) as archive:
        for member in archive:
            if member.isfile() and INSIDE in member.name:
                (target / pathlib.PurePosixPath(member.name).name).write_bytes(archive.extractfile(member).read())


def ensure(offline):
    target = models_folder() / f"llama-cpp-vocabularies-{SHA256[:12]}"
    if target.is_dir():
        return target
    if offline:
        raise FetchError("they have not been fetched yet. Run this without --offline.")
    with only_one_fetch(target.parent):
        if not target.is_dir():
            say("Fetching llama.cpp's vocabularies, 60 MB")
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as name:
                folder = pathlib.Path(name)
                extract(download(folder), folder / "vocabularies")
                os.replace(folder / "vocabularies", target)
    return target


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offline", action="store_true", help="fetch nothing")
    options = parser.parse_args()
    try:
        print(ensure(options.offline))
        return 0
    except (FetchError, OSError, tarfile.TarError) as error:
        say(f"Could not fetch llama.cpp's vocabularies: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
