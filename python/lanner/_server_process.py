"""The native server as a child of this process."""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Sequence
from types import TracebackType

from lanner._child_process import ChildProcess
from lanner._program import program_path

_LEAVE_S = 10.0  # what a server may take to end besides the answers under way
ANNOUNCEMENT = re.compile(r" running on (https?)://\S*:(\d+)")
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


class ServerProcess:
    """``lanner serve api_server`` as a child that dies with this process.

    The constructor returns when the server answers requests. Use it as a context manager, or call `close`; at the
    latest the child ends with the interpreter, and when this process is killed the kernel ends it. Ctrl-C in a terminal
    does not reach the child: it ends because this process does. All methods may be called from any thread.

    Args:
        model: what ``lanner serve api_server`` takes; None is the small default model.
        flags: further flags of ``lanner serve api_server``, without those that the other arguments stand for.
        host: the address to listen on; ``"0.0.0.0"`` is all of this machine's.
        port: 0 takes any that is free.
        api_keys: keys that open the server. They do not appear in the list of processes.
        drain_timeout_s: seconds that answers under way have when the server is to end.
        ready_timeout_s: seconds until it must answer; None waits as long as the child lives, as it may be downloading.
        show_output: whether what the server prints goes to this process's stderr.

    Raises:
        LannerError: the server ended before it answered (the message is its own), or did not answer in time.

    >>> with ServerProcess(MODEL, ["--session-len", "1024"], show_output=False) as server:
    ...     server.url.startswith("http://127.0.0.1:")
    True
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None,
        flags: Sequence[str] = (),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_keys: Sequence[str] = (),
        drain_timeout_s: float = 5.0,
        ready_timeout_s: float | None = None,
        show_output: bool = True,
    ) -> None:
        command = [str(program_path()), "serve", "api_server"]
        if model is not None:
            command.append(os.fspath(model))
        command += ["--server-name", host, "--server-port", str(port)]
        command += ["--drain-timeout", f"{drain_timeout_s:g}", *flags]
        self._child = _start(command, api_keys, show_output)
        self._finalizer = weakref.finalize(self, self._child.end, drain_timeout_s + _LEAVE_S)
        try:
            reached = _WILDCARDS.get(host, host)
            reached = f"[{reached}]" if ":" in reached else reached
            self._url = self._child.wait_for_answer(
                lambda announced: f"{announced[1]}://{reached}:{announced[2]}",
                "/health/ready",
                ready_timeout_s,
                program="the server",
                what="the server",
            )
        except BaseException:  # Ctrl-C too
            self.close()
            raise

    @property
    def url(self) -> str:
        """Where this process reaches the server, such as ``http://127.0.0.1:23333``; a wildcard becomes loopback."""
        return self._url

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._url.rpartition(":")[2])

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.process.pid

    @property
    def returncode(self) -> int | None:
        """The child's exit status, None while it runs; negative where a signal killed it."""
        return self._child.process.poll()

    @property
    def last_lines(self) -> list[str]:
        """What the server printed last, at most 50 lines."""
        return list(self._child.lines)

    def wait(self, timeout_s: float | None = None) -> int:
        """Waits for the child to end by itself and returns its exit status.

        Raises:
            subprocess.TimeoutExpired: it still runs after ``timeout_s`` seconds.
        """
        return self._child.process.wait(timeout_s)

    def close(self) -> None:
        """Ends the server; answers under way may finish within ``drain_timeout_s``. Calling it again does nothing."""
        self._finalizer()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _start(command: list[str], api_keys: Sequence[str], show_output: bool) -> ChildProcess:
    """The child, which reads its keys from memory: a command line is everybody's to read."""
    if not api_keys:
        return ChildProcess(command, ANNOUNCEMENT, show_output=show_output)
    keys = os.memfd_create("lanner-keys")
    try:
        os.write(keys, "".join(f"{key}\n" for key in api_keys).encode())
        command = [*command, "--api-key-file", f"/proc/self/fd/{keys}"]
        return ChildProcess(command, ANNOUNCEMENT, show_output=show_output, passed=[keys])
    finally:
        os.close(keys)
