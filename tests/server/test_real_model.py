"""lanner serve api_server with the real 135M model.

Needs LANNER_TEST_GGUF; `make test` sets it.
"""

import base64
import json
import math
import os
import re
import signal
import ssl
import subprocess
import urllib.error
import urllib.request

import numpy as np
import openai
import pytest

from server_process import BINARY, Server

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(real):
    return real.client()


def greedy(client, messages=FRANCE, **more):
    return client.chat.completions.create(model="small", messages=messages, temperature=0, **{"max_tokens": 16, **more})


def test_it_answers(client):
    assert greedy(client).choices[0].message.content == "The capital of France is Paris."
    streamed = greedy(client, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == "The capital of France is Paris."


def test_the_second_time_the_prompt_is_cached(client):
    long = [{"role": "user", "content": "Please remember these words: " + "apple banana cherry " * 40}]
    greedy(client, long)
    usage = greedy(client, long).usage
    assert 0 < usage.prompt_tokens_details.cached_tokens < usage.prompt_tokens


def test_a_seed_repeats(client):
    def ask(seed):
        answer = client.chat.completions.create(model="small", messages=FRANCE, temperature=1.5, top_p=1, max_tokens=24,
                                                seed=seed, n=2)
        return [choice.message.content for choice in answer.choices]

    assert ask(7) == ask(7)
    assert ask(7) != ask(8)


def test_logprobs_are_those_of_the_model(client):
    content = greedy(client, logprobs=True, top_logprobs=5).choices[0].logprobs.content
    assert "".join(token.token for token in content) == "The capital of France is Paris."
    for token in content:
        assert token.top_logprobs[0].token == token.token and token.top_logprobs[0].logprob == token.logprob
        assert sum(math.exp(other.logprob) for other in token.top_logprobs) <= 1.0001
        assert bytes(token.bytes).decode() == token.token


def test_a_bias_forbids_a_token(client, real):
    ids = json.loads(real.ask("/tokenize", {"prompt": " Paris", "add_special_tokens": False})[2])["tokens"]
    assert len(ids) == 1
    assert "Paris" not in greedy(client, logit_bias={str(ids[0]): -100}).choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="logit_bias"):
        greedy(client, logit_bias={"1000000": 1})


def test_a_prompt_beyond_the_context(client):
    with pytest.raises(openai.BadRequestError) as caught:
        greedy(client, [{"role": "user", "content": "word " * 2000}])
    assert caught.value.code == "context_length_exceeded"
    assert greedy(client).choices[0].message.content == "The capital of France is Paris."


def test_embeddings(client):
    texts = ["A cat sat on the mat.", "A kitten was sitting on a rug.", "Interest rates rose by two percent."]
    for encoding in ("float", "base64", None):
        more = {"encoding_format": encoding} if encoding else {}
        answer = client.embeddings.create(model="small", input=texts, **more)
        vectors = [entry.embedding for entry in answer.data]
        if encoding == "base64":  # which the client only decodes where it has asked for it itself
            vectors = [np.frombuffer(base64.b64decode(vector), "<f4").tolist() for vector in vectors]
        assert [entry.index for entry in answer.data] == [0, 1, 2]
        assert all(abs(sum(x * x for x in vector) - 1) < 1e-4 for vector in vectors)
        dot = [sum(a * b for a, b in zip(vectors[0], vectors[i])) for i in (1, 2)]
        assert dot[0] > dot[1]
    assert answer.usage.prompt_tokens > 10


def test_perplexity_is_the_logprobs(client, real):
    text = "The quick brown fox jumps over the lazy dog"
    loss = json.loads(real.ask("/get_ppl", {"input": text})[2])["ppl"]
    assert 2 < loss < 6
    assert real.ask("/get_ppl", {"input": [5]})[0] == 400


def test_a_session_is_a_conversation(client, real):
    def say(prompt, **more):
        body = {"prompt": prompt, "session_id": 3, "interactive_mode": True, "request_output_len": 24, "temperature": 0}
        return json.loads(real.ask("/v1/chat/interactive", {**body, **more})[2])

    first = say("My name is Robert.")
    second = say("What is my name?")
    assert second["history_tokens"] == first["input_tokens"] + first["tokens"]
    whole = [{"role": "user", "content": "My name is Robert."}, {"role": "assistant", "content": first["text"]},
             {"role": "user", "content": "What is my name?"}]
    assert second["text"] == greedy(client, whole, max_tokens=24).choices[0].message.content
    assert say("", interactive_mode=False, request_output_len=0)["text"] == ""


def test_metrics(real):
    text = real.ask("/metrics")[2].decode()
    for name in ("num_requests_running", "kv_cache_usage_perc", "prompt_tokens_total", "time_to_first_token_seconds_count"):
        assert re.search(rf'^lanner:{name}{{model_name="small"}} ', text, re.MULTILINE), name


def test_keys_tls_and_ctrl_c(model, tmp_path):
    certificate, key, keys = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "keys"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days",
                    "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    keys.write_text("from-file\n")
    environment = {**os.environ, "LANNER_API_KEY": "from-environment", "SSL_CERTFILE": str(certificate),
                   "SSL_KEYFILE": str(key)}
    server = Server([BINARY, "serve", "api_server", model, "--server-port", "0", "--ssl", "--api-keys", "from-flag",
                     "--api-key-file", keys, "--session-len", "256", "--cache-max-entry-count", "0.02", "--server-name",
                     "localhost"], environment)
    try:
        context = ssl.create_default_context(cafile=certificate)
        for given in ("from-file", "from-environment", "from-flag", "wrong"):
            request = urllib.request.Request(f"https://localhost:{server.port}/v1/models",
                                             headers={"Authorization": f"Bearer {given}"})
            try:
                status = urllib.request.urlopen(request, context=context, timeout=30).status
            except urllib.error.HTTPError as error:
                status = error.code
            assert status == (401 if given == "wrong" else 200), given
    finally:
        assert server.stop(signal.SIGINT) == 0
    assert "Finished server process" in server.output


WRONG = [
    (["--tool-call-parser", "nobody"], "there are internlm"),
    (["--reasoning-parser", "x"], "there are default"), (["--proxy-url", "http://x/y"], "--proxy-url"),
    (["--nnodes", "2"], "--nnodes 2"), (["--ssl"], "--ssl needs a certificate"),
    (["--api-key-file", "/no/such/file"], "/no/such/file"),
    (["--allow-terminate-by-client"], "need an API key"), (["--server-name", "no.such.host.invalid"], "cannot listen"),
]


def test_a_model_behind_a_list_is_not_a_key(model):
    done = subprocess.run([BINARY, "serve", "api_server", "--server-port", "0", "--api-keys", "secret", model],
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "put MODEL in front" in done.stderr


@pytest.mark.parametrize("flags, message", WRONG)
def test_what_cannot_be_is_said(model, flags, message):
    done = subprocess.run([BINARY, "serve", "api_server", model, "--server-port", "0", "--session-len", "256",
                           "--cache-max-entry-count", "0.02", *flags], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
