"""A program on a terminal of its own: what a user at a keyboard would see and type."""

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time

ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>()][0-9A-B]?")


class Terminal:
    """Runs `arguments` with stdin, stdout and (unless given) stderr on a pseudo terminal."""

    def __init__(self, arguments, environment, stdout=None, stderr=None):
        self.screen, slave = pty.openpty()
        self.seen = b""
        self.process = subprocess.Popen(
            arguments, stdin=slave, stdout=slave if stdout is None else stdout, stderr=slave if stderr is None else stderr,
            env=environment, start_new_session=True, preexec_fn=self._take_terminal)
        os.close(slave)

    @staticmethod
    def _take_terminal():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C on it becomes SIGINT

    def type(self, text):
        os.write(self.screen, text.encode() if isinstance(text, str) else text)

    def press_interrupt(self):
        self.type(b"\x03")

    def read(self, seconds):
        """What has come within that time, at least one piece of it."""
        ready, _, _ = select.select([self.screen], [], [], seconds)
        if not ready:
            return b""
        try:
            piece = os.read(self.screen, 65536)
        except OSError:  # the other side has gone
            piece = b""
        self.seen += piece
        return piece

    def text(self):
        lines = ESCAPES.sub(b"", self.seen).replace(b"\r\n", b"\n").split(b"\n")
        # Of a line that was written over, such as a progress bar, what stands there in the end.
        return b"\n".join(line.split(b"\r")[-1] for line in lines).decode("utf-8", "replace")

    def wait_for(self, needle, seconds=240, count=1):
        """Until the text has come `count` times; returns all there is."""
        end = time.monotonic() + seconds
        while self.text().count(needle) < count:
            assert time.monotonic() < end, f"{needle!r} did not come; there was:\n{self.text()}"
            if not self.read(0.5) and self.process.poll() is not None and not self.read(0.1):
                assert self.text().count(needle) >= count, f"{needle!r} did not come before the end:\n{self.text()}"
        return self.text()

    def wait_for_editing(self):
        """Until the program reads single keys: before that the terminal itself acts on Ctrl-D and backspace."""
        end = time.monotonic() + 240
        while termios.tcgetattr(self.screen)[3] & termios.ICANON:
            assert time.monotonic() < end, "the line editor does not start"
            self.read(0.05)

    def finish(self, seconds=240):
        """Until the program ends; returns its exit code."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, f"the program does not end; there was:\n{self.text()}"
            self.read(0.1)
        while self.read(0.1):
            pass
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self.screen)
