"""The tokenizer."""

from lanner.tokenizer import DetokenizeState, Tokenizer

__all__ = ["DetokenizeState", "Tokenizer"]
