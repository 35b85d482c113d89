"""What one visitor of the page and the model have said to each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from lanner.errors import LannerError
from lanner.ui.chat_client import ChatClient, Settings

# How often an answer that comes is shown anew, and how much longer than showing it takes.
_SHOW_SECONDS = 0.05
_PAUSE_FACTOR = 4


@dataclass
class Turn:
    """A question and what came of it; ``note`` says how it ended, where it did not end well."""

    question: str
    answer: str = ""
    thoughts: str = ""
    note: str = ""


@dataclass
class Conversation:
    """The turns of a conversation, the last of which may be under way.

    All of it belongs to one event loop; nothing here may be called from elsewhere.

    >>> Conversation([Turn("Hi", "Hello"), Turn("Go on", note="Cancelled.")]).messages("Well?")
    [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}, {'role': 'user', 'content': 'Well?'}]
    """

    turns: list[Turn] = field(default_factory=list[Turn])
    _work: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether an answer is under way."""
        return self._work is not None and not self._work.done()

    def messages(self, question: str) -> list[dict[str, str]]:
        """All that was said, and a new question. A question that got no answer is left out, with what made it fail."""
        said = [
            message
            for turn in self.turns
            if turn.answer
            for message in ({"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer})
        ]
        return [*said, {"role": "user", "content": question}]

    async def ask(
        self, client: ChatClient, model: str, question: str, settings: Settings
    ) -> AsyncGenerator[None, None]:
        """Asks, and yields whenever there is something new to show; closing it ends the request.

        What goes wrong becomes the turn's note. Does nothing while another answer is under way.
        """
        if self.busy:
            return
        messages = self.messages(question)
        turn = Turn(question)
        self.turns.append(turn)
        work = asyncio.ensure_future(_fill(turn, client, model, messages, settings))
        self._work = work
        shown, pause = -1, _SHOW_SECONDS
        try:
            while not work.done():
                size = len(turn.answer) + len(turn.thoughts)
                if size != shown:
                    shown, begin = size, time.monotonic()
                    yield
                    # A long conversation takes long to show, and others want to see theirs.
                    pause = max(_SHOW_SECONDS, _PAUSE_FACTOR * (time.monotonic() - begin))
                await asyncio.wait({work}, timeout=pause)
        finally:
            work.cancel()
            await asyncio.wait({work})
        yield

    def cancel(self) -> None:
        """Ends the answer that is under way; what has come of it stays."""
        if self.busy and self._work is not None:
            self.turns[-1].note = "Cancelled."
            self._work.cancel()

    def reset(self) -> None:
        """Ends the answer that is under way and forgets everything."""
        self.cancel()
        self.turns = []


async def _fill(turn: Turn, client: ChatClient, model: str, messages: list[dict[str, str]], settings: Settings) -> None:
    """Writes the answer into ``turn`` as it comes."""
    try:
        async for piece in client.answer(model, messages, settings):
            turn.answer += piece.text
            turn.thoughts += piece.thoughts
            if piece.finish_reason == "length":
                turn.note = "Stopped at the maximum of new tokens or at the end of the context."
            elif piece.finish_reason in ("abort", "error"):
                turn.note = "The server ended this answer."
    except LannerError as error:
        turn.note = f"Error: {error}"
