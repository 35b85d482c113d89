"""A server with the real model that gives its memory back and comes again."""
import json
import pathlib

import openai
import pytest

from server_process import BINARY, Server

KEY = {"Authorization": "Bearer secret"}
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


def resident_bytes(server):
    return int(pathlib.Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096


@pytest.fixture(scope="module")
def sleepy(model):
    server = Server([BINARY, "serve", "api_server", model, "--server-port", "0", "--model-name", "small", "--session-len", "512",
                     "--cache-max-entry-count", "0.02", "--enable-sleep", "--api-keys", "secret"])
    yield server
    code = server.stop()
    assert code == 0, server.output


def test_memory_goes_and_comes(sleepy):
    client = sleepy.client("secret")

    def ask():
        return client.chat.completions.create(model="small", messages=FRANCE, temperature=0, max_tokens=16).choices[0].message.content

    assert ask() == "The capital of France is Paris."
    awake = resident_bytes(sleepy)
    for _ in range(2):
        assert sleepy.ask("/sleep?level=1", method="POST", headers=KEY)[0] == 200
        assert json.loads(sleepy.ask("/is_sleeping", headers=KEY)[2]) == {"is_sleeping": True}
        assert resident_bytes(sleepy) < awake / 2
        with pytest.raises(openai.InternalServerError, match="wakeup") as caught:
            ask()
        assert caught.value.status_code == 503
        assert json.loads(sleepy.ask("/health")[2])["status"] == "sleeping"
        assert sleepy.ask("/wakeup?tags=weights&tags=kv_cache", method="POST", headers=KEY)[0] == 200
        assert ask() == "The capital of France is Paris."


def test_an_answer_under_way_ends(sleepy):
    client = sleepy.client("secret")
    stream = client.chat.completions.create(model="small", messages=FRANCE, stream=True, max_tokens=400, extra_body={"ignore_eos": True})
    next(iter(stream))
    assert sleepy.ask("/sleep", method="POST", headers=KEY)[0] == 200
    assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "abort"
    assert sleepy.ask("/wakeup", method="POST", headers=KEY)[0] == 200


def test_it_is_guarded(sleepy, real):
    assert sleepy.ask("/sleep", method="POST")[0] == 401
    assert real.ask("/sleep", method="POST")[0] == 403
    assert json.loads(real.ask("/is_sleeping")[2]) == {"is_sleeping": False}
