"""A program that this process starts, listens to, and never leaves behind."""

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
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lanner.errors import LannerError

_KEPT_LINES = 50
_JOIN_S = 5.0
_POLL_S = 0.05
_PROBE_TIMEOUT_S = 5.0


class ChildProcess:
    """A child that gets SIGTERM when this process dies, and is no part of its terminal's Ctrl-C.

    The kernel signals when the thread that started the child ends; so a thread of its own starts the child, reads what
    it prints and waits for its end.

    Args:
        command: program and arguments.
        announcement: what a line says once the child answers requests.
        show_output: whether its lines go to this process's stderr.
        passed: file descriptors that it inherits under their numbers; they may be closed when the constructor returns.
        environment: its environment, where it is not this process's.

    Raises:
        LannerError: the program cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        announcement: re.Pattern[str],
        *,
        show_output: bool = True,
        passed: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.process: subprocess.Popen[str]
        self.announcement: re.Match[str] | None = None
        self.announced = threading.Event()  # it has come, or the child prints nothing more
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)  # the last ones, of stdout and stderr
        self._owner = os.getpid()
        self._pattern = announcement
        self._show_output = show_output
        self._failure: OSError | None = None
        self._ending = threading.Lock()
        started = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(command, tuple(passed), environment, started), name="lanner-child", daemon=True
        )
        self._thread.start()
        started.wait()
        if self._failure is not None:
            raise LannerError(f"{sys.executable}: {self._failure.strerror}", "io")

    def wait_for_answer(
        self,
        url_of: Callable[[re.Match[str]], str],
        path: str,
        timeout_s: float | None,
        *,
        program: str,
        what: str,
    ) -> str:
        """The URL that the announcement tells, once a GET of its ``path`` is answered with 200.

        Args:
            url_of: makes it of the announcement.
            timeout_s: seconds until then at most; None waits as long as the child lives.
            program, what: what ends, and what does not answer, in the messages.

        Raises:
            LannerError: the child ended before, or did not answer in time.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if self.process.poll() is not None:
                raise LannerError(self.error(program), "unavailable")
            if self.announced.wait(_POLL_S) and self.announcement is not None:
                url = url_of(self.announcement)
                if _answers(url + path):
                    return url
                time.sleep(_POLL_S)
            if until is not None and time.monotonic() > until:
                raise LannerError(f"{what} does not answer after {timeout_s:g} seconds", "timeout")

    def error(self, name: str) -> str:
        """Of a child that has ended: the message of its last line with one, else how it, ``name``, ended."""
        self._thread.join(_JOIN_S)
        for line in reversed(self.lines):
            _, found, message = line.partition(" error: ")
            if found:
                return message
        status = self.process.returncode
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        return f"{name} {how}" + (f": {self.lines[-1]}" if self.lines else "")

    def end(self, grace_s: float) -> None:
        """SIGTERM, and after ``grace_s`` seconds SIGKILL. A process that was forked off this one leaves it alone."""
        if os.getpid() != self._owner:
            return
        with self._ending:
            if self.process.poll() is None:
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C: at once
                    self.process.wait(grace_s)
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self._thread.join(_JOIN_S)

    def _run(
        self,
        command: Sequence[str],
        passed: Sequence[int],
        environment: Mapping[str, str] | None,
        started: threading.Event,
    ) -> None:
        launcher = Path(__file__).with_name("_exec_with_parent.py")
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(launcher), str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                pass_fds=passed,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            self._failure = error
            return
        finally:
            started.set()
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._take(line)
        self.announced.set()
        self.process.wait()

    def _take(self, line: str) -> None:
        self.lines.append(line.rstrip("\n"))
        if self._show_output:
            with contextlib.suppress(OSError, ValueError):  # a stderr that was closed loses lines, and nothing else
                print(line, end="", file=sys.stderr, flush=True)
        found = None if self.announced.is_set() else self._pattern.search(line)
        if found:
            self.announcement = found
            self.announced.set()


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
