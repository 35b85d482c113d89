"""Whether a folder works: its page is started here and asked a question."""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import lanner
from lanner._child_process import ChildProcess
from lanner.errors import LannerError

_QUESTION = "What is the capital of France?"
_TOKENS = 32
_ANNOUNCEMENT = re.compile(r"server is gonna mount on: (http://\S+)")
_REQUEST_S = 60.0
_GRACE_S = 20.0


def check_folder(folder: Path, timeout_s: float) -> str:
    """Starts the folder's ``app.py`` with this Python on a free port, and returns what the model answers to a question.

    Raises:
        LannerError: it ended, did not answer within ``timeout_s`` seconds, or answered nothing.
    """
    app = folder.resolve() / "app.py"
    root = str(Path(lanner.__path__[0]).parent)  # this package, also where it is not installed
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, str(app), "--server-name", "127.0.0.1", "--server-port", "0"]
    child = ChildProcess(command, _ANNOUNCEMENT, environment={**os.environ, "PYTHONPATH": path})
    try:
        url = child.wait_for_answer(lambda told: told[1], "", timeout_s, program="app.py", what="the page")
        return _ask(url, _QUESTION)
    finally:
        child.end(_GRACE_S)


def _ask(url: str, question: str) -> str:
    """Does what the page does when somebody sends a question, and returns the answer that it would show.

    This is the protocol of Gradio's own page: join its queue with the values of all inputs, and read events.
    """
    try:
        with _open(f"{url}/config") as reply:
            config = json.load(reply)
        prefix = url + config.get("api_prefix", "")
        session = secrets.token_hex(8)
        with _open(f"{prefix}/queue/join", _submission(config, question, session)) as reply:
            reply.read()
        with _open(f"{prefix}/queue/data?session_hash={session}") as reply:
            answer = _answer_among(reply)
    except urllib.error.HTTPError as error:
        raise LannerError(f"{error.url}: HTTP {error.code} {error.reason}", "unavailable") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise LannerError(f"{url}: the page cannot be asked: {error or type(error).__name__}", "unavailable") from error
    if not answer.strip():
        raise LannerError(f"{url}: the answer is empty", "unavailable")
    if re.fullmatch(r"\*[^*]+\*", answer.strip()):  # so it says what went wrong
        raise LannerError(f"{url}: instead of an answer the page says: {answer.strip(' *')}", "unavailable")
    return answer


def _submission(config: dict[str, Any], question: str, session: str) -> dict[str, Any]:
    """What sending a question is: inputs as they stand, but for a short answer, with as little chance as can be."""
    components = {component["id"]: component for component in config["components"]}
    send = next(event for event in config["dependencies"] if any(how == "submit" for _, how in event["targets"]))
    box = next(component for component, how in send["targets"] if how == "submit")

    def value(component: int) -> Any:
        if component == box:
            return question
        props = components[component]["props"]
        label = str(props.get("label"))
        if "tokens" in label:
            return _TOKENS
        return props.get("minimum" if label == "Temperature" else "value")

    return {
        "data": [value(component) for component in send["inputs"]],
        "fn_index": send["id"],
        "trigger_id": box,
        "session_hash": session,
        "event_data": None,
    }


def _answer_among(lines: Iterator[bytes]) -> str:
    """The assistant's text in the last event, which has the whole conversation."""
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        event = json.loads(line[len(b"data:") :])
        if event["msg"] != "process_completed":
            continue
        if not event["success"]:
            raise ValueError(event["output"].get("error") or "sending a question failed")
        return "".join(_assistant_texts(event["output"]["data"]))
    raise ValueError("its events broke off")


def _assistant_texts(outputs: list[Any]) -> Iterator[str]:
    for output in outputs:
        for message in cast("list[Any]", output) if isinstance(output, list) else []:
            if message["role"] == "assistant":
                content = message["content"]
                yield content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _open(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=_REQUEST_S)
