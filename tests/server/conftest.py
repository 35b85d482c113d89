import os

import pytest


@pytest.fixture(scope="session")
def client(probe):
    return probe.client()


@pytest.fixture(scope="session")
def thorough():
    """Whether to do all that a test could do, which may take an hour, or what takes seconds: LANNER_TEST_THOROUGH=1."""
    return os.environ.get("LANNER_TEST_THOROUGH", "0") != "0"
