import os
import pathlib
import subprocess

import pytest

from terminal import Terminal

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("LANNER_BINARY", str(REPOSITORY / "build" / "lanner"))


@pytest.fixture
def environment(tmp_path):
    """A home of its own, so that no test touches the user's history; and nothing is downloaded."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    return {**kept, "HOME": str(home), "TERM": "xterm", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def run(environment):
    """lanner with these arguments; stdin is empty unless given."""

    def run_program(*arguments, stdin=b"", timeout=300, **more):
        return subprocess.run([BINARY, *map(str, arguments)], input=stdin, capture_output="stdout" not in more,
                              env=environment, timeout=timeout, check=False, **more)

    return run_program


@pytest.fixture
def terminal(environment):
    """lanner on a terminal."""
    started = []

    def start(*arguments, **more):
        started.append(Terminal([BINARY, *map(str, arguments)], environment, **more))
        return started[-1]

    yield start
    for one in started:
        one.close()
