import os
import pathlib
import subprocess

import pytest

from fake_hub import FakeHub
from tiny_model import PROBE, SMALL, WEIGHTS


@pytest.fixture
def hub():
    hub = FakeHub().start()
    yield hub
    hub.stop()


@pytest.fixture
def repo(hub):
    return hub.add("org/tiny", SMALL, {"model.safetensors": WEIGHTS})


@pytest.fixture
def environment(tmp_path, hub):
    """No variable of this machine but PATH, a home of its own, and only loopback to talk to."""
    home = tmp_path / "home"
    home.mkdir()
    return {"PATH": os.environ["PATH"], "HOME": str(home), "HF_ENDPOINT": hub.url, "TERM": "xterm",
            "LANNER_HUB_RETRY_DELAY": "0.05", "HF_HUB_DOWNLOAD_TIMEOUT": "5", "HF_HUB_ETAG_TIMEOUT": "5"}


@pytest.fixture
def cache(environment):
    return pathlib.Path(environment["HOME"]) / ".cache" / "huggingface" / "hub"


@pytest.fixture
def store(cache):
    return cache / "models--org--tiny"


@pytest.fixture
def probe(environment):
    def run(*arguments, timeout=60, **more):
        return subprocess.run([PROBE, *map(str, arguments)], capture_output=True, text=True, env=environment,
                              timeout=timeout, check=False, **more)

    return run


@pytest.fixture
def start_probe(environment):
    """hub_probe that goes on beside the test."""
    started = []

    def start(*arguments):
        started.append(subprocess.Popen([PROBE, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
