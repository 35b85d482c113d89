"""The verbs that are written in Python; every other one is the native program's.

python -m lanner serve gradio URL
python -m lanner deploy --target hf-space DIR
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import cast

from lanner._program import program_path
from lanner.errors import LannerError

# Words of the command line, and the module whose main(arguments) answers them.
_VERBS: dict[tuple[str, ...], str] = {
    ("serve", "gradio"): "lanner.ui.command",
    ("deploy",): "lanner.deploy.command",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb and returns its exit status; does not return for a verb of the native program."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for verb, module in _VERBS.items():
        if tuple(words[: len(verb)]) == verb:
            run = cast("Callable[[list[str]], int]", importlib.import_module(module).main)
            return run(words[len(verb) :])
    try:
        program = program_path()
    except LannerError as error:
        print(f"lanner: {error}", file=sys.stderr)
    else:
        os.execv(program, [str(program), *words])
    return 1


if __name__ == "__main__":
    sys.exit(main())
