"""Requests on their way: submitted by a thread or an event loop, their chunks handed to whoever waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lanner import _core

_LOOK_SECONDS = 0.2  # how long Ctrl-C may wait where the waiting thread is not the one that gets the signal


@dataclass
class Running:
    """One request of one prompt."""

    index: int  # of the prompt, or its key
    request_id: int
    prompt_tokens: int
    generated: int = 0  # tokens in the pieces so far


class Batch:
    """Requests of one thread, which waits for them.

        with Batch(core) as batch:
            batch.submit(request, index=0, whole=True)
            for running, chunk in batch.chunks(): ...

    Leaving it, by an exception or Ctrl-C too, cancels what still runs.
    """

    def __init__(self, core: _core.Pipeline) -> None:
        self._core = core
        self._inbox = _core.Inbox()
        self._running: dict[int, Running] = {}

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        self._core.cancel_all(self._inbox)

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


class LoopInbox:
    """Requests of one event loop, which is told of their chunks by a descriptor: no thread stands between."""

    def __init__(self, core: _core.Pipeline, loop: asyncio.AbstractEventLoop, on_idle: Callable[[], object]) -> None:
        self._core = core
        self._loop = loop
        self._on_idle = on_idle  # called when the last request has ended
        self._inbox = _core.Inbox()
        self._next_key = 0
        self._queues: dict[int, asyncio.Queue[_core.Chunk]] = {}

    def submit(self, request: _core.GenerationRequest, whole: bool) -> tuple[Running, asyncio.Queue[_core.Chunk]]:
        """Starts a request; its chunks arrive in the queue."""
        key = self._next_key
        self._next_key += 1
        if not self._queues:
            self._loop.add_reader(self._inbox.fileno(), self._deliver)
        queue: asyncio.Queue[_core.Chunk] = asyncio.Queue()
        self._queues[key] = queue
        try:
            request_id, prompt_tokens = self._core.submit(request, self._inbox, key, whole)
        except BaseException:
            self._remove(key)
            raise
        return Running(key, request_id, prompt_tokens), queue

    def forget(self, running: Running) -> None:
        """Ends a request whose final chunk has not come; does nothing for another."""
        if running.index in self._queues:
            self._core.cancel(running.request_id)
            self._remove(running.index)

    def _remove(self, key: int) -> None:
        del self._queues[key]
        if not self._queues:
            self._loop.remove_reader(self._inbox.fileno())
            self._on_idle()

    def _deliver(self) -> None:
        for letter in self._inbox.take(0):
            queue = self._queues.get(letter.key)
            if queue is None:
                continue
            for chunk in letter.chunks:
                queue.put_nowait(chunk)
                if chunk.final:
                    self._remove(letter.key)
