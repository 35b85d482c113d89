"""Anthropic's Python client against the scripted server, whose tokens are bytes, and against the real model."""
import json

import anthropic
import pytest


def connect(server, key="none"):
    return anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def claude(probe):
    return connect(probe)


def say(claude, text="Hi", **more):
    messages = text if isinstance(text, list) else [{"role": "user", "content": text}]
    return claude.messages.create(**{"model": "test", "max_tokens": 64, "messages": messages, **more})


def prompt_of(claude, messages, **more):
    """What the chat template makes of a conversation; the scripted server's tokens are bytes, with one in front."""
    return claude.messages.count_tokens(model="test", messages=messages, **more).input_tokens


def test_it_answers(claude):
    message = say(claude)
    assert message.type == "message" and message.role == "assistant" and message.model == "test"
    assert message.id.startswith("msg_")
    assert [(block.type, block.text) for block in message.content] == [("text", "Hello world")]
    assert message.stop_reason == "end_turn" and message.stop_sequence is None
    assert message.usage.input_tokens == len("<user>Hi<assistant>") + 1
    assert message.usage.output_tokens == len("Hello world") + 1
    assert message.usage.cache_read_input_tokens == 0


def test_the_events_and_their_order(claude):
    events = list(say(claude, stream=True))
    kinds = [event.type for event in events]
    deltas = kinds.count("content_block_delta")
    assert deltas > 1
    assert kinds == ["message_start", "content_block_start", *["content_block_delta"] * deltas, "content_block_stop",
                     "message_delta", "message_stop"]
    assert events[0].message.content == [] and events[0].message.usage.input_tokens == 20
    assert all(event.index == 0 and event.delta.type == "text_delta" for event in events if event.type == "content_block_delta")
    assert events[-2].delta.stop_reason == "end_turn" and events[-2].usage.output_tokens == 12


def test_the_stream_helper(claude):
    with claude.messages.stream(model="test", max_tokens=64, messages=[{"role": "user", "content": "[say héllo]"}]) as stream:
        assert "".join(stream.text_stream) == "héllo"
        message = stream.get_final_message()
    assert message.content[0].text == "héllo" and message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 7


@pytest.mark.parametrize("stream", [False, True])
def test_the_longest_answer(claude, stream):
    with_limit = {"max_tokens": 5}
    if stream:
        with claude.messages.stream(model="test", messages=[{"role": "user", "content": "Hi"}], **with_limit) as answer:
            message = answer.get_final_message()
    else:
        message = say(claude, **with_limit)
    assert message.content[0].text == "Hello" and message.stop_reason == "max_tokens"


@pytest.mark.parametrize("stream", [False, True])
def test_stop_sequences(claude, stream):
    asked = {"model": "test", "max_tokens": 64, "messages": [{"role": "user", "content": "Hi"}], "stop_sequences": ["xyz", "o w"]}
    if stream:
        with claude.messages.stream(**asked) as answer:
            message = answer.get_final_message()
    else:
        message = claude.messages.create(**asked)
    assert message.content[0].text == "Hell"
    assert message.stop_reason == "stop_sequence" and message.stop_sequence == "o w"


def test_system_and_blocks(claude):
    hi = [{"role": "user", "content": "Hi"}]
    plain = prompt_of(claude, hi)
    assert plain == 20
    assert prompt_of(claude, hi, system="Be kind.") == plain + len("<system>Be kind.")
    blocks = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "Be brief."}]
    assert prompt_of(claude, hi, system=blocks) == plain + len("<system>Be kind.\nBe brief.")
    parts = [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}]
    assert prompt_of(claude, parts) == plain + 1


def test_several_turns(claude):
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
            {"role": "user", "content": "[say again]"}]
    assert say(claude, talk).content[0].text == "again"
    assert prompt_of(claude, talk) == len("<user>Hi<assistant>Hello<user>[say again]<assistant>") + 1


def test_counting_needs_no_longest_answer(claude):
    assert prompt_of(claude, [{"role": "user", "content": "x" * 100}]) == 118


BAD = [
    ({"max_tokens": 0}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, r"messages\[0\].role"),
    ({"messages": [{"role": "user", "content": 5}]}, r"messages\[0\].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "takes text alone"),
    ({"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]}]}, "takes text alone"),
    ({"tools": [{"name": "f", "input_schema": {"type": "object"}}]}, "tools"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"extra_body": {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}}, "context_management"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
    ({"extra_body": {"temperature": 3}}, "temperature"),
    ({"extra_body": {"no_such_field": 1}}, "no_such_field"),
    ({"stop_sequences": [""]}, "stop_sequences"),
]


@pytest.mark.parametrize("fields, message", BAD)
def test_what_is_refused(claude, fields, message):
    with pytest.raises(anthropic.BadRequestError, match=message) as caught:
        say(claude, **fields)
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["type"] == "invalid_request_error"


def test_an_unknown_model(claude):
    with pytest.raises(anthropic.NotFoundError, match="does not exist") as caught:
        say(claude, model="other")
    assert caught.value.body == {"type": "error", "error": {"type": "not_found_error",
                                                            "message": "The model 'other' does not exist."}}


def test_too_long(claude):
    with pytest.raises(anthropic.BadRequestError, match="context"):
        say(claude, "x" * 9000)


def test_no_thoughts_are_no_thoughts(claude):
    assert say(claude, thinking={"type": "disabled"}, tools=[], metadata={"user_id": "me"}).content[0].text == "Hello world"


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_of_the_engine(claude, stream):
    with pytest.raises(anthropic.APIStatusError) as caught:
        answer = say(claude, "[fail]", stream=stream)
        if stream:
            list(answer)
    assert caught.value.body["error"]["type"] == "api_error"


def test_the_models(probe, claude):
    status, _, body = probe.ask("/anthropic/v1/models")
    models = json.loads(body)
    assert status == 200 and [card["id"] for card in models["data"]] == ["test"] and models["has_more"] is False
    assert [model.id for model in claude.models.list()] == ["test"]


def test_a_key(start_probe):
    server = start_probe("--key", "secret")
    assert say(connect(server, "secret")).content[0].text == "Hello world"
    with pytest.raises(anthropic.AuthenticationError) as caught:
        say(connect(server, "wrong"))
    assert caught.value.body["error"]["type"] == "authentication_error"


def test_too_much_at_once(start_probe):
    server = start_probe("--places", "1")
    busy = connect(server).messages.create(model="test", max_tokens=4096, stream=True,
                                           messages=[{"role": "user", "content": "[slow][endless]"}])
    next(iter(busy))
    with pytest.raises(anthropic.RateLimitError) as caught:
        say(connect(server))
    assert caught.value.body["error"]["type"] == "rate_limit_error" and caught.value.response.headers["retry-after"]
    busy.close()


FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


def test_the_real_model(real):
    claude = connect(real)
    asked = {"model": "small", "max_tokens": 16, "messages": FRANCE, "extra_body": {"temperature": 0}}
    message = claude.messages.create(**asked)
    assert message.content[0].text == "The capital of France is Paris." and message.stop_reason == "end_turn"
    with claude.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == "The capital of France is Paris."
        usage = stream.get_final_message().usage
    assert usage.input_tokens + usage.cache_read_input_tokens == claude.messages.count_tokens(model="small", messages=FRANCE).input_tokens
    begun = claude.messages.create(**{**asked, "messages": [*FRANCE, {"role": "assistant", "content": "The capital of France is"}]})
    assert begun.content[0].text.strip().startswith("Paris")
