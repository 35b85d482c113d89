"""/v1/responses, by OpenAI's Python client, against the scripted server and the real model."""
import openai
import pytest


def ask(client, text="Hi", **more):
    return client.responses.create(model="test", input=text, **more)


def test_it_answers(client):
    response = ask(client)
    assert response.object == "response" and response.id.startswith("resp_") and response.status == "completed"
    assert response.output_text == "Hello world"
    item, = response.output
    assert item.type == "message" and item.role == "assistant" and item.status == "completed"
    assert item.content[0].type == "output_text" and item.content[0].annotations == []
    assert response.usage.input_tokens == 20 and response.usage.output_tokens == 12
    assert response.usage.total_tokens == 32 and response.usage.input_tokens_details.cached_tokens == 0
    assert response.store is False and response.error is None and response.previous_response_id is None


def test_the_events_and_their_order(client):
    events = list(ask(client, stream=True))
    kinds = [event.type for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert deltas > 1
    assert kinds == ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
                     *["response.output_text.delta"] * deltas, "response.output_text.done", "response.content_part.done",
                     "response.output_item.done", "response.completed"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "Hello world"
    last = events[-1].response
    assert last.output_text == "Hello world" and last.usage.output_tokens == 12 and last.id == events[0].response.id
    item_ids = {event.item_id for event in events if hasattr(event, "item_id")}
    assert item_ids == {last.output[0].id}


def test_the_stream_helper(client):
    with client.responses.stream(model="test", input="[say héllo]") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == "héllo" == final.output_text


@pytest.mark.parametrize("stream", [False, True])
def test_the_longest_answer(client, stream):
    answer = ask(client, max_output_tokens=5, stream=stream)
    if stream:
        last = list(answer)[-1]
        assert last.type == "response.incomplete"
        answer = last.response
    assert answer.output_text == "Hello" and answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens" and answer.max_output_tokens == 5


def test_instructions_and_messages(client):
    plain = ask(client).usage.input_tokens
    assert ask(client, instructions="Be kind.").usage.input_tokens == plain + len("<system>Be kind.")
    talk = [{"role": "developer", "content": "Be kind."},
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]},
            {"role": "user", "content": "[say again]"}]
    answer = ask(client, talk)
    assert answer.output_text == "again"
    assert answer.usage.input_tokens == len("<system>Be kind.<user>Hi<assistant>Hello<user>[say again]<assistant>") + 1


def test_an_answer_is_input_again(client):
    first = ask(client)
    talk = [{"role": "user", "content": "Hi"}, *[item.model_dump(exclude_none=True) for item in first.output],
            {"role": "user", "content": "[say more]"}]
    assert ask(client, talk).output_text == "more"


def test_logprobs(client):
    answer = ask(client, include=["message.output_text.logprobs"], top_logprobs=0)
    tokens = answer.output[0].content[0].logprobs
    assert "".join(token.token for token in tokens) == "Hello world" and tokens[0].bytes == [72]
    streamed = [event for event in ask(client, include=["message.output_text.logprobs"], stream=True)
                if event.type == "response.output_text.delta"]
    assert [token.token for event in streamed for token in event.logprobs] == list("Hello world")


def test_what_comes_back(client):
    answer = ask(client, temperature=0.5, top_p=0.25, metadata={"a": "b"}, instructions="x", reasoning={"effort": "low"})
    assert (answer.temperature, answer.top_p, answer.metadata, answer.instructions) == (0.5, 0.25, {"a": "b"}, "x")
    assert answer.reasoning.effort == "low" and answer.tools == [] and answer.tool_choice == "auto"


BAD = [
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"background": True}, "background"),
    ({"store": True}, "store"),
    ({"tools": [{"type": "function", "name": "f", "parameters": {}, "strict": True}]}, "tools"),
    ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
    ({"truncation": "auto"}, "truncation"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
    ({"input": [{"type": "computer_call_output", "call_id": "1", "output": "x"}]}, r"input\[0\].type"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "takes text alone"),
    ({"input": []}, "input"),
    ({"extra_body": {"no_such_field": 1}}, "no_such_field"),
]


@pytest.mark.parametrize("fields, message", BAD)
def test_what_is_refused(client, fields, message):
    with pytest.raises(openai.BadRequestError, match=message):
        client.responses.create(**{"model": "test", "input": "Hi", **fields})


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_of_the_engine(client, stream):
    if not stream:
        with pytest.raises(openai.InternalServerError):
            ask(client, "[fail]")
        return
    last = list(ask(client, "[fail]", stream=True))[-1]
    assert last.type == "response.failed" and last.response.status == "failed" and last.response.error.message


def test_the_real_model(real):
    client = real.client()
    asked = {"model": "small", "input": "What is the capital of France?", "temperature": 0, "max_output_tokens": 16}
    answer = client.responses.create(**asked)
    assert answer.output_text == "The capital of France is Paris." and answer.status == "completed"
    with client.responses.stream(**asked) as stream:
        assert stream.get_final_response().output_text == answer.output_text
    shaped = client.responses.create(**asked, include=["message.output_text.logprobs"], top_logprobs=3)
    assert all(len(token.top_logprobs) == 3 and token.top_logprobs[0].token == token.token
               for token in shaped.output[0].content[0].logprobs)
