"""The official Python client against the scripted server: it must understand everything that it is told."""

import time

import openai
import pytest

MESSAGES = [{"role": "user", "content": "Hi"}]


def chat(client, content="Hi", **more):
    return client.chat.completions.create(model="test", messages=[{"role": "user", "content": content}], **more)


def test_models(client):
    assert [model.id for model in client.models.list()] == ["test"]
    assert client.models.retrieve("test").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_chat(client):
    answer = chat(client)
    assert answer.choices[0].message.content == "Hello world"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].logprobs is None
    assert answer.usage.completion_tokens == 12 and answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    assert answer.object == "chat.completion" and answer.model == "test"


def test_chat_stream(client):
    chunks = list(chat(client, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello world"
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def test_chat_stream_usage(client):
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 12
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_stream_helper(client):
    with client.chat.completions.stream(model="test", messages=MESSAGES) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
    assert "".join(deltas) == "Hello world"
    assert stream.get_final_completion().choices[0].finish_reason == "stop"


@pytest.mark.parametrize("text", ["é", "日本語", "👩‍👩‍👧", "\"quotes\" \\ and \t tabs", "\n\n", "<eos", "\n\ndata: x\n\n"])
@pytest.mark.parametrize("stream", [False, True])
def test_any_text_comes_through(client, text, stream):
    prompt = f"[say {text}]"
    if stream:
        said = "".join(chunk.choices[0].delta.content or "" for chunk in chat(client, prompt, stream=True))
    else:
        said = chat(client, prompt).choices[0].message.content
    assert said == text


@pytest.mark.parametrize("stream", [False, True])
def test_n(client, stream):
    if stream:
        texts = ["", "", ""]
        for chunk in chat(client, n=3, stream=True):
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    else:
        texts = [choice.message.content for choice in chat(client, n=3).choices]
    assert texts == ["Hello world"] * 3


@pytest.mark.parametrize("stop, said", [("wor", "Hello "), (["x", "o"], "Hell"), ("none of it", "Hello world")])
def test_stop(client, stop, said):
    assert chat(client, stop=stop).choices[0].message.content == said


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_max_tokens(client, field):
    answer = chat(client, **{field: 4})
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Hell", "length")
    assert answer.usage.completion_tokens == 4


def test_logprobs(client):
    content = chat(client, logprobs=True, top_logprobs=1).choices[0].logprobs.content
    assert "".join(token.token for token in content) == "Hello world"
    assert content[0].bytes == [72] and content[0].top_logprobs[0].token == "H"
    streamed = [chunk.choices[0].logprobs for chunk in chat(client, logprobs=True, stream=True)]
    assert sum(len(one.content) for one in streamed if one) == len("Hello world")


def test_content_as_parts_and_developer(client):
    answer = client.chat.completions.create(model="test", messages=[
        {"role": "developer", "content": "x"},
        {"role": "user", "content": [{"type": "text", "text": "[say "}, {"type": "text", "text": "ok]"}]},
    ])
    assert answer.choices[0].message.content == "\nok"


def test_an_answer_of_the_client_may_be_sent_back(client):
    message = chat(client).choices[0].message
    answer = client.chat.completions.create(model="test", messages=[*MESSAGES, message, *MESSAGES])
    assert answer.choices[0].message.content == "Hello world"


def test_fields_without_effect_and_null(client):
    chat(client, user="me", metadata={"a": "b"}, store=False, service_tier="auto", parallel_tool_calls=True,
         response_format={"type": "text"}, seed=-1, temperature=None, stop=None)


@pytest.mark.parametrize("bad, param", [
    ({"temperature": 3}, "temperature"), ({"n": 0}, "n"), ({"top_p": 1.5}, "top_p"), ({"max_tokens": 0}, "max_tokens"),
    ({"logit_bias": {"a": 1}}, "logit_bias"), ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"response_format": {"type": "xml"}}, "response_format.type"), ({"tool_choice": "required"}, "tool_choice"), ({"stop": ["x"] * 17}, "stop"),
    ({"extra_body": {"unheard_of": 1}}, "unheard_of"), ({"presence_penalty": -3}, "presence_penalty"),
])
def test_bad_fields(client, bad, param):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **bad)
    assert caught.value.param == param
    assert caught.value.body["message"].startswith(param + ": ")
    assert caught.value.type == "invalid_request_error"


def test_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-5", messages=MESSAGES)
    assert caught.value.code == "model_not_found"


def test_a_failure_of_the_engine(client):
    with pytest.raises(openai.InternalServerError):
        chat(client, "[fail]")
    with pytest.raises(openai.APIError, match="the script says so"):
        list(chat(client, "[fail]", stream=True))
    assert chat(client).choices[0].message.content == "Hello world"


def test_keys(start_probe):
    server = start_probe("--key", "secret")
    with pytest.raises(openai.AuthenticationError):
        server.client("wrong").models.list()
    assert server.client("secret").models.list().data[0].id == "test"


@pytest.mark.parametrize("stream", [False, True])
def test_completions(client, stream):
    prompts = ["[say one]", "[say two]"]
    if stream:
        texts = ["", ""]
        for chunk in client.completions.create(model="test", prompt=prompts, stream=True):
            texts[chunk.choices[0].index] += chunk.choices[0].text
    else:
        answer = client.completions.create(model="test", prompt=prompts)
        texts = [choice.text for choice in answer.choices]
        assert answer.usage.completion_tokens == 8
    assert texts == ["one", "two"]


def test_completions_of_tokens_with_echo_and_logprobs(client):
    answer = client.completions.create(model="test", prompt=[72, 105], echo=True)
    assert answer.choices[0].text == "HiHello world"
    logprobs = client.completions.create(model="test", prompt="x", logprobs=1).choices[0].logprobs
    assert logprobs.tokens == list("Hello world") and logprobs.text_offset == list(range(11))


def test_a_closed_stream_ends_its_request(probe, client):
    stream = chat(client, "[endless] [slow]", stream=True)
    next(iter(stream))
    assert b'num_requests_running{model_name="test"} 1' in probe.ask("/metrics")[2]
    stream.close()
    for _ in range(200):
        if b'num_requests_running{model_name="test"} 0' in probe.ask("/metrics")[2]:
            return
        time.sleep(0.05)
    pytest.fail("the request goes on without its client")
