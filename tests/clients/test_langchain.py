"""langchain-openai against the scripted server and the real model."""
import asyncio
import functools
import operator

import openai
import pydantic
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings


def chat(server, model="test", **more):
    return ChatOpenAI(base_url=server.url + "/v1", api_key="none", model=model, max_retries=0, timeout=60, **more)


def test_it_answers(probe):
    answer = chat(probe).invoke("Hi")
    assert isinstance(answer, AIMessage) and answer.content == "Hello world"
    assert answer.response_metadata["finish_reason"] == "stop" and answer.response_metadata["model_name"] == "test"


def test_it_counts(probe):
    usage = chat(probe).invoke("Hi").usage_metadata
    assert usage["input_tokens"] == 20 and usage["output_tokens"] == 12 and usage["total_tokens"] == 32


def test_messages(probe):
    talk = [SystemMessage("Be kind."), HumanMessage("Hi"), AIMessage("Hello"), HumanMessage("[say again]")]
    answer = chat(probe).invoke(talk)
    assert answer.content == "again"
    assert answer.usage_metadata["input_tokens"] == len("<system>Be kind.<user>Hi<assistant>Hello<user>[say again]<assistant>") + 1


def test_it_streams(probe):
    pieces = list(chat(probe).stream("[say héllo]"))
    assert len(pieces) > 2 and "".join(piece.content for piece in pieces) == "héllo"


def test_a_stream_counts(probe):
    whole = None
    for piece in chat(probe, stream_usage=True).stream("Hi"):
        whole = piece if whole is None else whole + piece
    assert whole.content == "Hello world" and whole.usage_metadata["output_tokens"] == 12


def test_many_at_once(probe):
    answers = chat(probe).batch([f"[say answer {i}]" for i in range(16)])
    assert [answer.content for answer in answers] == [f"answer {i}" for i in range(16)]


def test_asynchronous(probe):
    async def ask():
        model = chat(probe)
        whole = await model.ainvoke("Hi")
        pieces = [piece.content async for piece in model.astream("Hi")]
        return whole.content, "".join(pieces)

    assert asyncio.run(ask()) == ("Hello world", "Hello world")


def test_a_chain(probe):
    prompt = ChatPromptTemplate.from_messages([("system", "Be {how}."), ("human", "[say {text}]")])
    chain = prompt | chat(probe) | StrOutputParser()
    assert chain.invoke({"how": "kind", "text": "chained"}) == "chained"


def test_stop_and_the_longest_answer(probe):
    assert chat(probe).invoke("Hi", stop=["o w"]).content == "Hell"
    short = chat(probe, max_tokens=5).invoke("Hi")
    assert short.content == "Hello" and short.response_metadata["finish_reason"] == "length"


def test_logprobs(probe):
    content = chat(probe, logprobs=True, top_logprobs=1).invoke("Hi").response_metadata["logprobs"]["content"]
    assert "".join(token["token"] for token in content) == "Hello world"


def test_several_answers(probe):
    result = chat(probe, n=3, temperature=1).generate([[HumanMessage("Hi")]])
    assert [generation.text for generation in result.generations[0]] == ["Hello world"] * 3


def test_the_responses_api(probe):
    answer = chat(probe, use_responses_api=True, store=False).invoke("[say responded]")
    assert answer.text == "responded" and answer.usage_metadata["output_tokens"] == 10
    pieces = list(chat(probe, use_responses_api=True, store=False).stream("[say streamed]"))
    assert "".join(piece.text for piece in pieces) == "streamed"


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"21 degrees in {city}"


CALL = '<think>Hm.</think>\n<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}</tool_call>'


@pytest.mark.parametrize("more", [{}, {"use_responses_api": True, "store": False}])
@pytest.mark.parametrize("stream", [False, True])
def test_tools(tool_probe, more, stream):
    model = chat(tool_probe, **more).bind_tools([get_weather])
    if stream:
        answer = functools.reduce(operator.add, model.stream(f"[say {CALL}]"))
    else:
        answer = model.invoke(f"[say {CALL}]")
    call, = answer.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Rome"}) and not answer.invalid_tool_calls
    talk = [HumanMessage(f"[say {CALL}]"), answer, ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"]),
            HumanMessage("[say 21 degrees.]")]
    assert model.invoke(talk).text == "21 degrees."


@pytest.mark.parametrize("more", [{}, {"use_responses_api": True, "store": False}])
def test_structured_output(real, more):
    class Place(pydantic.BaseModel):
        city: str = pydantic.Field(max_length=20)

    model = chat(real, "small", temperature=0, max_tokens=60, **more).with_structured_output(Place, method="json_schema")
    assert isinstance(model.invoke("Name a city as JSON."), Place)


def test_completions(probe):
    model = OpenAI(base_url=probe.url + "/v1", api_key="none", model="test", max_retries=0)
    assert model.invoke("x") == "Hello world"
    assert "".join(model.stream("x")) == "Hello world"


def test_what_is_wrong_is_said(probe):
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        chat(probe, model="other").invoke("Hi")
    with pytest.raises(openai.BadRequestError, match="temperature"):
        chat(probe, temperature=3).invoke("Hi")


def test_a_key(start_probe):
    server = start_probe("--key", "secret")
    model = ChatOpenAI(base_url=server.url + "/v1", api_key="secret", model="test", max_retries=0)
    assert model.invoke("Hi").content == "Hello world"
    with pytest.raises(openai.AuthenticationError):
        chat(server).invoke("Hi")


def test_the_real_model(real):
    assert chat(real, "small", temperature=0, max_tokens=16).invoke("What is the capital of France?").content == \
        "The capital of France is Paris."


def test_embeddings(real):
    embeddings = OpenAIEmbeddings(base_url=real.url + "/v1", api_key="none", model="small", check_embedding_ctx_length=False)
    cat, kitten, money = embeddings.embed_documents(["A cat sat on the mat.", "A kitten was sitting on a rug.",
                                                     "Interest rates rose by two percent."])

    def similarity(a, b):
        return sum(x * y for x, y in zip(a, b))

    assert similarity(cat, kitten) > similarity(cat, money)
    assert abs(similarity(cat, embeddings.embed_query("A cat sat on the mat.")) - 1) < 1e-3
