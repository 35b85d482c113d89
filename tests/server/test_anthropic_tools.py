"""Tools and thoughts of Anthropic's Python client, against the scripted server and, where a call is demanded, the real model."""
import json

import anthropic
import jsonschema
import pytest

WEATHER = {"name": "get_weather", "description": "The weather of a city",
           "input_schema": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
                            "required": ["city", "unit"], "additionalProperties": False}}
NOW = {"name": "now", "input_schema": {"type": "object", "properties": {}, "additionalProperties": False}}
CALLS = '<think>\nHm.\n</think>\n\nSure.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Ülm", "unit": "C"}}\n' \
        '</tool_call>\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def connect(server):
    return anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def claude(tool_probe):
    return connect(tool_probe)


def user(text):
    return [{"role": "user", "content": text}]


def say(claude, messages, **more):
    return claude.messages.create(**{"model": "test", "max_tokens": 512, "messages": messages, "tools": [WEATHER, NOW], **more})


def shown(blocks):
    """Blocks of an answer without their ids, which are drawn."""
    return [(block.type, {"text": lambda: block.text, "thinking": lambda: block.thinking,
                          "tool_use": lambda: (block.name, block.input)}[block.type]()) for block in blocks]


EXPECTED = [("thinking", "Hm."), ("text", "Sure."), ("tool_use", ("get_weather", {"city": "Ülm", "unit": "C"})),
            ("tool_use", ("now", {}))]


def test_calls_and_thoughts(claude):
    message = say(claude, user(f"[say {CALLS}]"))
    assert shown(message.content) == EXPECTED
    assert message.stop_reason == "tool_use" and message.stop_sequence is None
    ids = [block.id for block in message.content if block.type == "tool_use"]
    assert len(set(ids)) == 2 and all(one.startswith("toolu_") for one in ids)


def test_the_stream_helper(claude):
    with claude.messages.stream(model="test", max_tokens=512, messages=user(f"[say {CALLS}]"), tools=[WEATHER, NOW]) as stream:
        kinds = {event.type for event in stream}
        message = stream.get_final_message()
    assert shown(message.content) == EXPECTED and message.stop_reason == "tool_use"
    assert {"thinking", "text", "input_json"} <= kinds
    assert message.usage.output_tokens == len(CALLS.encode()) + 1


def test_the_events_and_their_order(claude):
    events = list(say(claude, user(f"[say {CALLS}]"), stream=True))
    blocks = []
    for event in events[1:-2]:
        if event.type == "content_block_start":
            assert event.index == len(blocks)
            blocks.append([event.content_block.type])
        elif event.type == "content_block_delta":
            assert event.index == len(blocks) - 1
            blocks[-1].append(event.delta.type)
        else:
            assert event.type == "content_block_stop" and event.index == len(blocks) - 1
            blocks[-1].append("stop")
    assert [[block[0], *sorted(set(block[1:-1])), block[-1]] for block in blocks] == [
        ["thinking", "thinking_delta", "stop"], ["text", "text_delta", "stop"], ["tool_use", "input_json_delta", "stop"],
        ["tool_use", "input_json_delta", "stop"]]
    assert events[0].type == "message_start" and [event.type for event in events[-2:]] == ["message_delta", "message_stop"]
    assert events[-2].delta.stop_reason == "tool_use"


@pytest.mark.parametrize("stream", [False, True])
def test_only_one_call(claude, stream):
    asked = {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
    if stream:
        with claude.messages.stream(model="test", max_tokens=512, messages=user(f"[say {CALLS}]"), tools=[WEATHER, NOW], **asked) as answer:
            message = answer.get_final_message()
    else:
        message = say(claude, user(f"[say {CALLS}]"), **asked)
    assert shown(message.content) == EXPECTED[:3]


@pytest.mark.parametrize("stream", [False, True])
def test_without_a_call_there_is_text(claude, stream):
    text = '<tool_call>{"name": "rm", "arguments": {}}</tool_call> <tool_c'
    if stream:
        with claude.messages.stream(model="test", max_tokens=512, messages=user(f"[say {text}]"), tools=[NOW]) as answer:
            message = answer.get_final_message()
    else:
        message = say(claude, user(f"[say {text}]"), tools=[NOW])
    assert shown(message.content) == [("text", text)] and message.stop_reason == "end_turn"


def test_a_call_that_is_cut_is_text(claude):
    message = say(claude, user('[say <tool_call>{"name": "now", "arguments": {}}</tool_call>]'), max_tokens=20)
    assert shown(message.content) == [("text", '<tool_call>{"name": ')] and message.stop_reason == "max_tokens"


def test_no_tools_by_choice(claude):
    message = say(claude, user(f"[say {CALLS}]"), tool_choice={"type": "none"})
    assert [block.type for block in message.content] == ["thinking", "text"] and message.stop_reason == "end_turn"


def test_the_answer_of_a_tool_and_all_that_was_said(claude):
    first = say(claude, user(f"[say {CALLS}]"))
    results = [{"type": "tool_result", "tool_use_id": block.id, "content": "21 degrees"}
               for block in first.content if block.type == "tool_use"]
    talk = [*user(f"[say {CALLS}]"), {"role": "assistant", "content": first.content},
            {"role": "user", "content": [*results, {"type": "text", "text": "[say So be it.]"}]}]
    message = say(claude, talk)
    assert shown(message.content) == [("text", "So be it.")]
    counted = claude.messages.count_tokens(model="test", messages=talk, tools=[WEATHER, NOW]).input_tokens
    assert counted == message.usage.input_tokens + message.usage.cache_read_input_tokens
    assert counted > claude.messages.count_tokens(model="test", messages=talk, tools=[NOW]).input_tokens


def test_a_runner_of_tools(claude):
    """The client's own loop calls a Python function and sends what it returns."""
    called = []

    @anthropic.beta_tool
    def get_time(city: str) -> str:
        """The time in a city.

        Args:
            city: Which
        """
        called.append(city)
        return "[say It is noon.]"

    call = '<tool_call>{"name": "get_time", "arguments": {"city": "Rome"}}</tool_call>'
    last = claude.beta.messages.tool_runner(model="test", max_tokens=512, tools=[get_time], thread=False,
                                            messages=user(f"[say {call}]")).until_done()
    assert called == ["Rome"] and shown(last.content) == [("text", "It is noon.")]


def test_thinking_is_asked_for(claude, probe):
    assert shown(say(claude, user("[say <think>Hm.</think>Yes.]"), thinking={"type": "enabled", "budget_tokens": 1024}).content) == [
        ("thinking", "Hm."), ("text", "Yes.")]
    with pytest.raises(anthropic.BadRequestError, match="--reasoning-parser"):
        say(connect(probe), user("Hi"), tools=[], thinking={"type": "enabled", "budget_tokens": 1024})


def test_tools_need_a_parser(probe):
    with pytest.raises(anthropic.BadRequestError, match="--tool-call-parser"):
        say(connect(probe), user("Hi"))


# --- the real model ---------------------------------------------------------------------------------------------------

ASKED = user("How is the weather in Paris?")
GREEDY = {"temperature": 0}


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
@pytest.mark.parametrize("single", [True, False])
def test_a_demanded_call_fits_its_function(real_tools, choice, single):
    message = say(connect(real_tools), ASKED, model="small", tool_choice={**choice, "disable_parallel_tool_use": single},
                  max_tokens=150, extra_body=GREEDY)
    assert message.stop_reason == "tool_use" and all(block.type == "tool_use" for block in message.content)
    schemas = {tool["name"]: tool["input_schema"] for tool in (WEATHER, NOW)}
    for block in message.content:
        jsonschema.validate(block.input, schemas[block.name])
        assert choice["type"] == "any" or block.name == "get_weather"
    if single or choice["type"] == "tool":
        assert len(message.content) == 1


def test_a_demanded_call_in_a_stream(real_tools):
    claude = connect(real_tools)
    with claude.messages.stream(model="small", max_tokens=150, messages=ASKED, tools=[WEATHER],
                                tool_choice={"type": "tool", "name": "get_weather"}, extra_body=GREEDY) as stream:
        message = stream.get_final_message()
    block, = message.content
    assert block.type == "tool_use" and message.stop_reason == "tool_use"
    jsonschema.validate(block.input, WEATHER["input_schema"])
    again = claude.messages.create(
        model="small", max_tokens=24, extra_body=GREEDY, tools=[WEATHER], tool_choice={"type": "none"},
        messages=[*ASKED, {"role": "assistant", "content": message.content},
                  {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "21 degrees, sunny"}]}])
    assert again.content[0].type == "text" and again.content[0].text


def test_an_answer_that_fits_a_schema(real):
    message = connect(real).messages.create(
        model="small", max_tokens=100, messages=user("Name a city and its country as JSON."),
        output_config={"format": {"type": "json_schema", "schema": WEATHER["input_schema"]}})
    jsonschema.validate(json.loads(message.content[0].text), WEATHER["input_schema"])
