"""One pipeline that tests share: the real model on the CPU."""

import os

import pytest

from lanner import GenerationConfig, TurbomindEngineConfig, pipeline


os.environ.setdefault("LANNER_PROGRAM", os.environ.get("LANNER_BINARY", "build/lanner"))


@pytest.fixture(scope="session")
def pipe(model):
    with pipeline(model, TurbomindEngineConfig(device="cpu", session_len=2048)) as opened:
        yield opened


@pytest.fixture
def short():
    """A few tokens, greedy."""
    return GenerationConfig(max_new_tokens=12)
