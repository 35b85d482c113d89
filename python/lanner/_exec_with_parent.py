"""Becomes a program that gets SIGTERM when its parent dies, however the parent dies.

    python -I -S _exec_with_parent.py PARENT_PID PROGRAM ARGUMENTS...

A program of its own instead of a ``preexec_fn``: that one would fork a process with threads, which may deadlock. The
kernel sends the signal when the *thread* that started this program ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Does not return; a parent that has died meanwhile, or a program that cannot be run, ends this one."""
    parent, program = int(arguments[0]), arguments[1]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent has ended")
    try:
        os.execv(program, arguments[1:])
    except OSError as error:
        sys.exit(f"lanner: error: {program}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
