"""Requests on their way: submitted by a thread or an event loop, their chunks handed to whoever waits."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from lanner import _core
from lanner.errors import LannerError

_LOOK_SECONDS = 0.2  # how long Ctrl-C may wait where the waiting thread is not the one that gets the signal


@dataclass
class Running:
    """One request of one prompt."""

    index: int  # of the prompt
    request_id: int
    prompt_tokens: int
    generated: int = 0  # tokens in the pieces so far


class Batch:
    """Requests of one thread, which waits for them.

        with running_batch(core) as batch:
            batch.submit(request, index=0, whole=True)
            for running, chunk in batch.chunks(): ...

    Leaving it, by an exception or Ctrl-C too, cancels what still runs.
    """

    def __init__(self, core: _core.Pipeline) -> None:
        self._core = core
        self._inbox = _core.Inbox()
        self._running: dict[int, Running] = {}

    def submit(self, request: _core.GenerationRequest, index: int, whole: bool) -> None:
        """Starts a request; ``whole``: all chunks of it are one.

        Raises:
            LannerError: the request is refused.
        """
        request_id, prompt_tokens = self._core.submit(request, self._inbox, index, whole)
        self._running[index] = Running(index, request_id, prompt_tokens)

    def chunks(self) -> Iterator[tuple[Running, _core.Chunk]]:
        """What arrives, until every request has had its final chunk."""
        while self._running:
            for letter in self._inbox.take(_LOOK_SECONDS):
                running = self._running[letter.key]
                for chunk in letter.chunks:
                    if chunk.final:
                        del self._running[letter.key]
                    yield running, chunk

    def cancel(self) -> None:
        """Ends what still runs."""
        for running in self._running.values():
            with suppress(LannerError):  # closed meanwhile, which ended them
                self._core.cancel(running.request_id)
        self._running.clear()


@contextmanager
def running_batch(core: _core.Pipeline) -> Generator[Batch, None, None]:
    """A `Batch` that is cancelled at the end."""
    batch = Batch(core)
    try:
        yield batch
    finally:
        batch.cancel()


class LoopInbox:
    """Requests of one event loop, which is told of their chunks by a descriptor: no thread stands between."""

    def __init__(self, core: _core.Pipeline, loop: asyncio.AbstractEventLoop) -> None:
        self._core = core
        self._loop = loop
        self._inbox = _core.Inbox()
        self._next_key = 0
        self._queues: dict[int, asyncio.Queue[_core.Chunk]] = {}

    def submit(self, request: _core.GenerationRequest, whole: bool) -> tuple[int, Running, asyncio.Queue[_core.Chunk]]:
        """Starts a request; its key, and the queue in which its chunks arrive."""
        key = self._next_key
        self._next_key += 1
        request_id, prompt_tokens = self._core.submit(request, self._inbox, key, whole)
        if not self._queues:
            self._loop.add_reader(self._inbox.fileno(), self._deliver)
        queue: asyncio.Queue[_core.Chunk] = asyncio.Queue()
        self._queues[key] = queue
        return key, Running(key, request_id, prompt_tokens), queue

    def forget(self, key: int, running: Running) -> None:
        """Ends a request whose final chunk has not come; does nothing for another."""
        if key in self._queues:
            with suppress(LannerError):
                self._core.cancel(running.request_id)
            self._remove(key)

    def _remove(self, key: int) -> None:
        del self._queues[key]
        if not self._queues:
            self._loop.remove_reader(self._inbox.fileno())

    def _deliver(self) -> None:
        for letter in self._inbox.take(0):
            queue = self._queues.get(letter.key)
            if queue is None:
                continue
            for chunk in letter.chunks:
                queue.put_nowait(chunk)
                if chunk.final:
                    self._remove(letter.key)
