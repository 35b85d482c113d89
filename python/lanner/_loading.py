"""Finding a model and loading it, with bars that show how far it is."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from lanner import _core
from lanner.messages import EngineConfig


def share_bar(what: str) -> tqdm[Any]:
    """A progress bar over shares from 0 to 1 on stderr, where that is a terminal."""
    return tqdm(
        total=1.0,
        desc=what,
        disable=not sys.stderr.isatty(),
        leave=False,
        bar_format="{desc} {percentage:3.0f}% {bar} {remaining}",
    )


def find_model(model: str, config: EngineConfig) -> str:
    """The path of a model, which may be downloaded."""
    with share_bar("downloading") as bar:

        def to(share: float) -> None:
            bar.update(share - bar.n)

        def note(line: str) -> None:
            bar.clear()
            print(f"lanner: {line}", file=sys.stderr)

        return _core.find_model(model, config.revision or "", config.download_dir or "", to, note)
