"""The native server as a child of this process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from lanner._program import program_path
from lanner.errors import LannerError

_KEPT_LINES = 50
_POLL_S = 0.05
_PROBE_TIMEOUT_S = 5.0
_LEAVE_S = 10.0  # what a server may take to end besides the answers under way
_ANNOUNCEMENT = re.compile(r" running on (https?)://\S*:(\d+)")
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

    >>> with ServerProcess(model, ["--session-len", "1024"], show_output=False) as server:  # doctest: +SKIP
    ...     print(server.url)
    http://127.0.0.1:40291
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
        self._child = _Child(command, api_keys, show_output)
        self._finalizer = weakref.finalize(self, _end, self._child, os.getpid(), drain_timeout_s)
        try:
            self._url = self._wait_until_ready(host, ready_timeout_s)
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

    def _wait_until_ready(self, host: str, timeout_s: float | None) -> str:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        url: str | None = None
        while True:
            if self._child.process.poll() is not None:
                self._child.reader.join(_PROBE_TIMEOUT_S)  # which has the last lines then
                raise LannerError(self._child.error_line(), "unavailable")
            if url is None and self._child.announced.wait(_POLL_S) and self._child.address is not None:
                scheme, port = self._child.address
                reached = _WILDCARDS.get(host, host)
                url = f"{scheme}://[{reached}]:{port}" if ":" in reached else f"{scheme}://{reached}:{port}"
            elif url is not None:
                if _answers(url + "/health/ready"):
                    return url
                time.sleep(_POLL_S)
            if until is not None and time.monotonic() > until:
                raise LannerError(f"the server does not answer after {timeout_s:g} seconds", "timeout")


class _Child:
    """The process, and the thread that starts it and reads what it prints.

    The kernel ends the child when the thread that started it ends, so that thread lives as long as the child does.
    """

    def __init__(self, command: Sequence[str], api_keys: Sequence[str], show_output: bool) -> None:
        self.process: subprocess.Popen[str]
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self.address: tuple[str, int] | None = None  # scheme and port, once it listens
        self.announced = threading.Event()  # it listens, or prints nothing more
        self._started = threading.Event()
        self._failure: OSError | None = None
        self._command = command
        self._keys = api_keys
        self._show_output = show_output
        self.reader = threading.Thread(target=self._run, name="lanner-server", daemon=True)
        self.reader.start()
        self._started.wait()
        if self._failure is not None:
            raise LannerError(f"{command[0]}: {self._failure.strerror}", "io")

    def error_line(self) -> str:
        """The line that says why it ended."""
        for line in reversed(self.lines):
            _, found, message = line.partition(" error: ")
            if found:
                return message
        status = self.process.returncode
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return f"the server {how}" + (f": {self.lines[-1]}" if self.lines else "")

    def _run(self) -> None:
        try:
            self._start()
        except OSError as error:
            self._failure = error
            return
        finally:
            self._started.set()
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._take(line)
        self.announced.set()
        self.process.wait()

    def _start(self) -> None:
        launcher = Path(__file__).with_name("_exec_with_parent.py")
        command = [sys.executable, "-I", "-S", str(launcher), str(os.getpid()), *self._command]
        with contextlib.ExitStack() as keys:
            passed: list[int] = []
            if self._keys:  # in memory: a command line is everybody's to read
                passed.append(os.memfd_create("lanner-keys"))
                keys.callback(os.close, passed[0])
                os.write(passed[0], "".join(f"{key}\n" for key in self._keys).encode())
                command += ["--api-key-file", f"/proc/self/fd/{passed[0]}"]
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                pass_fds=passed,
                start_new_session=True,  # a terminal's Ctrl-C is this process's to answer
            )

    def _take(self, line: str) -> None:
        self.lines.append(line.rstrip("\n"))
        if self._show_output:
            with contextlib.suppress(OSError, ValueError):  # a stderr that was closed loses lines, and nothing else
                print(line, end="", file=sys.stderr, flush=True)
        found = _ANNOUNCEMENT.search(line)
        if found and not self.announced.is_set():
            self.address = (found[1], int(found[2]))
            self.announced.set()


def _end(child: _Child, owner: int, drain_timeout_s: float) -> None:
    """Ends the child in good order; a process that was forked off the owner leaves it alone."""
    if os.getpid() != owner:
        return
    if child.process.poll() is None:
        child.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C: at once
            child.process.wait(drain_timeout_s + _LEAVE_S)
    if child.process.poll() is None:
        child.process.kill()
        child.process.wait()
    child.reader.join(_PROBE_TIMEOUT_S)
    if child.process.stderr is not None:
        child.process.stderr.close()


def _answers(url: str) -> bool:
    """Whether a GET is answered with 200; the child's own certificate is not doubted."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=_PROBE_TIMEOUT_S) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False
