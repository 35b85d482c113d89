"""The server of a model, as a process that ends with this one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from lanner._child_process import ChildProcess
from lanner._server_process import ANNOUNCEMENT


class NativeServer:
    """``lanner serve api_server``, on a free port of this machine that only this program knows the key of.

    The constructor does not wait until it listens. Its words go to this program's stderr.

    Args:
        program: the native program.
        arguments: the model and flags of the engine, as the user gave them.
    """

    def __init__(self, program: Path, arguments: list[str]) -> None:
        # In the environment, where other users of this machine do not see it.
        self.api_key = os.environ.get("LANNER_API_KEY") or secrets.token_hex(32)
        address = ["--server-name", "127.0.0.1", "--server-port", "0"]
        self._child = ChildProcess(
            [str(program), "serve", "api_server", *address, *arguments],
            ANNOUNCEMENT,
            environment={**os.environ, "LANNER_API_KEY": self.api_key},
        )

    @property
    def url(self) -> str:
        """Where it listens; empty before it does."""
        announced = self._child.announcement
        return f"http://127.0.0.1:{announced[2]}" if announced else ""

    def status(self) -> int | None:
        """None while it runs, else its exit status as a shell has it."""
        status = self._child.process.poll()
        return status if status is None or status >= 0 else 128 - status

    def hurry(self) -> None:
        """Tells it to end; returns at once."""
        if self._child.process.poll() is None:
            self._child.process.terminate()

    def stop(self, seconds: float = 10.0) -> None:
        """Ends it: in good order where that takes no longer than ``seconds``, by force else. Safe to call twice. Where
        `hurry` was called before, answers that are under way end at once."""
        self._child.end(seconds)
