import pytest


@pytest.fixture(scope="session")
def client(probe):
    return probe.client()
