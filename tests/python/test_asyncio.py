"""Thousands of coroutines over one pipeline: order, memory, cancelling."""

import asyncio
import gc
import os
import resource

import pytest

from lanner import GenerationConfig, LannerError, TurbomindEngineConfig, pipeline


def test_pieces_are_those_of_the_answer(pipe, short):
    async def read():
        pieces = [piece async for piece in pipe.generate("Name three fruits.", short)]
        return pieces, await pipe.async_infer("Name three fruits.", short)

    pieces, whole = asyncio.run(read())
    assert "".join(piece.text for piece in pieces) == whole.text
    assert pieces[-1].finish_reason == whole.finish_reason
    assert len(pieces) > 3
    assert whole.text == pipe("Name three fruits.", gen_config=short).text


def test_a_thousand_at_once_keep_their_order_and_the_memory_stays(model):
    """What the process holds grows by less than 8 MB after the first two rounds, which fill the KV cache's pages."""
    rounds = 10 if os.environ.get("LANNER_TEST_THOROUGH") == "1" else 4
    prompts = [f"Say the number {i}." for i in range(1000)]
    config = GenerationConfig(max_new_tokens=2, ignore_eos=True)

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    with pipeline(model, TurbomindEngineConfig(device="cpu", session_len=128)) as one:
        expected = [answer.token_ids for answer in one(prompts[:20], gen_config=config, do_preprocess=False)]

        async def round_trip():
            return await asyncio.gather(*(one.async_infer(prompt, config, do_preprocess=False) for prompt in prompts))

        held = []
        for _ in range(rounds):
            answers = asyncio.run(round_trip())
            assert [answer.generate_token_len for answer in answers] == [2] * 1000
            assert [answer.token_ids for answer in answers[:20]] == expected
            del answers
            gc.collect()
            held.append(resident())
        assert one.stats()["running"] == 0
        assert one.stats()["kv_blocks_used"] == 0
    assert held[-1] - held[1] < 8 << 20, [value >> 20 for value in held]


def test_a_cancelled_task_ends_its_request(pipe):
    async def read():
        async def story():
            async for _ in pipe.generate("Tell a long story.", GenerationConfig(max_new_tokens=1500)):
                pass

        task = asyncio.create_task(story())
        while pipe.stats()["running"] == 0:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(500):
            if pipe.stats()["running"] == 0:
                return
            await asyncio.sleep(0.01)

    asyncio.run(read())
    assert pipe.stats()["running"] == 0


def test_a_loop_left_early_and_an_exception_within(pipe, short):
    async def leave():
        pieces = pipe.generate("Tell a long story.", GenerationConfig(max_new_tokens=1500))
        async for _ in pieces:
            break
        await pieces.aclose()
        with pytest.raises(ZeroDivisionError):
            async for _ in pipe.generate("Tell a long story.", GenerationConfig(max_new_tokens=1500)):
                raise ZeroDivisionError
        return await pipe.async_infer("Hi.", short)

    assert asyncio.run(leave()).finish_reason in ("stop", "length")
    assert pipe.stats()["running"] == 0


def test_a_refused_prompt_is_an_answer(pipe):
    answer = asyncio.run(pipe.async_infer("x " * 5000))
    assert (answer.finish_reason, answer.error_code) == ("error", "too_long")


def test_loops_leave_nothing_behind(pipe):
    async def one():
        answers = await asyncio.gather(*(pipe.async_infer("Hi.", GenerationConfig(max_new_tokens=1)) for _ in range(3)))
        return [answer.generate_token_len for answer in answers]

    assert asyncio.run(one()) == [1, 1, 1]
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        asyncio.run(one())
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert not pipe._inboxes


def test_a_grammar_is_compiled_beside_the_loop(pipe):
    wanted = {"type": "regex_schema", "regex_schema": "(yes|no)"}
    answer = asyncio.run(pipe.async_infer("Yes or no?", GenerationConfig(response_format=wanted)))
    assert answer.text in ("yes", "no")
    with pytest.raises(ValueError, match="response_format"):
        asyncio.run(pipe.async_infer("Hi.", GenerationConfig(response_format={"type": "xml"})))


def test_a_closed_pipeline_says_so(model):
    with pipeline(model, TurbomindEngineConfig(session_len=256)) as one:
        pass
    with pytest.raises(LannerError, match="is closed"):
        asyncio.run(one.async_infer("Hi."))
