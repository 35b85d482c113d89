"""Talks to a server of OpenAI's protocol: which model it has, and answers as they come."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httpx

from lanner.errors import LannerError

_CONNECT_SECONDS = 10.0
# A request may wait for its turn, and its prompt may be long.
_SILENCE_SECONDS = 600.0
_LARGEST_BODY_BYTES = 1 << 20
_LONGEST_MESSAGE = 300


@dataclass(frozen=True)
class Settings:
    """How an answer is made: at most ``max_tokens`` tokens, drawn with ``top_p`` and ``temperature``."""

    max_tokens: int = 512
    top_p: float = 0.8
    temperature: float = 0.7


@dataclass(frozen=True)
class Piece:
    """What has come of an answer: text, thoughts, and at the end why it ended (``"stop"``, ``"length"``, …)."""

    text: str = ""
    thoughts: str = ""
    finish_reason: str = ""


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an address, is this machine's own.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _inside(value: object, *path: str | int) -> object:
    """What lies at ``path`` in JSON from elsewhere, or None."""
    for step in path:
        if isinstance(step, str) and isinstance(value, dict):
            value = cast("dict[str, object]", value).get(step)
        elif isinstance(step, int) and isinstance(value, list) and step < len(cast("list[object]", value)):
            value = cast("list[object]", value)[step]
        else:
            return None
    return value


def _words(value: object, *path: str | int) -> str:
    """The string at ``path``, or an empty one."""
    found = _inside(value, *path)
    return found if isinstance(found, str) else ""


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_MESSAGE else line[:_LONGEST_MESSAGE] + "…"


def _json(text: bytes | str) -> object:
    """What the text says, or None where it is no JSON (or nested too deep)."""
    try:
        return cast("object", json.loads(text))
    except (ValueError, RecursionError):
        return None


def _refusal(status: int, body: bytes) -> LannerError:
    """The error for an answer with this status."""
    reply = _json(body)
    said = _words(reply, "error", "message") or _words(reply, "message") or "no reason given"
    if status == 401:
        return LannerError(f"the server wants another key: {_one_line(said)}", "invalid_argument")
    if status == 429:
        return LannerError(f"the server has too much to do, try again: {_one_line(said)}", "resource_exhausted")
    if _words(reply, "error", "code") == "context_length_exceeded":
        return LannerError(f"too long for the model, Reset begins anew: {_one_line(said)}", "too_long")
    return LannerError(f"the server says {status}: {_one_line(said)}", "unavailable")


def _failure(error: Exception, host: str) -> LannerError:
    """The error for a connection that failed."""
    if isinstance(error, httpx.ConnectTimeout):
        reason = f"no answer within {_CONNECT_SECONDS:.0f} s"
    elif isinstance(error, httpx.ReadTimeout):
        reason = f"silent for {_SILENCE_SECONDS:.0f} s"
    elif "All connection attempts failed" in str(error) or "Connection refused" in str(error):
        reason = "connection refused"
    elif isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
        reason = "it broke off"
    else:
        reason = _one_line(str(error)) or type(error).__name__
    return LannerError(f"the server at {host} cannot be reached: {reason}", "unavailable")


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """Lines that end with a line feed alone: a JSON string may hold what Unicode also calls a line's end."""
    held = b""
    async for block in response.aiter_bytes():
        *lines, held = (held + block).split(b"\n")
        for line in lines:
            yield line
        if len(held) > _LARGEST_BODY_BYTES:
            raise LannerError("the server sent an event that is too large", "unavailable")
    if held:
        yield held


async def _start_of_body(response: httpx.Response) -> bytes:
    body = b""
    async for block in response.aiter_bytes():
        body += block
        if len(body) > _LARGEST_BODY_BYTES:
            break
    return body


class ChatClient:
    """One server. Its methods may be called from several threads and tasks at once; each opens a connection of its own.

    Args:
        url: ``http://host:port``, with or without ``/v1``.
        api_key: the server's key, where it wants one.

    >>> ChatClient("http://localhost:23333/v1/").url
    'http://localhost:23333'
    """

    def __init__(self, url: str, api_key: str = "") -> None:
        self.url = re.sub(r"(/v1)?/*$", "", url)
        try:
            parts = urlsplit(self.url)
            valid = bool(parts.hostname) and (parts.port or 1) > 0 and self.url.isascii() and self.url.isprintable()
        except ValueError:
            valid = False
        if not valid or not (api_key.isascii() and api_key.isprintable()):
            what = "its key has letters that no key has" if valid else "this is no address of a server"
            raise LannerError(f"{_one_line(self.url)}: {what}", "invalid_argument")
        self._host = urlsplit(self.url).netloc.rpartition("@")[2]
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout = httpx.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS)
        # A proxy of the environment leads to other machines; it has nothing to do with this one.
        self._use_proxies = not is_loopback(urlsplit(self.url).hostname or "")
        self._certificates = httpx.create_ssl_context() if self.url.startswith("https:") else False

    def ready(self) -> bool:
        """Whether the server answers and takes requests."""
        try:
            return httpx.get(f"{self.url}/health/ready", headers=self._headers, timeout=2, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def model(self) -> str:
        """The id of the first model that the server lists.

        Raises:
            LannerError: it cannot be reached, refuses, or lists none.
        """
        try:
            reply = httpx.get(
                f"{self.url}/v1/models",
                headers=self._headers,
                timeout=_CONNECT_SECONDS,
                trust_env=self._use_proxies,
                verify=self._certificates,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _failure(error, self._host) from None
        if reply.status_code != 200:
            raise _refusal(reply.status_code, reply.content)
        name = _words(_json(reply.content), "data", 0, "id")
        if not name:
            raise LannerError(f"the server at {self._host} lists no model (/v1/models)", "unavailable")
        return name

    async def answer(self, model: str, messages: Sequence[dict[str, str]], settings: Settings) -> AsyncIterator[Piece]:
        """The answer to a conversation, piece by piece. Leaving off closes the connection, and the server stops.

        Args:
            model: one of the server's.
            messages: each with ``role`` and ``content``, the oldest first.
            settings: how the answer is made.

        Raises:
            LannerError: the server cannot be reached, refuses, or breaks off.
        """
        body = {
            "model": model,
            "messages": list(messages),
            "stream": True,
            "max_tokens": settings.max_tokens,
            "top_p": settings.top_p,
            "temperature": settings.temperature,
        }
        try:
            async with (
                httpx.AsyncClient(
                    headers=self._headers, timeout=self._timeout, trust_env=self._use_proxies, verify=self._certificates
                ) as client,
                client.stream("POST", f"{self.url}/v1/chat/completions", json=body) as response,
            ):
                if response.status_code != 200:
                    raise _refusal(response.status_code, await _start_of_body(response))
                async for line in _lines(response):
                    if line.strip() == b"data: [DONE]":
                        return
                    if line.startswith(b"data:"):
                        yield _piece(line[5:])
        except httpx.HTTPError as error:
            raise _failure(error, self._host) from None
        raise LannerError(f"the server at {self._host} broke off", "unavailable")


def _piece(event: bytes) -> Piece:
    """One event of a stream.

    Raises:
        LannerError: it tells of a failure, or is no JSON.
    """
    said = _json(event)
    if said is None:
        raise LannerError("the server sent an event that is no JSON", "unavailable")
    if _inside(said, "error") is not None:
        raise LannerError(f"the server failed: {_one_line(_words(said, 'error', 'message'))}", "internal")
    delta = _inside(said, "choices", 0, "delta")
    return Piece(
        _words(delta, "content"), _words(delta, "reasoning_content"), _words(said, "choices", 0, "finish_reason")
    )
