"""scripts/with_cargo.sh: which cargo a command sees. The script runs in a tree of its own, since it writes to build/."""

import pathlib
import shutil
import subprocess

import pytest

SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"


@pytest.fixture
def run(tmp_path):
    (tmp_path / "scripts").mkdir()
    for name in ("with_cargo.sh", "cargo.sh"):
        shutil.copy(SCRIPTS / name, tmp_path / "scripts" / name)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "sh", "awk", "sort", "head", "mkdir", "ln", "dirname"):
        (tools / name).symlink_to(shutil.which(name))

    def run_with(**cargos):
        """cargos: folder to what its cargo says; the folders are on PATH in that order, 'home' is ~/.cargo/bin."""
        path = []
        for folder, answer in cargos.items():
            place = tmp_path / "home" / ".cargo" / "bin" if folder == "home" else tmp_path / folder
            place.mkdir(parents=True)
            for name, says in (("cargo", answer), ("rustc", f"rustc of {folder}"), ("rustdoc", "")):
                (place / name).write_text(f"#!/bin/sh\n{'exit 1' if says is None else f'echo {says}'}\n")
                (place / name).chmod(0o755)
            path += [str(place)] if folder != "home" else []
        return subprocess.run(
            [tmp_path / "scripts" / "with_cargo.sh", "sh", "-c", "cargo --version; rustc --version"],
            env={"PATH": ":".join([*path, str(tools)]), "HOME": str(tmp_path / "home")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    return run_with


def test_the_first_one_is_left_alone_if_it_is_new_enough(run, tmp_path):
    assert run(first="cargo 1.87.0", second="cargo 1.99.0").stdout == "cargo 1.87.0\nrustc of first\n"
    assert not (tmp_path / "build").exists()


@pytest.mark.parametrize("first", ["cargo 1.63.0", None, "nonsense"])
def test_an_old_or_broken_one_is_passed_over(run, first):
    assert run(first=first, second="cargo 1.99.0").stdout == "cargo 1.99.0\nrustc of second\n"


def test_rustups_folder_need_not_be_on_path(run):
    assert run(first="cargo 1.63.0", home="cargo 1.90.0").stdout == "cargo 1.90.0\nrustc of home\n"


def test_none_is_a_clear_error(run):
    result = run(first="cargo 1.63.0")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "lanner: no cargo 1.87 or newer found; run scripts/setup.sh, or put one on PATH\n"
