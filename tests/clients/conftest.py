import pytest

from server_process import BINARY, Server


@pytest.fixture(scope="session")
def probe(start_probe):
    """The scripted server: its tokens are bytes, and "[say TEXT]" in a prompt is what it says."""
    return start_probe()


@pytest.fixture(scope="session")
def real(model):
    """lanner serve api_server with the real model."""
    server = Server([BINARY, "serve", "api_server", model, "--server-port", "0", "--model-name", "small",
                     "--session-len", "1024", "--cache-max-entry-count", "0.05"])
    yield server
    code = server.stop()
    assert code == 0, server.output
