"""lanner.pipeline on the real model: what is asked and what comes back (python.md of LMDeploy's users)."""

import json
import logging
import math
import time

import numpy as np
import pytest

import lanner
from lanner import GenerationConfig, LannerError, TurbomindEngineConfig, pipeline
from lanner.messages import ChatTemplateConfig, PytorchEngineConfig, Response

PARIS = "What is the capital of France?"
GREEDY = GenerationConfig(max_new_tokens=24)


def settled(pipe):
    """The counters once nothing runs and they stay: they are those of the last step that ended."""
    last = None
    for _ in range(500):
        now = pipe.stats()
        if now["running"] == 0 and now == last:
            break
        last = now
        time.sleep(0.01)
    return now


def test_a_text_has_an_answer(pipe):
    answer = pipe(PARIS, gen_config=GREEDY)
    assert isinstance(answer, Response)
    assert answer.text == "The capital of France is Paris."
    assert answer.finish_reason == "stop"
    assert pipe.tokenizer.decode(answer.token_ids) == answer.text
    # the token that ended it is counted, but not among the ids
    assert answer.generate_token_len == len(answer.token_ids) + 1
    assert answer.input_token_len > len(pipe.tokenizer.encode(PARIS))


def test_a_list_has_answers_in_its_order(pipe, short):
    prompts = [f"Repeat the number {i}." for i in range(20)]
    answers = pipe(prompts, gen_config=short)
    assert [answer.index for answer in answers] == list(range(20))
    assert answers[7].text == pipe(prompts[7], gen_config=short).text
    assert pipe([], gen_config=short) == []


def test_conversations_are_prompts(pipe, short):
    user = [{"role": "user", "content": PARIS}]
    system = [{"role": "system", "content": "You speak like a pirate."}, *user]
    alone = pipe(system, gen_config=short)
    assert isinstance(alone, Response)
    both = pipe([system, user], gen_config=short)
    assert both[0].text == alone.text
    assert both[1].text == pipe(PARIS, gen_config=short).text
    assert both[0].input_token_len != both[1].input_token_len
    parts = [{"role": "user", "content": [{"type": "text", "text": PARIS}]}]
    assert pipe(parts, gen_config=short).text == both[1].text
    with pytest.raises(ValueError, match="role"):
        pipe([{"content": "Hi."}], gen_config=short)
    with pytest.raises(ValueError, match="a text or a list of messages"):
        pipe(["Hi.", 3], gen_config=short)
    for picture in (("What is this?", object()), ["Hi.", ("What is this?", object())]):
        with pytest.raises(LannerError, match="pictures are not available"):
            pipe(picture, gen_config=short)


def test_each_prompt_may_have_its_own_configuration(pipe):
    configs = [GenerationConfig(max_new_tokens=n) for n in (1, 3, 5)]
    answers = pipe(["Count."] * 3, gen_config=configs)
    assert [answer.generate_token_len for answer in answers] == [1, 3, 5]
    with pytest.raises(ValueError, match="3 gen_configs for 2 prompts"):
        pipe(["a", "b"], gen_config=configs)


def test_without_preprocessing_the_text_is_the_prompt(pipe, short):
    raw = pipe("The capital of France is", gen_config=short, do_preprocess=False)
    assert raw.input_token_len == len(pipe.tokenizer.encode("The capital of France is"))
    assert "Paris" in raw.text
    with pytest.raises(ValueError, match="do_preprocess"):
        pipe([{"role": "user", "content": "x"}], gen_config=short, do_preprocess=False)


def test_one_bad_prompt_fails_alone(pipe, short, caplog):
    with caplog.at_level(logging.WARNING, "lanner"):
        answers = pipe(["Hi.", "x " * 5000, "Ho."], gen_config=short)
    assert [answer.finish_reason == "error" for answer in answers] == [False, True, False]
    assert answers[1].error_code == "too_long"
    assert "context holds 2048" in answers[1].error_message
    assert "prompt 1: " in caplog.text


def test_broken_values_are_told_in_a_line(pipe, short):
    answers = pipe(["Hi.", "\ud800", [{"role": "user", "content": "\udfff"}]], gen_config=short)
    assert [answer.finish_reason == "error" for answer in answers] == [False, True, True]
    assert answers[1].error_message == "the prompt has half a character: '\\ud800'"
    for fields in ({"random_seed": -1}, {"max_new_tokens": 2**31}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            GenerationConfig(**fields)
    with pytest.raises(ValueError, match="not a dict"):
        pipe({"role": "user", "content": "x"})
    with pytest.raises(ValueError, match="gen_config is a GenerationConfig"):
        pipe("Hi.", gen_config=5)


def test_the_order_of_lmdeploy_0_3_is_understood(model):
    config, template = TurbomindEngineConfig(session_len=256), ChatTemplateConfig(capability="completion")
    for arguments in (("chatml", config), (None, config), ("chatml", config, None, "error"), ("chatml", config, template)):
        with pipeline(model, *arguments) as one:
            assert one.session_len == 256
    with pytest.raises(ValueError, match="the arguments are"):
        pipeline(model, config, 7)


def test_streamed_pieces_make_the_answer(pipe):
    pieces = list(pipe.stream_infer(PARIS, gen_config=GREEDY))
    assert "".join(piece.text for piece in pieces) == "The capital of France is Paris."
    assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]
    assert len(pieces) > 4
    lengths = [piece.generate_token_len for piece in pieces]
    assert lengths == sorted(lengths)
    assert {piece.input_token_len for piece in pieces} == {pieces[-1].input_token_len}


def test_streams_of_a_list_name_their_prompt(pipe, short):
    texts = {0: "", 1: ""}
    for piece in pipe.stream_infer(["One.", "Two."], gen_config=short):
        texts[piece.index] += piece.text
    assert list(texts.values()) == [answer.text for answer in pipe(["One.", "Two."], gen_config=short)]


def test_a_stream_left_early_ends_its_request(pipe):
    for piece in pipe.stream_infer("Tell a long story.", gen_config=GenerationConfig(max_new_tokens=1500)):
        assert piece.finish_reason is None
        break
    assert settled(pipe)["running"] == 0


def test_what_a_consumer_raises_reaches_the_caller_and_ends_the_request(pipe):
    def consume():
        for _ in pipe.stream_infer("Tell a long story.", gen_config=GenerationConfig(max_new_tokens=1500)):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert settled(pipe)["running"] == 0


def test_seeds_repeat_and_greedy_is_the_default_of_a_configuration(pipe):
    drawn = GenerationConfig(do_sample=True, temperature=1.0, random_seed=7, max_new_tokens=16)
    assert pipe("Once", gen_config=drawn).text == pipe("Once", gen_config=drawn).text
    greedy = GenerationConfig(max_new_tokens=16)
    assert pipe("Once", gen_config=greedy).text == pipe("Once", gen_config=greedy).text
    other = GenerationConfig(do_sample=True, temperature=1.0, random_seed=8, max_new_tokens=16)
    assert pipe("Once", gen_config=drawn).text != pipe("Once", gen_config=other).text


def test_top_k_without_do_sample_samples():
    assert GenerationConfig(top_k=40).do_sample is True
    assert GenerationConfig(top_k=1).do_sample is False
    assert GenerationConfig(top_k=40, do_sample=False).do_sample is False
    assert (GenerationConfig().top_k, GenerationConfig().top_p, GenerationConfig().temperature) == (50, 1.0, 0.8)


@pytest.mark.parametrize(
    "fields", [{"n": 0}, {"top_p": 1.5}, {"top_k": -1}, {"temperature": 3}, {"min_p": -0.1}, {"logprobs": 2000}]
)
def test_configurations_are_checked(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        GenerationConfig(**fields)


def test_stops(pipe):
    words = pipe(PARIS, gen_config=GenerationConfig(max_new_tokens=24, stop_words=[" is"]))
    assert (words.text, words.finish_reason) == ("The capital of France", "stop")
    kept = GenerationConfig(max_new_tokens=24, stop_words=[" is"], include_stop_str_in_output=True)
    assert pipe(PARIS, gen_config=kept).text == "The capital of France is"
    token = pipe.tokenizer.encode(" France")[0]
    assert pipe(PARIS, gen_config=GenerationConfig(max_new_tokens=24, stop_token_ids=[token])).text == "The capital of"
    banned = GenerationConfig(max_new_tokens=24, bad_token_ids=pipe.tokenizer.encode(" Paris"))
    assert "Paris" not in pipe(PARIS, gen_config=banned).text
    assert "Paris" not in pipe(PARIS, gen_config=GenerationConfig(max_new_tokens=24, bad_words=["Paris"])).text


def test_logprobs_and_logits_say_the_same(pipe):
    config = GenerationConfig(max_new_tokens=4, logprobs=3, output_logits="generation")
    answer = pipe("Name a fruit.", gen_config=config)
    assert answer.logits.shape == (4, pipe._live().vocab_size)
    assert [len(row) for row in answer.logprobs] == [3] * 4
    rows = answer.logits.astype(np.float64)
    rows -= np.log(np.exp(rows - rows.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True)) + rows.max(
        axis=1, keepdims=True
    )
    for row, token, logprobs in zip(rows, answer.token_ids, answer.logprobs, strict=True):
        assert token == int(row.argmax())
        for one, value in logprobs.items():
            assert value == pytest.approx(row[one], abs=1e-4)


def test_all_logits_are_those_of_the_prompt_and_the_answer(pipe):
    answer = pipe("Hi.", gen_config=GenerationConfig(max_new_tokens=2, output_logits="all"))
    assert answer.logits.shape[0] in (answer.input_token_len + 1, answer.input_token_len + 2)


def test_answers_follow_a_schema(pipe):
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    answer = pipe(PARIS, gen_config=GenerationConfig(max_new_tokens=60, response_format=wanted))
    assert set(json.loads(answer.text)) == {"city"}
    regex = {"type": "regex_schema", "regex_schema": "(yes|no)"}
    assert pipe(PARIS, gen_config=GenerationConfig(response_format=regex)).text in ("yes", "no")
    with pytest.raises(ValueError, match=r"response_format\.type"):
        pipe(PARIS, gen_config=GenerationConfig(response_format={"type": "xml"}))


def test_a_conversation_has_what_was_said(pipe):
    config = GenerationConfig(max_new_tokens=40)
    session = pipe.chat("My favourite colour is green.", gen_config=config)
    first = session.response
    session = pipe.chat("What is my favourite colour?", session, gen_config=config)
    said = [
        {"role": "user", "content": "My favourite colour is green."},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "What is my favourite colour?"},
    ]
    assert session.response.text == pipe(said, gen_config=config).text
    assert session.response.input_token_len == pipe(said, gen_config=config).input_token_len
    assert session.response.cached_tokens > 0
    assert session.history == [(said[0]["content"], first.text), (said[2]["content"], session.response.text)]
    assert str(session).startswith("USER: \nMy favourite colour")
    with session:
        pass
    assert session.history == []


def test_a_streamed_conversation_can_be_aborted(pipe):
    session = pipe.session()
    config = GenerationConfig(max_new_tokens=1500)
    for count, piece in enumerate(pipe.chat("Tell a long story.", session, config, stream_response=True)):
        assert piece.session_id == session.session_id
        if count == 5:
            session.abort()
    assert session.response.finish_reason == "abort"
    assert 5 <= session.response.generate_token_len <= 60
    assert len(session.history) == 1


def test_perplexity_is_that_of_the_logits(pipe):
    ids = pipe.tokenizer.encode("The capital of France is Paris, and that of Italy is Rome.")
    (loss,) = pipe.get_ppl(ids)
    rows = pipe.get_logits(ids)[0].astype(np.float64)
    logs = rows - rows.max(axis=1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
    expected = -np.mean([logs[i, token] for i, token in enumerate(ids[1:])])
    assert loss == pytest.approx(expected, rel=1e-5)
    assert pipe.get_ppl([ids, ids[:5]])[0] == pytest.approx(loss, rel=1e-6)
    with pytest.raises(ValueError):
        pipe.get_ppl([[1]])


def test_embeddings(pipe):
    vectors = pipe.get_embeddings(["A cat sat on the mat.", "A kitten lay on the rug.", "Interest rates rose by 2 %."])
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-4)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    last = pipe.get_embeddings("A cat.", pooling="last", normalize=False)
    assert last.shape == (1, vectors.shape[1])
    assert not math.isclose(float(np.linalg.norm(last)), 1.0, abs_tol=0.01)


def test_repr_is_that_of_the_course(pipe, short):
    answers = pipe(["Hi, pls intro yourself", "上海是"], gen_config=short)
    text = str(answers)
    assert text.startswith("[Response(text=")
    assert text.count("session_id=") == 2
    assert "token_ids" not in text


def test_calls_of_lmdeploy_0_3_are_understood(pipe):
    answer = pipe("Count.", request_output_len=3, top_k=1)
    assert answer.generate_token_len == 3
    assert [one.generate_token_len for one in pipe.batch_infer("Count.", gen_config=GenerationConfig(max_new_tokens=2))] == [2]
    with pytest.raises(ValueError, match="requst_output_len"):
        pipe("Count.", requst_output_len=3)
    with pytest.raises(ValueError, match="gen_config"):
        pipe("Count.", GenerationConfig(), top_k=1)


def test_what_cannot_be_done_is_refused(model, pipe):
    for config in (TurbomindEngineConfig(tp=2), TurbomindEngineConfig(rope_scaling_factor=2.0)):
        with pytest.raises(LannerError, match="not available"):
            pipeline(model, config)
    with pytest.raises(LannerError, match="not available"):
        pipeline(model, speculative_config=lanner.SpeculativeConfig("eagle3"))
    with pytest.raises(LannerError, match="adapters"):
        pipe("Hi.", adapter_name="mine")
    with pytest.raises(LannerError, match="return_ppl is not available"):
        GenerationConfig(return_ppl=True)
    with pytest.raises(ValueError, match="n must be 1"):
        pipe("Hi.", gen_config=GenerationConfig(n=2))
    with pytest.raises(ValueError, match="dtype must be one of"):
        pipeline(model, TurbomindEngineConfig(dtype="int3"))
    for fields in ({"cache_max_entry_count": 1.5}, {"quant_policy": 3}, {"tp": 0}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            TurbomindEngineConfig(**fields)


def test_ignored_fields_are_told(model, caplog):
    with caplog.at_level(logging.WARNING, "lanner"), pipeline(model, PytorchEngineConfig(prefill_interval=3)) as other:
        assert other("Hi.", gen_config=GenerationConfig(max_new_tokens=1)).generate_token_len == 1
    assert "prefill_interval has no meaning here" in caplog.text


def test_no_such_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        pipeline(str(tmp_path / "nowhere"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\xff" * 40)
    with pytest.raises(LannerError, match=r"broken\.gguf"):
        pipeline(str(tmp_path / "broken.gguf"))


def test_a_closed_pipeline_says_so(model):
    with pipeline(model, TurbomindEngineConfig(session_len=256)) as one:
        stream = one.stream_infer("Tell a long story.", gen_config=GenerationConfig(max_new_tokens=200))
        next(stream)
        one.close()
        one.close()
        assert [piece.finish_reason for piece in stream][-1] == "abort"
    with pytest.raises(LannerError, match="is closed"):
        one("Hi.")


def test_templates_of_ones_own(model, tmp_path):
    template = ChatTemplateConfig(user="Q: ", eoh="\nA:", stop_words=["Q:"])
    path = tmp_path / "template.json"
    template.to_json(str(path))
    assert ChatTemplateConfig.from_json(str(path)) == template
    with pipeline(model, chat_template_config=template) as one:
        asked = one("Who?", gen_config=GenerationConfig(max_new_tokens=1))
        assert asked.input_token_len == len(one.tokenizer.encode("Q: Who?\nA:"))
    with pipeline(model, chat_template_config=ChatTemplateConfig(capability="completion")) as one:
        asked = one("Who?", gen_config=GenerationConfig(max_new_tokens=1))
        assert asked.input_token_len == len(one.tokenizer.encode("Who?"))
    with pipeline(model, model_name="chatml") as one:
        assert "Paris" in one(PARIS, gen_config=GREEDY).text
    with pytest.raises(FileNotFoundError, match="internlm"):
        pipeline(model, chat_template_config=ChatTemplateConfig("internlm7"))
    with pytest.raises(ValueError, match="no field colour"):
        ChatTemplateConfig.from_json('{"colour": "red"}')


def test_the_plan_and_the_counters(pipe, short):
    plan = pipe.memory_plan()
    assert plan["kv_tokens"] >= 2048
    before = settled(pipe)["generated_tokens"]
    pipe("Hi.", gen_config=GenerationConfig(max_new_tokens=5, ignore_eos=True))
    assert settled(pipe)["generated_tokens"] == before + 5
    assert (pipe.session_len, pipe.model_name != "") == (2048, True)
