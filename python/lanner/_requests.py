"""Prompts and generation configurations to native requests, and native chunks to responses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from lanner import _core
from lanner._running import Running
from lanner.errors import InvalidArgumentError, LannerError
from lanner.messages import FinishReason, GenerationConfig, Prompt, Prompts, Response

_BANNED = -1000.0  # added to a logit
_NO_LIMIT = 2**31 - 1


class BrokenTextError(InvalidArgumentError):
    """A prompt's text is no Unicode."""


def _whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BrokenTextError(f"the prompt has half a character: {text[error.start]!a}") from None
    return text


def is_single(prompts: object) -> bool:
    """Whether it is one prompt, not a list of them: a text, or a conversation (a list of dicts)."""
    if isinstance(prompts, str):
        return True
    if isinstance(prompts, Mapping):
        raise InvalidArgumentError("a prompt is a text or a list of messages, not a dict")
    if isinstance(prompts, tuple):
        raise LannerError("prompts with pictures are not available in this version", "unsupported")
    if not isinstance(prompts, Sequence) or not prompts:
        return False
    return isinstance(cast("Sequence[object]", prompts)[0], Mapping)


def listed(prompts: Prompt | Prompts) -> list[Prompt]:
    """The prompts as a list, of one too."""
    return [cast("Prompt", prompts)] if is_single(prompts) else list(cast("list[Prompt]", prompts))


def _text_of(content: object) -> object:
    """Parts of text joined by line ends, since many templates know texts alone; anything else as it is."""
    if not isinstance(content, list):
        return content
    parts = cast("list[object]", content)
    texts: list[str] = []
    for part in parts:
        if not isinstance(part, Mapping):
            return parts
        fields = cast("Mapping[str, object]", part)
        text = fields.get("text")
        if fields.get("type") != "text" or not isinstance(text, str):
            return parts
        texts.append(text)
    return "\n".join(texts)


def _message(message: Mapping[str, Any]) -> _core.Message:
    role, content = message.get("role"), _text_of(message.get("content"))
    if not isinstance(role, str):
        raise InvalidArgumentError('a message needs a "role"')
    more = {name: value for name, value in message.items() if name not in ("role", "content")}
    if not isinstance(content, str):
        more["content"] = content
    try:
        text = json.dumps(more, ensure_ascii=False) if more else ""
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"a message cannot be written as JSON: {error}") from None
    return _core.Message(_whole(role), _whole(content) if isinstance(content, str) else "", _whole(text))


def native_request(prompt: Prompt, config: _core.GenerationConfig, preprocess: bool) -> _core.GenerationRequest:
    """A request of one prompt: with the chat template around it, or as it is where ``preprocess`` is false."""
    request = _core.GenerationRequest()
    request.config = config
    if isinstance(prompt, str):
        if preprocess:
            request.messages = [_core.Message("user", _whole(prompt))]
        else:
            request.prompt = _whole(prompt)
        return request
    if not is_single(prompt):
        raise InvalidArgumentError("a prompt is a text or a list of messages")
    if not preprocess:
        raise InvalidArgumentError("without do_preprocess a prompt is a text, not a conversation")
    request.messages = [_message(message) for message in prompt]
    return request


def native_config(config: GenerationConfig | None) -> _core.GenerationConfig:
    """The native configuration; None leaves sampling to the model's generation_config.json, else to the defaults."""
    made = _core.GenerationConfig()
    if config is None:
        return made
    if config.n != 1:
        raise InvalidArgumentError("n must be 1: a list may hold a prompt several times")
    made.max_new_tokens = _NO_LIMIT if config.max_new_tokens is None else config.max_new_tokens
    made.min_new_tokens = config.min_new_tokens or 0
    made.do_sample = bool(config.do_sample)
    if config.do_sample:
        made.temperature = config.temperature
        made.top_p = config.top_p
        made.top_k = config.top_k
        made.min_p = config.min_p
    made.repetition_penalty = config.repetition_penalty
    made.seed = config.random_seed
    made.ignore_eos = config.ignore_eos
    made.skip_special_tokens = config.skip_special_tokens
    made.include_stop_str_in_output = config.include_stop_str_in_output
    made.logprobs = -1 if config.logprobs is None else config.logprobs
    made.logit_bias = [(token, _BANNED) for token in config.bad_token_ids or []]
    made.stop = list(config.stop_words or [])
    made.stop_ids = list(config.stop_token_ids or [])
    made.bad_words = list(config.bad_words or [])
    return made


def grammar_of(response_format: Mapping[str, Any]) -> tuple[str, str] | None:
    """Kind and text of the grammar that a response format asks for; None for plain text."""
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return "json_schema", '{"type": "object"}'
    if kind == "json_schema":
        wrapped = response_format.get("json_schema")
        schema = cast("Mapping[str, Any]", wrapped).get("schema", wrapped) if isinstance(wrapped, Mapping) else None
        if schema is None:
            raise InvalidArgumentError("response_format needs json_schema with a schema")
        return "json_schema", json.dumps(schema)
    if kind == "regex_schema" and isinstance(response_format.get("regex_schema"), str):
        return "regex", response_format["regex_schema"]
    raise InvalidArgumentError("response_format.type must be text, json_object, json_schema or regex_schema")


def response_of(chunk: _core.Chunk, running: Running, index: int, session_id: int) -> Response:
    """A response of one chunk of a request, whose tokens it counts."""
    error = chunk.error
    running.generated += len(chunk.token_ids)
    return Response(
        text=chunk.text,
        generate_token_len=chunk.generated_tokens if chunk.final else running.generated,
        input_token_len=running.prompt_tokens,
        session_id=session_id,
        finish_reason=cast("FinishReason", chunk.reasons[0]) if chunk.final else None,
        token_ids=chunk.token_ids,
        logprobs=[dict(pairs) for pairs in chunk.logprobs] or None,
        index=index,
        cached_tokens=chunk.cached_tokens,
        error_code=error[0] if error else None,
        error_message=error[1] if error else None,
    )
