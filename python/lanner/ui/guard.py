"""What stands between the network and Gradio: a chat's requests are answered, and pages load nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, cast

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]

# Gradio's page has scripts and styles within; that they are Gradio's alone is the concern of chat_text.
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
# Routes of Gradio that take or fetch files, or change its program; the page has no use for them.
_CLOSED = re.compile(
    "/(upload|file|proxy|stream|process_recording|component_server|vibe|undo-vibe|run-history|custom_component|dev)"
)


class Guard:
    """ASGI middleware around Gradio's application.

    Args:
        app: the application.
        hosts: names by which this server may be called, where only this machine may call it: a page of another web
            site that makes its own name lead here is refused. None: by any name.

    >>> guard = Guard(None, hosts=["localhost"])
    >>> guard.allows(b"localhost:6006"), guard.allows(b"evil.example")
    (True, False)
    """

    def __init__(self, app: object, hosts: Iterable[str] | None = None) -> None:
        self._app = cast("_App", app)
        self._hosts = None if hosts is None else {host.strip("[]").lower() for host in hosts}

    def allows(self, host: bytes) -> bool:
        """Whether requests with this Host header are answered."""
        name = re.sub(r":\d*$", "", host.decode("latin-1").lower())
        return self._hosts is None or name.strip("[]") in self._hosts

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: _Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        headers = cast("Iterable[tuple[bytes, bytes]]", scope["headers"])
        host = next((value for name, value in headers if name == b"host"), b"")
        if not self.allows(host):
            await _refuse(send_with_headers, 403, b"This Host is not this machine.\n")
        elif _CLOSED.search(cast("str", scope["path"])):
            await _refuse(send_with_headers, 404, b"There is no such route.\n")
        else:
            await self._app(scope, receive, send_with_headers)


async def _refuse(send: _Send, status: int, text: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": text})
