"""Structured output and tools with the real 135M model, judged by jsonschema; and with scripted answers, by openai's client.

The tests of the real model need LANNER_TEST_GGUF; `make test` sets it.
"""

import json
import re
import threading
import time

import jsonschema
import openai
import pydantic
import pytest

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 30},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 3},
        "address": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/address"}]},
    },
    "required": ["name", "age", "tags", "address"],
    "additionalProperties": False,
    "$defs": {"address": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}},
                          "required": ["city"], "additionalProperties": False}},
}
ASK = [{"role": "user", "content": "Describe a person as JSON."}]
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20},
                                                    "unit": {"enum": ["C", "F"]}},
                   "required": ["city", "unit"], "additionalProperties": False}}}
NOW = {"type": "function", "function": {"name": "now", "description": "The time"}}


def schema_format(schema, name="answer"):
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}


def ask(client, messages=None, **more):
    return client.chat.completions.create(model="", messages=messages or ASK, **{"max_tokens": 200, **more})


@pytest.fixture(scope="module")
def client(real):
    return real.client()


@pytest.fixture(scope="module")
def tool_client(real_tools):
    return real_tools.client()


@pytest.mark.parametrize("temperature", [0, 1, 2])
@pytest.mark.parametrize("stream", [False, True])
def test_every_answer_fits_its_schema(client, temperature, stream):
    answer = ask(client, response_format=schema_format(PERSON), temperature=temperature, top_p=1, seed=3, stream=stream,
                 **({} if stream else {"n": 4}))
    if stream:
        chunks = list(answer)
        texts = ["".join(chunk.choices[0].delta.content or "" for chunk in chunks)]
        assert chunks[-1].choices[0].finish_reason == "stop"
    else:
        texts = [choice.message.content for choice in answer.choices]
        assert {choice.finish_reason for choice in answer.choices} == {"stop"}
    for text in texts:
        jsonschema.validate(json.loads(text), PERSON)


def test_answers_beside_free_ones_and_together(client):
    free = ask(client, [{"role": "user", "content": "Name a city."}], temperature=0, max_tokens=40).choices[0].message.content
    texts, others = [], []

    def structured(seed):
        texts.append(ask(client, response_format=schema_format(PERSON), seed=seed).choices[0].message.content)

    def plain():
        others.append(ask(client, [{"role": "user", "content": "Name a city."}], temperature=0, max_tokens=40)
                      .choices[0].message.content)

    threads = [threading.Thread(target=structured, args=(seed,)) for seed in range(6)]
    threads += [threading.Thread(target=plain) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(texts) == 6 and others == [free] * 3
    for text in texts:
        jsonschema.validate(json.loads(text), PERSON)


def test_a_json_object(client):
    for seed in range(4):
        choice = ask(client, response_format={"type": "json_object"}, seed=seed, temperature=1).choices[0]
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)
        else:
            assert choice.finish_reason == "length" and choice.message.content.startswith("{")


def test_a_regular_expression_and_a_grammar(client):
    def of(response_format):
        return ask(client, extra_body={"response_format": response_format}, temperature=1.5, top_p=1).choices[0]

    for _ in range(3):
        choice = of({"type": "regex_schema", "regex_schema": "[A-Z][a-z]{2,8}: [0-9]{1,3} (kg|m/s)"})
        assert re.fullmatch(r"[A-Z][a-z]{2,8}: [0-9]{1,3} (kg|m/s)", choice.message.content), choice
        assert choice.finish_reason == "stop"
        choice = of({"type": "grammar", "syntax": "lark",
                     "definition": 'start: sum "=" num\nsum: num ("+" num){1,3}\nnum: /[1-9][0-9]{0,2}/'})
        assert re.fullmatch(r"[1-9][0-9]{0,2}(\+[1-9][0-9]{0,2}){1,3}=[1-9][0-9]{0,2}", choice.message.content), choice


def test_what_ignores_the_end_ends_with_the_grammar(client):
    choice = ask(client, extra_body={"response_format": {"type": "regex_schema", "regex_schema": "yes|no"},
                                     "ignore_eos": True}).choices[0]
    assert choice.message.content in ("yes", "no") and choice.finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_completions_are_held_to_a_format(client, stream):
    asked = {"model": "", "prompt": ["A person:", "Another:"], "max_tokens": 200, "temperature": 1, "stream": stream,
             "extra_body": {"response_format": schema_format(PERSON)}}
    texts = ["", ""]
    for chunk in client.completions.create(**asked) if stream else [client.completions.create(**asked)]:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    for text in texts:
        jsonschema.validate(json.loads(text), PERSON)


def test_the_client_parses_into_a_class(client):
    class Step(pydantic.BaseModel):
        text: str = pydantic.Field(max_length=40)

    class Plan(pydantic.BaseModel):
        title: str = pydantic.Field(max_length=40)
        steps: list[Step] = pydantic.Field(max_length=2)
        done: bool

    answer = client.chat.completions.parse(model="small", messages=ASK, response_format=Plan, max_tokens=300, temperature=0)
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(answer.choices[0].message.parsed, Plan)
    with client.chat.completions.stream(model="small", messages=ASK, response_format=Plan, max_tokens=300) as stream:
        list(stream)
    assert isinstance(stream.get_final_completion().choices[0].message.parsed, Plan)


def deep(levels):
    schema = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


HOSTILE = [
    {"type": "sting"}, {"$ref": "#/nowhere"}, {"$ref": "https://example.com/x.json"}, {"type": "array", "uniqueItems": True},
    {"type": "string", "pattern": "((("}, {"allOf": [{"type": "string"}, {"type": "integer"}]}, {"not": {}},
    {"type": "object", "properties": 3}, {"enum": []}, {"type": "é" * 300}, {"type": "array", "items": {"$ref": "#/items"}},
    {"type": "integer", "minimum": 5, "maximum": 4}, {"x-guidance": {"lenient": True}}, deep(60), False,
    {"$ref": "#"}, {"anyOf": [{"$ref": "#"}]}, {"minLength": 10**9, "type": "string"}, {"type": "array", "minItems": 10**9},
    {"type": "string", "pattern": "^(a{1,5000}){1,5000}b$"}, {"type": "string", "pattern": "^(.*a.{500}){20}$"},
    {"enum": ["value" + str(i) * 40 for i in range(10000)]},
    {"type": "object", "properties": {f"p{i}": {"type": "string", "pattern": f"^a{{1,999}}{i}$"} for i in range(1000)}},
    {"type": "object", "patternProperties": {"^(a|a)*$": {"type": "integer"}, "^(a|aa)+$": {"type": "string"}}},
    {"allOf": [{"anyOf": [{"type": "object", "properties": {f"k{i}{j}": {"const": i}}} for j in range(8)]} for i in range(12)]},
]


@pytest.mark.parametrize("schema", HOSTILE, ids=lambda schema: json.dumps(schema)[:40])
def test_a_bad_schema_is_refused_or_followed_within_a_second(real, schema):
    """And never harms: what is taken gives an answer that fits, or is cut."""
    body = {"messages": ASK, "max_tokens": 8, "response_format": schema_format(schema)}
    begin = time.monotonic()
    status, _, reply = real.ask("/v1/chat/completions", body)
    took = time.monotonic() - begin
    reply = json.loads(reply)
    assert status in (200, 400), reply
    if status == 400:
        assert took < 1
        died = reply["message"].startswith("the grammar: ")  # on the way: what is too complex may show late
        assert died or reply["param"].split(".")[0] == "response_format", reply
        assert 10 < len(reply["message"]) < 800 and "\n" not in reply["message"]
    assert real.ask("/health")[0] == 200


def test_many_streams_go_on_beside_hostile_schemas(real, client):
    begin = time.monotonic()
    list(ask(client, stream=True, max_tokens=100, temperature=0))
    alone = time.monotonic() - begin
    stop = threading.Event()

    def attack():
        while not stop.is_set():
            real.ask("/v1/chat/completions", {"messages": ASK, "max_tokens": 1, "response_format": schema_format(HOSTILE[-3])})

    thread = threading.Thread(target=attack)
    thread.start()
    begin = time.monotonic()
    chunks = list(ask(client, stream=True, max_tokens=100, temperature=0))
    took = time.monotonic() - begin
    stop.set()
    thread.join()
    assert len(chunks) > 10
    assert took < 10 * alone + 5


# --- tools ----------------------------------------------------------------------------------------------------------


def check_call(call):
    assert call.type == "function" and call.id
    parameters = {"get_weather": WEATHER["function"]["parameters"], "now": {"type": "object", "maxProperties": 0}}
    jsonschema.validate(json.loads(call.function.arguments), parameters[call.function.name])


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
@pytest.mark.parametrize("parallel", [True, False])
def test_a_demanded_call_fits_its_function(tool_client, choice, parallel):
    answer = ask(tool_client, [{"role": "user", "content": "How is the weather in Paris?"}], tools=[WEATHER, NOW],
                 tool_choice=choice, parallel_tool_calls=parallel, temperature=0, max_tokens=150).choices[0]
    assert answer.finish_reason == "tool_calls", answer
    assert answer.message.content is None
    calls = answer.message.tool_calls
    for call in calls:
        check_call(call)
        assert choice == "required" or call.function.name == "get_weather"
    if choice != "required" or not parallel:
        assert len(calls) == 1


def test_a_demanded_call_in_a_stream(tool_client):
    with tool_client.chat.completions.stream(model="small", messages=ASK, tools=[WEATHER], max_tokens=100, temperature=0,
                                             tool_choice="required", parallel_tool_calls=False) as stream:
        kinds = {event.type for event in stream}
    final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls"
    assert "tool_calls.function.arguments.done" in kinds
    check_call(final.message.tool_calls[0])


def test_a_conversation_with_a_tool(tool_client):
    messages = [{"role": "user", "content": "How is the weather in Paris?"},
                {"role": "assistant", "content": None, "tool_calls": [
                    {"id": "call_1", "type": "function",
                     "function": {"name": "get_weather", "arguments": "{\"city\": \"Paris\", \"unit\": \"C\"}"}}]},
                {"role": "tool", "tool_call_id": "call_1", "content": "21 degrees, sunny"}]
    answer = ask(tool_client, messages, tools=[WEATHER], temperature=0, max_tokens=40, tool_choice="none").choices[0]
    assert answer.message.content and answer.message.tool_calls is None


def test_tools_need_a_parser(client):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, tools=[WEATHER])
    assert "--tool-call-parser" in caught.value.message and caught.value.param == "tools"


# --- scripted -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scripted(tool_probe):
    return tool_probe.client()


CALLS = '<think>\nHm.\n</think>\n\nSure.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Ulm", "unit": "C"}}\n' \
        '</tool_call>\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def test_calls_and_thoughts(scripted):
    message = [{"role": "user", "content": f"[say {CALLS}]"}]
    answer = ask(scripted, message, tools=[WEATHER, NOW]).choices[0]
    assert answer.finish_reason == "tool_calls"
    assert answer.message.content == "Sure." and answer.message.reasoning_content == "Hm."
    assert [call.function.name for call in answer.message.tool_calls] == ["get_weather", "now"]
    assert len({call.id for call in answer.message.tool_calls}) == 2
    with scripted.chat.completions.stream(model="", messages=message, tools=[WEATHER, NOW]) as stream:
        thoughts = "".join(getattr(event.chunk.choices[0].delta, "reasoning_content", None) or "" for event in stream
                           if event.type == "chunk")
    streamed = stream.get_final_completion().choices[0]
    assert thoughts == "Hm." and streamed.message.content == "Sure." and streamed.finish_reason == "tool_calls"
    for whole, piece in zip(answer.message.tool_calls, streamed.message.tool_calls, strict=True):
        assert (whole.function.name, whole.function.arguments) == (piece.function.name, piece.function.arguments)


def test_several_choices_have_calls_of_their_own(scripted):
    chunks = list(ask(scripted, [{"role": "user", "content": f"[say {CALLS}]"}], tools=[WEATHER, NOW], n=3, stream=True))
    names = {}
    for chunk in chunks:
        for call in chunk.choices[0].delta.tool_calls or []:
            if call.function.name:
                names.setdefault(chunk.choices[0].index, []).append((call.index, call.function.name))
    assert names == {i: [(0, "get_weather"), (1, "now")] for i in range(3)}


def test_logprobs_come_with_calls(scripted):
    answer = ask(scripted, [{"role": "user", "content": f"[say {CALLS}]"}], tools=[WEATHER, NOW], logprobs=True)
    chunks = ask(scripted, [{"role": "user", "content": f"[say {CALLS}]"}], tools=[WEATHER, NOW], logprobs=True, stream=True)
    streamed = [token.token for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content]
    assert "".join(streamed) == CALLS == "".join(token.token for token in answer.choices[0].logprobs.content)
