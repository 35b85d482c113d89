"""What tests of several rooms share."""

import os
import signal

import pytest


@pytest.fixture(scope="session")
def model():
    path = os.environ.get("LANNER_TEST_GGUF")
    if not path:
        pytest.fail("LANNER_TEST_GGUF does not name a model: `make test` sets it")
    return path


@pytest.fixture(scope="session")
def start_probe():
    """start_probe(*flags) starts the scripted server, which ends with the tests."""
    from server_process import PROBE, Server  # has packages that other tests do without

    started = []

    def start(*arguments):
        started.append(Server([PROBE, *map(str, arguments)]))
        return started[-1]

    yield start
    for server in started:
        server.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def probe(start_probe):
    """The scripted server that tests share: its tokens are bytes, and "[say TEXT]" in a prompt is what it says."""
    return start_probe()


@pytest.fixture(scope="session")
def tool_probe(start_probe):
    """The same, with a template and a parser for tools, and for thoughts."""
    return start_probe("--tools", "hermes", "--thoughts", "1")


@pytest.fixture(scope="session")
def real(model):
    """lanner serve api_server with the real model."""
    from server_process import BINARY, Server

    server = Server([BINARY, "serve", "api_server", model, "--server-port", "0", "--model-name", "small",
                     "--session-len", "1024", "--cache-max-entry-count", "0.05"])
    yield server
    code = server.stop()
    assert code == 0, server.output
