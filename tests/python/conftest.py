"""One pipeline that tests share: the real model on the CPU."""

import os
import signal

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


@pytest.fixture
def open_ui():
    """Starts `lanner serve gradio`; what a failed test has left of it ends with the test."""
    from gradio_page import Ui

    started = []

    def start(*arguments, **more):
        started.append(Ui(*arguments, **more))
        return started[-1]

    yield start
    for ui in started:
        ui.stop(signal.SIGKILL)
