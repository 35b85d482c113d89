"""What goes wrong, as exceptions.

Every failure that the native code reports is a `LannerError` whose message is one line that names cause and field.
"""

from __future__ import annotations


class LannerError(RuntimeError):
    """A failure with a message of one line; ``code`` is its kind, such as ``"resource_exhausted"``.

    >>> LannerError("the disk is full", "io").code
    'io'
    """

    def __init__(self, message: str, code: str = "internal") -> None:
        super().__init__(message)
        self.code = code


class InvalidArgumentError(LannerError, ValueError):
    """What was asked for makes no sense.

    >>> isinstance(InvalidArgumentError("n must be 1 to 128"), ValueError)
    True
    """

    def __init__(self, message: str, code: str = "invalid_argument") -> None:
        super().__init__(message, code)


class ModelNotFoundError(LannerError, FileNotFoundError):
    """A file, model, template or name that does not exist.

    >>> isinstance(ModelNotFoundError("no such model"), FileNotFoundError)
    True
    """

    def __init__(self, message: str, code: str = "not_found") -> None:
        super().__init__(message, code)

    def __str__(self) -> str:
        return str(self.args[0])


_KINDS: dict[str, type[LannerError]] = {
    "invalid_argument": InvalidArgumentError,
    "too_long": InvalidArgumentError,
    "not_found": ModelNotFoundError,
}


def error_of(code: str, message: str) -> LannerError:
    """The exception for a status of the native code.

    >>> error_of("too_long", "the prompt has 9 tokens, the context 8")
    InvalidArgumentError('the prompt has 9 tokens, the context 8')
    """
    return _KINDS.get(code, LannerError)(message, code)
