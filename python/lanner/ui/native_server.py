"""The server of a model, as a process that ends with this one."""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def free_port(host: str = "127.0.0.1") -> int:
    """A port on which nobody listens at the moment.

    >>> 0 < free_port() < 65536
    True
    """
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _end_with(parent: int) -> Callable[[], None] | None:
    """What the new process does first, so that the kernel ends it with this one, even where this one is killed."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has gone meanwhile
            os._exit(1)

    return prepare


class NativeServer:
    """``lanner serve api_server``, on a port of this machine that only this program knows the key of.

    Start it from the main thread: Linux ends it with the thread that started it. Its words go to this program's stderr.

    Args:
        program: the native program.
        arguments: the model and flags of the engine, as the user gave them.
    """

    def __init__(self, program: Path, arguments: list[str]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # In the environment, where other users of this machine do not see it.
        self.api_key = os.environ.get("LANNER_API_KEY") or secrets.token_hex(32)
        address = ["--server-name", "127.0.0.1", "--server-port", str(self.port)]
        self._process = subprocess.Popen(
            [str(program), "serve", "api_server", *address, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            env={**os.environ, "LANNER_API_KEY": self.api_key},
            start_new_session=True,  # Ctrl-C is for this program, which ends the other one in good order
            preexec_fn=_end_with(os.getpid()),
        )

    def status(self) -> int | None:
        """None while it runs, else its exit status as a shell has it."""
        status = self._process.poll()
        return status if status is None or status >= 0 else 128 - status

    def hurry(self) -> None:
        """Tells it to end; returns at once."""
        if self._process.poll() is None:
            self._process.terminate()

    def stop(self, seconds: float = 10.0) -> None:
        """Ends it: in good order where that takes no longer than ``seconds``, by force else. Safe to call twice."""
        self.hurry()
        until = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < until:
            try:
                self._process.wait(0.5)
            except subprocess.TimeoutExpired:
                self._process.terminate()  # a second one ends answers that are under way
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
