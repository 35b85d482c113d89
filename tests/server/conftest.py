import os

import pytest


@pytest.fixture(scope="session")
def client(probe):
    return probe.client()


@pytest.fixture(scope="session")
def thorough():
    """Whether to do all that a test could do, which may take an hour, or what takes seconds: LANNER_TEST_THOROUGH=1."""
    return os.environ.get("LANNER_TEST_THOROUGH", "0") != "0"


@pytest.fixture(scope="session")
def real_tools(model):
    """The real model with a template and a parser for tools."""
    from server_process import BINARY, Server

    server = Server([BINARY, "serve", "api_server", model, "--server-port", "0", "--model-name", "small", "--session-len",
                     "1024", "--cache-max-entry-count", "0.05", "--tool-call-parser", "qwen", "--chat-template", "qwen"])
    yield server
    assert server.stop() == 0, server.output
