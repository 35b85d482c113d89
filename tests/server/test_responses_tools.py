"""Tools, thoughts and formats of /v1/responses, by OpenAI's Python client, against the scripted server and the real model."""
import json

import jsonschema
import openai
import pydantic
import pytest

WEATHER = {"type": "function", "name": "get_weather", "description": "The weather of a city", "strict": True,
           "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
                          "required": ["city", "unit"], "additionalProperties": False}}
NOW = {"type": "function", "name": "now", "description": None, "strict": None,
       "parameters": {"type": "object", "properties": {}, "additionalProperties": False}}
CALLS = '<think>\nHm.\n</think>\n\nSure.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Ülm", "unit": "C"}}\n' \
        '</tool_call>\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


@pytest.fixture(scope="module")
def scripted(tool_probe):
    return tool_probe.client()


def ask(client, text, **more):
    return client.responses.create(**{"model": "test", "input": text, "tools": [WEATHER, NOW], **more})


def shown(items):
    """Items of an answer without their ids, which are drawn."""
    return [(item.type, {"reasoning": lambda: item.content[0].text, "message": lambda: item.content[0].text,
                         "function_call": lambda: (item.name, json.loads(item.arguments))}[item.type]()) for item in items]


EXPECTED = [("reasoning", "Hm."), ("message", "Sure."), ("function_call", ("get_weather", {"city": "Ülm", "unit": "C"})),
            ("function_call", ("now", {}))]


def test_calls_and_thoughts(scripted):
    answer = ask(scripted, f"[say {CALLS}]")
    assert shown(answer.output) == EXPECTED and answer.output_text == "Sure." and answer.status == "completed"
    calls = answer.output[2:]
    assert len({call.call_id for call in calls}) == 2 and {call.status for call in calls} == {"completed"}
    assert [tool.name for tool in answer.tools] == ["get_weather", "now"] and answer.tool_choice == "auto"


def test_the_stream_helper(scripted):
    with scripted.responses.stream(model="test", input=f"[say {CALLS}]", tools=[WEATHER, NOW]) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert shown(final.output) == EXPECTED
    arguments = [event.arguments for event in events if event.type == "response.function_call_arguments.done"]
    assert [json.loads(text) for text in arguments] == [{"city": "Ülm", "unit": "C"}, {}]
    assert "".join(event.delta for event in events if event.type == "response.reasoning_text.delta") == "Hm."


def test_the_events_and_their_order(scripted):
    events = list(ask(scripted, f"[say {CALLS}]", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = []
    for event in events:
        if not kinds or kinds[-1] != event.type:
            kinds.append(event.type)
    call = ["response.output_item.added", "response.function_call_arguments.delta", "response.function_call_arguments.done",
            "response.output_item.done"]
    assert kinds == ["response.created", "response.in_progress",
                     "response.output_item.added", "response.content_part.added", "response.reasoning_text.delta",
                     "response.reasoning_text.done", "response.content_part.done", "response.output_item.done",
                     "response.output_item.added", "response.content_part.added", "response.output_text.delta",
                     "response.output_text.done", "response.content_part.done", "response.output_item.done",
                     *call, *call, "response.completed"]
    items = [event for event in events if event.type == "response.output_item.done"]
    assert [event.output_index for event in items] == [0, 1, 2, 3]
    assert [event.item.id for event in items] == [item.id for item in events[-1].response.output]
    ids = [item.id for item in events[-1].response.output]
    for event in events:
        if hasattr(event, "item_id"):
            assert event.item_id == ids[event.output_index]


@pytest.mark.parametrize("stream", [False, True])
def test_only_one_call(scripted, stream):
    answer = ask(scripted, f"[say {CALLS}]", parallel_tool_calls=False, stream=stream)
    answer = list(answer)[-1].response if stream else answer
    assert shown(answer.output) == EXPECTED[:3] and answer.parallel_tool_calls is False


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_is_cut_is_text(scripted, stream):
    answer = ask(scripted, '[say <tool_call>{"name": "now", "arguments": {}}</tool_call>]', max_output_tokens=20, stream=stream)
    answer = list(answer)[-1].response if stream else answer
    assert shown(answer.output) == [("message", '<tool_call>{"name": ')]
    assert answer.status == "incomplete" and answer.output[0].status == "incomplete"


def test_narrowed_and_none(scripted):
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "now"}]}
    answer = ask(scripted, f"[say {CALLS}]", tool_choice=allowed)
    assert [item.name for item in answer.output if item.type == "function_call"] == ["now"]
    answer = ask(scripted, f"[say {CALLS}]", tool_choice="none")
    assert [item.type for item in answer.output] == ["reasoning", "message"]


def test_the_output_is_input_again(scripted):
    first = ask(scripted, f"[say {CALLS}]")
    talk = [{"role": "user", "content": f"[say {CALLS}]"}, *first.output,
            *[{"type": "function_call_output", "call_id": item.call_id, "output": "21 degrees"}
              for item in first.output if item.type == "function_call"],
            {"role": "user", "content": "[say So be it.]"}]
    assert shown(ask(scripted, talk).output) == [("message", "So be it.")]


def test_logprobs_come_with_the_text(scripted):
    asked = {"include": ["message.output_text.logprobs"]}
    answer = ask(scripted, f"[say {CALLS}]", **asked)
    assert "".join(token.token for token in answer.output[1].content[0].logprobs)[:7] == "<think>"
    deltas = [event for event in ask(scripted, "[say Hello]", stream=True, **asked) if event.type == "response.output_text.delta"]
    assert [token.token for event in deltas for token in event.logprobs] == list("Hello")


def test_tools_need_a_parser(client):
    with pytest.raises(openai.BadRequestError, match="--tool-call-parser"):
        ask(client, "Hi")


# --- the real model ---------------------------------------------------------------------------------------------------

PARIS = "How is the weather in Paris?"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get_weather"}])
@pytest.mark.parametrize("stream", [False, True])
def test_a_demanded_call_fits_its_function(real_tools, choice, stream):
    answer = ask(real_tools.client(), PARIS, model="small", tool_choice=choice, parallel_tool_calls=False, max_output_tokens=150,
                 temperature=0, stream=stream)
    answer = list(answer)[-1].response if stream else answer
    call, = answer.output
    assert call.type == "function_call" and answer.status == "completed"
    schemas = {tool["name"]: tool["parameters"] for tool in (WEATHER, NOW)}
    jsonschema.validate(json.loads(call.arguments), schemas[call.name])
    assert choice == "required" or call.name == "get_weather"


def test_a_strict_call_of_the_models_own_accord(real_tools):
    """Nothing demands a call; the conversation has so many that the model writes one more, at a temperature at which it could
    not write a good one by itself."""
    talk = []
    for i, city in enumerate(["Rome", "Oslo", "Bern", "Lima", "Kyiv"]):
        talk += [{"role": "user", "content": f"How is the weather in {city}?"},
                 {"type": "function_call", "call_id": f"c{i}", "name": "get_weather",
                  "arguments": json.dumps({"city": city, "unit": "C"})},
                 {"type": "function_call_output", "call_id": f"c{i}", "output": "21 degrees"},
                 {"role": "assistant", "content": "21 degrees."}]
    calls = []
    for seed in range(8):
        answer = ask(real_tools.client(), [*talk, {"role": "user", "content": PARIS}], model="small", tools=[WEATHER],
                     max_output_tokens=100, temperature=1.5, top_p=1, extra_body={"seed": seed, "top_k": 0, "min_p": 0.02})
        if answer.status == "completed":
            calls += [item for item in answer.output if item.type == "function_call"]
            assert "<tool_call>" not in answer.output_text
    assert calls
    for call in calls:
        jsonschema.validate(json.loads(call.arguments), WEATHER["parameters"])


def test_a_class_is_filled(real):
    class Place(pydantic.BaseModel):
        city: str = pydantic.Field(max_length=20)
        visitors: int = pydantic.Field(ge=0, le=1000)

    asked = {"model": "small", "input": "Name a city as JSON.", "text_format": Place, "max_output_tokens": 100, "temperature": 0}
    answer = real.client().responses.parse(**asked)
    assert isinstance(answer.output_parsed, Place)
    with real.client().responses.stream(**asked) as stream:
        assert stream.get_final_response().output_parsed == answer.output_parsed
    assert json.loads(real.client().responses.create(
        model="small", input="Name a city as JSON.", text={"format": {"type": "json_object"}}, max_output_tokens=200,
        temperature=0).output_text or "{}") is not None
