"""litellm against the scripted server and the real model, by OpenAI's protocol and by Anthropic's."""
import asyncio
import json

import litellm
import pytest

litellm.telemetry = False
HI = [{"role": "user", "content": "Hi"}]


def ask(server, messages=HI, model="openai/test", **more):
    base = server.url if model.startswith("anthropic/") else server.url + "/v1"
    return litellm.completion(model=model, messages=messages, api_base=base, api_key=more.pop("api_key", "none"), num_retries=0,
                              timeout=60, **more)


@pytest.fixture(params=["openai/test", "anthropic/test"])
def name(request):
    return request.param


def test_it_answers(probe, name):
    answer = ask(probe, model=name)
    assert answer.choices[0].message.content == "Hello world" and answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == 20 and answer.usage.completion_tokens == 12


def test_it_streams(probe, name):
    pieces = [chunk.choices[0].delta.content or "" for chunk in ask(probe, [{"role": "user", "content": "[say héllo]"}], name, stream=True)]
    assert "".join(pieces) == "héllo" and len(pieces) > 2


def test_messages(probe, name):
    talk = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "[say again]"}]
    answer = ask(probe, talk, name)
    assert answer.choices[0].message.content == "again"
    assert answer.usage.prompt_tokens == len("<system>Be kind.<user>Hi<assistant>Hello<user>[say again]<assistant>") + 1


def test_the_longest_answer(probe, name):
    answer = ask(probe, model=name, max_tokens=5)
    assert answer.choices[0].message.content == "Hello" and answer.choices[0].finish_reason == "length"


def test_stop(probe, name):
    assert ask(probe, model=name, stop=["o w"]).choices[0].message.content == "Hell"


def test_asynchronous(probe, name):
    base = probe.url if name.startswith("anthropic/") else probe.url + "/v1"

    async def run():
        answers = await asyncio.gather(*[litellm.acompletion(
            model=name, messages=[{"role": "user", "content": f"[say answer {i}]"}], api_base=base, api_key="none")
            for i in range(8)])
        return [answer.choices[0].message.content for answer in answers]

    assert asyncio.run(run()) == [f"answer {i}" for i in range(8)]


WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
CALL = '<think>Hm.</think>\n<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'


@pytest.mark.parametrize("stream", [False, True])
def test_tools(tool_probe, name, stream):
    talk = [{"role": "user", "content": f"[say {CALL}]"}]
    answer = ask(tool_probe, talk, name, tools=[WEATHER], stream=stream)
    if stream:
        answer = litellm.stream_chunk_builder(list(answer), messages=talk)
    message = answer.choices[0].message
    call, = message.tool_calls
    assert call.function.name == "get_weather" and json.loads(call.function.arguments) == {"city": "Rome"}
    assert answer.choices[0].finish_reason == "tool_calls" and message.reasoning_content == "Hm."
    talk += [message, {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"}, {"role": "user", "content": "[say So be it.]"}]
    assert ask(tool_probe, talk, name, tools=[WEATHER]).choices[0].message.content == "So be it."


def test_no_tools_by_choice(tool_probe, name):
    message = ask(tool_probe, [{"role": "user", "content": f"[say {CALL}]"}], name, tools=[WEATHER], tool_choice="none").choices[0].message
    assert not message.tool_calls and "<tool_call>" in message.content


def test_sampling(probe):
    answer = ask(probe, n=2, temperature=0.5, top_p=0.9, seed=7, presence_penalty=0.5, frequency_penalty=0.5)
    assert [choice.message.content for choice in answer.choices] == ["Hello world"] * 2


def test_logprobs(probe):
    content = ask(probe, logprobs=True, top_logprobs=1).choices[0].logprobs.content
    assert "".join(token.token for token in content) == "Hello world"


def test_a_stream_counts(probe):
    chunks = list(ask(probe, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].usage.completion_tokens == 12


def test_text_completion(probe):
    answer = litellm.text_completion(model="text-completion-openai/test", prompt="x", api_base=probe.url + "/v1", api_key="none")
    assert answer.choices[0].text == "Hello world"


def test_responses(probe):
    answer = litellm.responses(model="openai/test", input="[say responded]", api_base=probe.url + "/v1", api_key="none")
    assert answer.output[0].content[0].text == "responded"


def test_an_unknown_model(probe):
    with pytest.raises(litellm.NotFoundError, match="does not exist"):
        ask(probe, model="openai/other")
    with pytest.raises(litellm.NotFoundError, match="does not exist"):
        ask(probe, model="anthropic/other")


def test_what_is_wrong_is_said(probe, name):
    with pytest.raises(litellm.BadRequestError, match="temperature"):
        ask(probe, model=name, temperature=3)


def test_too_long(probe):
    with pytest.raises(litellm.BadRequestError, match="the context holds 8192"):
        ask(probe, [{"role": "user", "content": "x" * 9000}])


def test_a_key(start_probe, name):
    server = start_probe("--key", "secret")
    assert ask(server, model=name, api_key="secret").choices[0].message.content == "Hello world"
    with pytest.raises(litellm.AuthenticationError):
        ask(server, model=name, api_key="wrong")


def test_too_much_at_once(start_probe):
    server = start_probe("--places", "1")
    busy = ask(server, [{"role": "user", "content": "[slow][endless]"}], stream=True, max_tokens=4000)
    next(iter(busy))
    with pytest.raises(litellm.RateLimitError):
        ask(server)


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_the_real_model(real, protocol):
    answer = ask(real, [{"role": "user", "content": "What is the capital of France?"}], f"{protocol}/small", temperature=0, max_tokens=16)
    assert answer.choices[0].message.content == "The capital of France is Paris."
