"""Where the native program is, which answers every verb but those of this package."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

from lanner.errors import LannerError


def program_path() -> Path:
    """The native program ``lanner``.

    In this order: the environment variable ``LANNER_PROGRAM``, the folder into which this environment's scripts are
    installed, and ``PATH``.

    Raises:
        LannerError: it is in none of these places.

    >>> program_path().name
    'lanner'
    """
    named = os.environ.get("LANNER_PROGRAM")
    if named:
        return Path(named)
    installed = Path(sysconfig.get_path("scripts")) / "lanner"
    if installed.is_file():
        return installed
    found = shutil.which("lanner")
    if found:
        return Path(found)
    raise LannerError(
        "the program lanner is not beside this package; install it with pip, or name it in LANNER_PROGRAM"
    )
