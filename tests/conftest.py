"""What tests of several rooms share."""

import os

import pytest


@pytest.fixture(scope="session")
def model():
    path = os.environ.get("LANNER_TEST_GGUF")
    if not path:
        pytest.fail("LANNER_TEST_GGUF does not name a model: `make test` sets it")
    return path
