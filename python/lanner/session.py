"""A conversation with a pipeline."""

from __future__ import annotations

from types import TracebackType
from typing import Any, cast

import numpy as np

from lanner.messages import Message, Prompt, Response


class Session:
    """What was said so far, for `lanner.Pipeline.chat`. Used by one thread at a time.

    Attributes:
        session_id: its number within the pipeline.
        prompt: what was said last.
        response: the last answer; its text is all of it.
        history: pairs of what was said and answered.

    >>> Session(0).history
    []
    """

    def __init__(self, session_id: int) -> None:
        self.session_id = session_id
        self.prompt: str | None = None
        self.response: Response | None = None
        self.history: list[tuple[str, str]] = []
        self.aborted = False

    def messages(self, prompt: Prompt) -> list[Message]:
        """The conversation with a prompt behind it.

        >>> Session(0).messages("Hi")
        [{'role': 'user', 'content': 'Hi'}]
        """
        said: list[Message] = []
        for user, assistant in self.history:
            said += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
        return [*said, {"role": "user", "content": prompt}] if isinstance(prompt, str) else [*said, *prompt]

    def begin(self, prompt: str) -> None:
        """Something is said: what `lanner.Pipeline.chat` calls first.

        >>> session = Session(0)
        >>> session.begin("Hi")
        >>> session.prompt
        'Hi'
        """
        self.prompt, self.response, self.aborted = prompt, None, False

    def take(self, piece: Response) -> None:
        """A piece of the answer has come.

        >>> session = Session(0)
        >>> session.begin("Hi")
        >>> session.take(Response("Hel", 1, 9))
        >>> session.take(Response("lo", 2, 9, finish_reason="stop"))
        >>> session.response.text
        'Hello'
        """
        if self.response is None:
            self.response = Response("", 0, piece.input_token_len, self.session_id)
        answer = self.response
        answer.text += piece.text
        answer.token_ids += piece.token_ids
        if piece.logprobs is not None:
            answer.logprobs = [*(answer.logprobs or []), *piece.logprobs]
        if piece.logits is not None:
            answer.logits = piece.logits if answer.logits is None else np.concatenate([answer.logits, piece.logits])
        answer.generate_token_len = piece.generate_token_len
        answer.finish_reason = piece.finish_reason
        answer.cached_tokens = piece.cached_tokens
        answer.error_code, answer.error_message = piece.error_code, piece.error_message

    def end(self) -> None:
        """The answer is over; what came of it stays in the history, unless it failed.

        >>> session = Session(0)
        >>> session.begin("Hi")
        >>> session.take(Response("Hello", 2, 9, finish_reason="stop"))
        >>> session.end()
        >>> session.history
        [('Hi', 'Hello')]
        """
        if self.prompt is None or self.response is None or self.response.finish_reason == "error":
            return
        if self.response.finish_reason is None:
            self.response.finish_reason = "abort"
        self.history.append((self.prompt, self.response.text))

    def abort(self) -> None:
        """Ends the answer that is being streamed, after its next piece.

        >>> session = Session(0)
        >>> session.abort()
        >>> session.aborted
        True
        """
        self.aborted = True

    def close(self) -> None:
        """Forgets the conversation.

        >>> session = Session(0)
        >>> session.close()
        >>> session.history
        []
        """
        self.aborted = True
        self.history.clear()
        self.prompt = self.response = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __str__(self) -> str:
        turns = [f"USER: \n{user}\nASSISTANT: \n{answer}\n" for user, answer in self.history]
        return "\n".join(turns)

    def __repr__(self) -> str:
        return f"Session(session_id={self.session_id}, history={cast('Any', self.history)!r})"
