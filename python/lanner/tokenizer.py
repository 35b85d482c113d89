"""A model's tokenizer, without its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from lanner import _core

_BROKEN = "\N{REPLACEMENT CHARACTER}"  # what half a character decodes to


@dataclass
class DetokenizeState:
    """How far `Tokenizer.detokenize_incrementally` has come with one answer.

    >>> DetokenizeState().ids_offset
    0
    """

    ids_offset: int = 0
    detokenizer: Any = field(default=None, repr=False)


@dataclass
class Encoding:
    """What calling a `Tokenizer` gives.

    >>> Encoding([1, 2]).input_ids
    [1, 2]
    """

    input_ids: list[int] | list[list[int]]


class Tokenizer:
    """Text to token ids and back: that of a model folder, a GGUF file, or a model on a hub.

    Threads: any.

    Raises:
        ModelNotFoundError: there is no such model.

    >>> tokenizer = Tokenizer(MODEL)
    >>> tokenizer.decode(tokenizer.encode("Hello, 世界"))
    'Hello, 世界'
    """

    def __init__(self, model_path: str, trust_remote_code: bool = False) -> None:
        path = _core.find_model(model_path, "", "", lambda _: None, lambda _: None)
        self._core = _core.Tokenizer(path)

    @property
    def vocab_size(self) -> int:
        """The highest token id + 1.

        >>> Tokenizer(MODEL).vocab_size > 1000
        True
        """
        return self._core.vocab_size

    @property
    def bos_token_id(self) -> int | None:
        """The token that begins a text; None where the model has none.

        >>> tokenizer = Tokenizer(MODEL)
        >>> tokenizer.bos_token_id is None or tokenizer.bos_token_id < tokenizer.vocab_size
        True
        """
        return self._core.bos_token_id

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text; None where the model has none.

        >>> tokenizer = Tokenizer(MODEL)
        >>> tokenizer.eos_token_id is None or tokenizer.eos_token_id < tokenizer.vocab_size
        True
        """
        return self._core.eos_token_id

    def get_vocab(self) -> dict[str, int]:
        """Pieces as the vocabulary spells them, and their ids.

        >>> len(Tokenizer(MODEL).get_vocab()) > 1000
        True
        """
        pieces = ((self._core.piece(i), i) for i in range(self.vocab_size))
        return {piece: i for piece, i in pieces if piece is not None}

    def encode(self, s: str, add_bos: bool = True, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text.

        Args:
            add_bos: false leaves out the token that begins texts, where the tokenizer puts one there.
            add_special_tokens: put the special tokens around it that the tokenizer's file asks for.

        >>> Tokenizer(MODEL).encode("")
        []
        """
        ids = self._core.encode(s, add_special_tokens)
        if not add_bos and ids and ids[0] == self.bos_token_id:
            return ids[1:]
        return ids

    def decode(self, ids: Sequence[int], offset: int | None = None, skip_special_tokens: bool = True) -> str:
        """The text of token ids, from ``offset`` on.

        >>> tokenizer = Tokenizer(MODEL)
        >>> tokenizer.decode(tokenizer.encode("Hello world"), offset=1)
        ' world'
        """
        return self._core.decode(list(ids[offset or 0 :]), skip_special_tokens)

    def detokenize_incrementally(
        self, all_input_ids: Sequence[int], state: DetokenizeState, skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
    ) -> tuple[str, DetokenizeState]:  # fmt: skip
        """What is new in the text of ids that grow: never half a character, which is held back until it is whole.

        >>> tokenizer, state, text = Tokenizer(MODEL), DetokenizeState(), ""
        >>> ids = tokenizer.encode("naïve 世界")
        >>> for end in range(1, len(ids) + 1):
        ...     new, state = tokenizer.detokenize_incrementally(ids[:end], state)
        ...     text += new
        >>> text
        'naïve 世界'
        """
        if state.detokenizer is None:
            state.detokenizer = _core.Detokenizer(self._core, skip_special_tokens)
        new = [state.detokenizer.push(token) for token in all_input_ids[state.ids_offset :]]
        state.ids_offset = len(all_input_ids)
        return "".join(new), state

    @overload
    def __call__(self, s: str) -> Encoding: ...
    @overload
    def __call__(self, s: Sequence[str]) -> Encoding: ...
    def __call__(self, s: str | Sequence[str]) -> Encoding:
        """An object with ``input_ids``: of one text, or a list of several."""
        if isinstance(s, str):
            return Encoding(self.encode(s))
        return Encoding([self.encode(one) for one in s])

    def indexes_containing_token(self, token: str) -> list[int]:
        """Ids of the tokens whose text has another text in it.

        >>> tokenizer = Tokenizer(MODEL)
        >>> tokenizer.encode("Hello")[0] in tokenizer.indexes_containing_token("Hello")
        True
        """
        if not token:
            return []
        return [i for i in range(self.vocab_size) if token in self._core.decode([i], False).replace(_BROKEN, "")]
