"""Words of a command line, as the native program takes them."""

from __future__ import annotations

from collections.abc import Sequence


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before ``--``, with dashes for underscores in the names of flags; and the rest, ``--`` itself first.

    >>> split_arguments(["--server_port=1", "a_b", "--", "--c_d"])
    (['--server-port=1', 'a_b'], ['--', '--c_d'])
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [_with_dashes(word) for word in arguments[:end]], list(arguments[end:])


def _with_dashes(word: str) -> str:
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word
