"""Finding a model and loading it, with bars that show how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from lanner import _core
from lanner.messages import EngineConfig


def _share_bar(what: str) -> tqdm[Any]:
    """A progress bar over shares from 0 to 1 on stderr, where that is a terminal."""
    return tqdm(
        total=1.0,
        desc=what,
        disable=not sys.stderr.isatty(),
        leave=False,
        bar_format="{desc} {percentage:3.0f}% {bar} {remaining}",
    )


def _move(bar: tqdm[Any]) -> Callable[[float], object]:
    return lambda share: bar.update(share - bar.n)


def find_model(model: str, config: EngineConfig) -> str:
    """The path of a model, which may be downloaded."""
    with _share_bar("downloading") as bar:

        def note(line: str) -> None:
            bar.clear()
            print(f"lanner: {line}", file=sys.stderr)

        return _core.find_model(model, config.revision or "", config.download_dir or "", _move(bar), note)


def load_model(path: str, options: _core.PipelineOptions) -> _core.Pipeline:
    """The model at a path, loaded."""
    with _share_bar("loading") as bar:
        return _core.Pipeline(path, options, _move(bar))
