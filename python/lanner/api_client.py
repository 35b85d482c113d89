"""A client of ``lanner serve api_server``, and of other servers that speak OpenAI's protocol.

Its methods have the names, arguments and answers of LMDeploy's ``APIClient``.

>>> messages = [{"role": "user", "content": "What is the capital of France?"}]
>>> for answer in api.chat_completions_v1(api.available_models[0], messages, temperature=0):
...     print(answer["choices"][0]["message"]["content"])
The capital of France is Paris.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from lanner.errors import InvalidArgumentError, LannerError, error_of

DEFAULT_TIMEOUT_S = 600.0
_MAX_LINE_BYTES = 64 << 20  # of a stream; an answer that is not streamed may have as much
_MAX_ERROR_BYTES = 1 << 20
_MAX_SHOWN = 200  # characters of an answer that is quoted in an error

# What an HTTP status is as LannerError.code.
_CODES = {
    401: "unauthorized", 403: "unauthorized", 404: "not_found", 409: "conflict", 429: "resource_exhausted",
    501: "unsupported", 503: "unavailable",
}  # fmt: skip

_INTERACTIVE = "/v1/chat/interactive"
_BROKEN_STREAM = "the stream broke off before its end"

Json = dict[str, Any]


class APIClient:
    """Talks to one server. Requests are independent: several threads may use one client.

    >>> APIClient("localhost:23333").api_server_url
    'http://localhost:23333'

    Args:
        api_server_url: ``http://…``, ``https://…`` or ``HOST:PORT``.
        api_key: the key that opens the server, None where it asks for none.
        timeout_s: seconds without a byte from the server after which a request fails.
        ssl_context: what to trust behind ``https://``; by default what the system trusts.

    Every method raises `LannerError` where the server cannot be reached, breaks off or refuses; the message is the
    server's own, ``code`` its kind. What is asked of a generator is sent when its first item is taken; closing one
    cancels the request.
    """

    def __init__(
        self,
        api_server_url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if api_key is not None and not all("!" <= character <= "~" for character in api_key):
            raise InvalidArgumentError("api_key: a key has only visible ASCII characters and no blank")
        self.api_server_url = _whole_url(api_server_url)
        self.api_key = api_key
        self.timeout_s = timeout_s
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if ssl_context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=ssl_context))
        if _is_this_machine(self.api_server_url):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    @property
    def available_models(self) -> list[str]:
        """The names of the models that the server serves.

        >>> len(api.available_models)
        1
        """
        answer = self._ask("/v1/models", None)
        try:
            return [str(model["id"]) for model in answer["data"]]
        except (KeyError, TypeError) as error:
            raise LannerError(f"{self.api_server_url}: /v1/models is no list of models", "corrupt") from error

    def encode(
        self, input: str | Sequence[str], do_preprocess: bool = False, add_bos: bool = True
    ) -> tuple[list[int] | list[list[int]], int | list[int]]:
        """Token ids and their number; for a list of texts a list of each.

        Args:
            input: the text or texts.
            do_preprocess: put the chat template around the text.
            add_bos: with the tokens that the tokenizer puts around a text.

        >>> ids, length = api.encode("Hello")
        >>> len(ids) == length
        True
        """
        texts = input if isinstance(input, str) else list(input)
        answer = self._ask("/v1/encode", {"input": texts, "do_preprocess": do_preprocess, "add_bos": add_bos})
        try:
            return answer["input_ids"], answer["length"]
        except KeyError as error:
            raise LannerError(f"{self.api_server_url}: /v1/encode answered without {error}", "corrupt") from error

    def chat_completions_v1(
        self,
        model: str,
        messages: str | list[Json],
        temperature: float | None = 0.7,
        top_p: float | None = 1.0,
        logprobs: bool | None = False,
        top_logprobs: int | None = None,
        n: int | None = 1,
        max_tokens: int | None = None,
        stop: str | list[str] | None = None,
        stream: bool = False,
        presence_penalty: float | None = 0.0,
        frequency_penalty: float | None = 0.0,
        user: str | None = None,
        repetition_penalty: float | None = 1.0,
        session_id: int = -1,
        ignore_eos: bool = False,
        skip_special_tokens: bool = True,
        **more: Any,
    ) -> Generator[Json, None, None]:
        """Answers a conversation: ``POST /v1/chat/completions``.

        Yields one object with ``choices``; with ``stream`` one for each piece. ``more`` are further fields of the
        request, such as ``top_k``, ``seed``, ``response_format`` or ``tools``; what is None is left to the server.

        >>> messages = [{"role": "user", "content": "What is the capital of France?"}]
        >>> pieces = api.chat_completions_v1(api.available_models[0], messages, temperature=0, stream=True)
        >>> "".join(piece["choices"][0]["delta"].get("content") or "" for piece in pieces)
        'The capital of France is Paris.'
        """
        body = {
            "model": model, "messages": messages, "temperature": temperature, "top_p": top_p,
            "logprobs": logprobs or None, "top_logprobs": top_logprobs, "n": n, "max_tokens": max_tokens, "stop": stop,
            "stream": stream, "presence_penalty": presence_penalty, "frequency_penalty": frequency_penalty,
            "user": user, "repetition_penalty": repetition_penalty,
            **_less_usual(session_id, ignore_eos, skip_special_tokens), **more,
        }  # fmt: skip
        yield from self._objects("/v1/chat/completions", body, stream)

    def completions_v1(
        self,
        model: str,
        prompt: str | list[Any],
        suffix: str | None = None,
        temperature: float | None = 0.7,
        n: int | None = 1,
        max_tokens: int | None = 16,
        stream: bool = False,
        stop: str | list[str] | None = None,
        top_p: float | None = 1.0,
        top_k: int | None = 40,
        user: str | None = None,
        repetition_penalty: float | None = 1.0,
        session_id: int = -1,
        ignore_eos: bool = False,
        skip_special_tokens: bool = True,
        **more: Any,
    ) -> Generator[Json, None, None]:
        """Goes on with a text, without the chat template: ``POST /v1/completions``.

        Yields one object with ``choices``, of which each has a ``text``; with ``stream`` one for each piece. ``more``
        is as in `chat_completions_v1`.

        >>> name = api.available_models[0]
        >>> [answer["usage"]["completion_tokens"] for answer in api.completions_v1(name, "1, 2, 3,", max_tokens=4)]
        [4]
        """
        body = {
            "model": model, "prompt": prompt, "suffix": suffix or None, "temperature": temperature, "n": n,
            "max_tokens": max_tokens, "stream": stream, "stop": stop, "top_p": top_p, "top_k": top_k, "user": user,
            "repetition_penalty": repetition_penalty,
            **_less_usual(session_id, ignore_eos, skip_special_tokens), **more,
        }  # fmt: skip
        yield from self._objects("/v1/completions", body, stream)

    def chat_interactive_v1(
        self,
        prompt: str | list[Json],
        image_url: str | list[str] | None = None,
        session_id: int = -1,
        interactive_mode: bool = False,
        stream: bool = False,
        stop: str | list[str] | None = None,
        request_output_len: int | None = None,
        top_p: float | None = 0.8,
        top_k: int | None = 40,
        temperature: float | None = 0.8,
        repetition_penalty: float | None = 1.0,
        ignore_eos: bool = False,
        skip_special_tokens: bool = True,
        **more: Any,
    ) -> Generator[Json, None, None]:
        """A turn of a conversation that the server keeps: ``POST /v1/chat/interactive``.

        Yields objects with ``text`` (with ``stream`` what was added), ``tokens`` so far, ``input_tokens``,
        ``history_tokens`` and ``finish_reason``, which is None until the last one.

        Args:
            prompt: the new message, or several.
            session_id: which conversation; -1 draws a new one.
            interactive_mode: keep the conversation for the next message; otherwise it ends with this answer.
            request_output_len: most tokens of the answer; 512 where it is None.

        >>> for answer in api.chat_interactive_v1("Hi", session_id=1, interactive_mode=True, request_output_len=4):
        ...     answer["tokens"], answer["history_tokens"]
        (4, 0)
        """
        body = {
            "prompt": prompt, "image_url": image_url or None, "interactive_mode": interactive_mode, "stream": stream,
            "stop": stop, "request_output_len": request_output_len, "top_p": top_p, "top_k": top_k,
            "temperature": temperature, "repetition_penalty": repetition_penalty,
            **_less_usual(session_id, ignore_eos, skip_special_tokens), **more,
        }  # fmt: skip
        yield from self._objects(_INTERACTIVE, body, stream)

    def chat(
        self,
        prompt: str,
        session_id: int,
        request_output_len: int = 512,
        stream: bool = False,
        top_k: int = 40,
        top_p: float = 0.8,
        temperature: float = 0.8,
        repetition_penalty: float = 1.0,
        ignore_eos: bool = False,
    ) -> Generator[tuple[str, int, str | None], None, None]:
        """`chat_interactive_v1` in a conversation that goes on; yields (text, tokens so far, why it ended or None).

        A reason ``"length"`` with no tokens says that the conversation fills the context: end it with `end_session`.

        >>> "".join(text for text, _, _ in api.chat("Hi", session_id=2, stream=True)) != ""
        True
        """
        if session_id < 0:
            raise InvalidArgumentError(f"session_id: {session_id} names no session; it must be 0 or more")
        for answer in self.chat_interactive_v1(
            prompt,
            session_id=session_id,
            interactive_mode=True,
            stream=stream,
            request_output_len=request_output_len,
            top_p=top_p,
            top_k=top_k,
            temperature=temperature,
            repetition_penalty=repetition_penalty,
            ignore_eos=ignore_eos,
        ):
            try:
                yield answer["text"], answer["tokens"], answer["finish_reason"]
            except KeyError as error:
                raise LannerError(f"{self.api_server_url}: an answer without {error}", "corrupt") from error

    def end_session(self, session_id: int) -> None:
        """Ends a conversation of `chat`, and an answer of it that is under way.

        >>> api.end_session(2)
        """
        for _ in self.chat_interactive_v1("", session_id=session_id, request_output_len=0, interactive_mode=False):
            pass

    def _ask(self, path: str, body: Json | None) -> Json:
        with self._reply(path, body) as reply:
            return _object_of(_read_all(reply), self.api_server_url + path)

    def _objects(self, path: str, body: Json, stream: bool) -> Iterator[Json]:
        """The one object of an answer, or those of a stream."""
        if not stream:
            yield self._ask(path, body)
            return
        bare = path == _INTERACTIVE  # an object a line, and no mark at the end but a reason
        ended = not bare
        with self._reply(path, body) as reply:
            for text in _lines(reply) if bare else _event_data(_lines(reply)):
                if not text.strip():
                    continue
                item = _object_of(text, self.api_server_url + path)
                if item.get("error"):
                    raise _refusal(item, 500)
                ended = ended or item.get("finish_reason") is not None
                yield item
        if not ended:
            raise LannerError(_BROKEN_STREAM, "unavailable")

    @contextmanager
    def _reply(self, path: str, body: Json | None) -> Generator[http.client.HTTPResponse, None, None]:
        """The body of a reply with a status below 300."""
        headers = {"Accept": "application/json, text/event-stream", "User-Agent": "lanner"}
        data = None
        if body is not None:
            data = _json_of({name: value for name, value in body.items() if value is not None})
            headers["Content-Type"] = "application/json"
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        url = self.api_server_url + path
        request = urllib.request.Request(url, data, headers)
        try:
            with self._opener.open(request, timeout=self.timeout_s) as reply:
                yield reply
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal_of_reply(error, url) from None
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(cause, TimeoutError):
                raise LannerError(f"{url}: no answer within {self.timeout_s:g} seconds", "timeout") from error
            raise LannerError(f"{url}: {_words_of(cause)}", "unavailable") from error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A key is for the server that was named, and for no other one."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _less_usual(session_id: int, ignore_eos: bool, skip_special_tokens: bool) -> Json:
    """Fields that servers of other makes do not know: only where they say something."""
    return {
        "session_id": None if session_id < 0 else session_id,
        "ignore_eos": True if ignore_eos else None,
        "skip_special_tokens": None if skip_special_tokens else False,
    }


def _whole_url(url: str) -> str:
    """With a scheme, without a slash at the end, and with loopback for "all addresses", which is no server's name.

    >>> _whole_url("0.0.0.0:23333/")
    'http://127.0.0.1:23333'
    """
    whole = (url if "://" in url else f"http://{url}").rstrip("/")
    try:
        parts = urllib.parse.urlsplit(whole)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:  # of a port that is none, too
        raise InvalidArgumentError(f"{url}: is no URL such as http://localhost:23333") from None
    wildcard = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(parts.hostname)
    if wildcard is None:
        return whole
    port = "" if parts.port is None else f":{parts.port}"
    return urllib.parse.urlunsplit(parts._replace(netloc=wildcard + port))


def _is_this_machine(url: str) -> bool:
    """Whether no proxy can be meant."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def _read_all(reply: http.client.HTTPResponse) -> bytes:
    length = reply.length
    # read() notices where a body is shorter than it was said to be, and read(most) does not.
    data = reply.read() if length is not None and length <= _MAX_LINE_BYTES else reply.read(_MAX_LINE_BYTES + 1)
    if len(data) > _MAX_LINE_BYTES:
        raise LannerError(f"an answer has more than {_MAX_LINE_BYTES >> 20} MB", "corrupt")
    return data


def _lines(reply: http.client.HTTPResponse) -> Iterator[bytes]:
    """Lines as they come, without their ends."""
    while line := reply.readline(_MAX_LINE_BYTES + 1):
        if len(line) > _MAX_LINE_BYTES:
            raise LannerError(f"an event has more than {_MAX_LINE_BYTES >> 20} MB", "corrupt")
        yield line.rstrip(b"\r\n")


def _event_data(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The data of events up to ``[DONE]`` (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    data: list[bytes] = []
    for line in lines:
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                data.append(value.removeprefix(b" "))
            continue
        event, data = b"\n".join(data), []
        if event == b"[DONE]":
            return
        yield event
    raise LannerError(_BROKEN_STREAM, "unavailable")


def _object_of(text: bytes, url: str) -> Json:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        shown = text[:_MAX_SHOWN].decode("utf-8", "replace")
        raise LannerError(f"{url}: the answer is no JSON object: {shown!r}", "corrupt")
    return cast("Json", value)


def _refusal_of_reply(error: urllib.error.HTTPError, url: str) -> LannerError:
    try:
        body = json.loads(error.read(_MAX_ERROR_BYTES))
    except (ValueError, RecursionError, OSError, http.client.HTTPException):
        body = None
    if isinstance(body, dict):
        return _refusal(cast("Json", body), error.code)
    return error_of(_code_of(error.code), f"{url}: HTTP {error.code} {error.reason}")


def _refusal(body: Json, status: int) -> LannerError:
    """What a body says went wrong, in either of its forms: ``{"error": {"message"}}`` and ``{"message"}``."""
    inner = body.get("error")
    told = cast("Json", inner) if isinstance(inner, dict) else body
    message = told.get("message") or told.get("detail") or (inner if isinstance(inner, str) else None) or body
    code = "too_long" if told.get("code") == "context_length_exceeded" else _code_of(status)
    return error_of(code, " ".join(str(message).split()))


def _code_of(status: int) -> str:
    return _CODES.get(status, "invalid_argument" if status < 500 else "internal")


def _words_of(cause: object) -> str:
    if isinstance(cause, http.client.IncompleteRead):
        return "the answer broke off before its end"
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return " ".join(str(text).split())


def _json_of(body: Json) -> bytes:
    try:
        return json.dumps(body).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"the request cannot be written as JSON: {error}") from error
