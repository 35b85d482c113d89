"""lanner.api_client and lanner.serving, against the program with the real model, and against servers that misbehave."""

import http.server
import json
import os
import pathlib
import subprocess
import threading
import time
import urllib.request
from dataclasses import dataclass

import pytest

from lanner import serving
from lanner.api_client import APIClient
from lanner.errors import InvalidArgumentError, LannerError, ModelNotFoundError
from lanner.serving import client as client_of
from lanner.serving import engine_flags, serve

KEY = "a-key-of-the-tests"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
SMALL = {"session_len": 1024, "cache_max_entry_count": 0.03}


@pytest.fixture(scope="module")
def served(model):
    before = os.environ.get("LANNER_PROGRAM")
    os.environ["LANNER_PROGRAM"] = os.environ["LANNER_BINARY"]
    with serve(model, "small", server_port=0, api_keys=KEY, **SMALL) as client:
        yield client
    assert client.server.returncode == 0
    if before is None:
        del os.environ["LANNER_PROGRAM"]
    else:
        os.environ["LANNER_PROGRAM"] = before


@pytest.fixture
def misbehaving():
    """misbehaving(answer) is the URL of a server whose answer(handler) does what it likes with every request."""
    servers = []

    def start(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answer(self)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def reply(status, body, kind="application/json", length=None):
    """An answer for `misbehaving`."""

    def answer(handler):
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_available_models(served):
    assert served.available_models == ["small"]


@pytest.mark.parametrize("written", ["127.0.0.1:{}", "localhost:{}/", "http://0.0.0.0:{}", "http://127.0.0.1:{}///"])
def test_ways_to_write_an_address(served, written):
    assert client_of(written.format(served.server.port), KEY).available_models == ["small"]


@pytest.mark.parametrize(
    "url", ["", "http://", "ftp://localhost", "localhost:port", "http://localhost:99999", "http://[::1"]
)
def test_what_is_no_address(url):
    with pytest.raises(InvalidArgumentError, match="is no URL such as"):
        APIClient(url)


def test_encode(served):
    ids, length = served.encode("Hello world")
    assert length == len(ids) > 1 and all(type(one) is int for one in ids)
    assert served.encode(["Hello world", ""]) == ([ids, []], [length, 0])
    rendered, more = served.encode("Hello world", do_preprocess=True)
    assert more > length and len(rendered) == more


def test_chat_completions(served):
    answers = list(served.chat_completions_v1("small", QUESTION, temperature=0))
    assert len(answers) == 1
    choice = answers[0]["choices"][0]
    assert choice["message"]["content"] == "The capital of France is Paris."
    assert choice["finish_reason"] == "stop"


def test_chat_completions_streamed(served):
    pieces = list(served.chat_completions_v1("small", QUESTION, temperature=0, stream=True))
    texts = [piece["choices"][0]["delta"].get("content") or "" for piece in pieces]
    assert "".join(texts) == "The capital of France is Paris."
    assert sum(1 for text in texts if text) >= 4
    assert pieces[-1]["choices"][0]["finish_reason"] == "stop"


def test_every_argument_of_a_chat_reaches_the_server(served):
    answer = next(
        served.chat_completions_v1(
            "small",
            QUESTION,
            temperature=0,
            top_p=0.5,
            logprobs=True,
            top_logprobs=2,
            n=2,
            max_tokens=4,
            stop=["Paris"],
            presence_penalty=0.1,
            frequency_penalty=0.1,
            user="somebody",
            repetition_penalty=1.1,
            ignore_eos=True,
            skip_special_tokens=False,
            seed=7,
            top_k=5,
            min_new_tokens=1,
        )
    )
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    logprobs = answer["choices"][0]["logprobs"]["content"]
    assert len(logprobs) == 4 and len(logprobs[0]["top_logprobs"]) == 2
    assert answer["choices"][0]["finish_reason"] == "length"
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    }
    held = next(
        served.chat_completions_v1(
            "small",
            QUESTION,
            temperature=0,
            max_tokens=60,
            response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema}},
        )
    )
    assert set(json.loads(held["choices"][0]["message"]["content"])) == {"city"}


def test_completions(served):
    (answer,) = served.completions_v1("small", "1, 2, 3, 4,", temperature=0)
    assert answer["choices"][0]["text"].startswith(" 5, 6")
    assert answer["usage"]["completion_tokens"] == 16
    pieces = list(served.completions_v1("small", "1, 2, 3, 4,", temperature=0, stream=True, stop=[" 7"]))
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == " 5, 6,"
    (two,) = served.completions_v1("small", ["One", "Two"], max_tokens=2, top_k=1)
    assert len(two["choices"]) == 2


def test_interactive(served):
    (answer,) = served.chat_interactive_v1("My name is Anna.", session_id=3, interactive_mode=True, top_k=1)
    assert answer["finish_reason"] == "stop" and answer["text"] and answer["history_tokens"] == 0
    pieces = list(
        served.chat_interactive_v1(
            "What is my name?", session_id=3, interactive_mode=True, stream=True, top_k=1, request_output_len=12
        )
    )
    assert len(pieces) > 2
    assert [piece["finish_reason"] for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1]["history_tokens"] == answer["input_tokens"] + answer["tokens"]
    assert pieces[-1]["tokens"] <= 12
    served.end_session(3)
    (again,) = served.chat_interactive_v1("Hello", session_id=3, request_output_len=1)
    assert again["history_tokens"] == 0


def test_chat_of_several_turns(served):
    first = list(served.chat("Name a colour.", 5, request_output_len=8, top_k=1))
    assert [len(first), type(first[0][0]), first[0][1] > 0] == [1, str, True]
    pieces = list(served.chat("Another one.", 5, request_output_len=8, stream=True, top_k=1))
    assert pieces[-1][2] in ("stop", "length")
    assert [tokens for _, tokens, _ in pieces] == sorted(tokens for _, tokens, _ in pieces)
    full = list(served.chat("word " * 2000, 5))
    assert full == [("", 0, "length")]
    served.end_session(5)
    with pytest.raises(InvalidArgumentError, match="session_id"):
        next(served.chat("Hello", -1))


@pytest.mark.parametrize(
    "ask, kind, code, message",
    [
        (
            lambda c: c.chat_completions_v1("other", QUESTION),
            ModelNotFoundError,
            "not_found",
            r"^The model 'other' does not exist\.$",
        ),
        (
            lambda c: c.chat_completions_v1("small", QUESTION, temperature=3),
            InvalidArgumentError,
            "invalid_argument",
            r"^temperature: must be between 0 and 2$",
        ),
        (
            lambda c: c.chat_completions_v1("small", QUESTION, stream=True, top_p=-1),
            InvalidArgumentError,
            "invalid_argument",
            r"^top_p: ",
        ),
        (
            lambda c: c.chat_completions_v1("small", "word " * 2000),
            InvalidArgumentError,
            "too_long",
            r"the prompt has \d+ tokens",
        ),
        (
            lambda c: c.completions_v1("small", "x", no_such_field=1),
            InvalidArgumentError,
            "invalid_argument",
            "no_such_field",
        ),
        (
            lambda c: c.chat_completions_v1("small", [{"role": object()}]),
            InvalidArgumentError,
            "invalid_argument",
            "cannot be written as JSON",
        ),
    ],
)
def test_the_servers_message_is_the_errors(served, ask, kind, code, message):
    with pytest.raises(kind, match=message) as caught:
        list(ask(served))
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_a_wrong_key(served):
    for key in (None, "another"):
        with pytest.raises(LannerError, match=r"^Unauthorized\.$") as caught:
            _ = APIClient(served.api_server_url, key).available_models
        assert caught.value.code == "unauthorized"
    with pytest.raises(InvalidArgumentError, match="api_key"):
        APIClient(served.api_server_url, "two\r\nlines")


def test_a_generator_that_is_closed_cancels_the_answer(served):
    def running():
        request = urllib.request.Request(served.api_server_url + "/metrics", headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(request) as page:
            return next(
                float(line.split()[-1])
                for line in page.read().decode().splitlines()
                if line.startswith("lanner:num_requests_running")
            )

    pieces = served.chat_completions_v1("small", QUESTION, stream=True, ignore_eos=True, max_tokens=900)
    next(pieces)
    next(pieces)
    assert running() == 1
    pieces.close()
    until = time.monotonic() + 5
    while running() != 0:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_nothing_is_sent_before_the_first_item_is_taken():
    APIClient("http://127.0.0.1:9").chat_completions_v1("m", QUESTION)


def test_pieces_come_as_they_are_made(misbehaving):
    go_on = threading.Event()

    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b': a comment\r\nevent: x\r\ndata: {"a":\r\ndata: 1}\r\n\r\n')
        assert go_on.wait(10)
        handler.wfile.write(b'data:{"a":2}\n\ndata: [DONE]\n\nthis is not read\n')

    pieces = APIClient(misbehaving(answer)).completions_v1("m", "x", stream=True)
    assert next(pieces) == {"a": 1}
    go_on.set()
    assert list(pieces) == [{"a": 2}]


@pytest.mark.parametrize(
    "answer, code, message",
    [
        (reply(500, b"<html>"), "internal", r"/v1/completions: HTTP 500 Internal Server Error$"),
        (reply(400, b'{"object": "error", "message": "two\\nlines", "code": 400}'), "invalid_argument", r"^two lines$"),
        (reply(422, b'{"detail": "of another make"}'), "invalid_argument", r"^of another make$"),
        (reply(429, b'{"error": "in short"}'), "resource_exhausted", r"^in short$"),
        (reply(200, b"[1]"), "corrupt", r"/v1/completions: the answer is no JSON object: '\[1\]'$"),
        (reply(200, b"\xff\xfe{"), "corrupt", "the answer is no JSON object"),
        (reply(200, b"[" * 100_000), "corrupt", "the answer is no JSON object"),
        (
            reply(200, b'{"choices"', length=100),
            "unavailable",
            r"/v1/completions: the answer broke off before its end$",
        ),
    ],
)
def test_answers_that_are_wrong(misbehaving, answer, code, message):
    with pytest.raises(LannerError, match=message) as caught:
        list(APIClient(misbehaving(answer)).completions_v1("m", "x"))
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "stream, code, message",
    [
        (b'data: {"choices": []}\n\n', "unavailable", r"^the stream broke off before its end$"),
        (
            b'data: {"choices": []}\n\ndata: {"error": {"message": "out of memory"}}\n\ndata: [DONE]\n\n',
            "internal",
            r"^out of memory$",
        ),
        (b'data: {"choices": []}\n\ndata: nonsense\n\n', "corrupt", "is no JSON object: 'nonsense'"),
    ],
)
def test_streams_that_are_wrong(misbehaving, stream, code, message):
    pieces = APIClient(misbehaving(reply(200, stream, "text/event-stream"))).completions_v1("m", "x", stream=True)
    assert next(pieces) == {"choices": []}
    with pytest.raises(LannerError, match=message) as caught:
        list(pieces)
    assert caught.value.code == code


def test_an_interactive_stream_that_fails(misbehaving):
    stream = b'{"text": "a", "tokens": 1, "finish_reason": null}\n{"error": {"message": "gone"}, "message": "gone"}\n'
    pieces = APIClient(misbehaving(reply(200, stream))).chat("x", 1, stream=True)
    assert next(pieces) == ("a", 1, None)
    with pytest.raises(LannerError, match="^gone$"):
        list(pieces)
    pieces = APIClient(misbehaving(reply(200, b'{"text": "a", "tokens": 1, "finish_reason": null}\n'))).chat(
        "x", 1, stream=True
    )
    assert next(pieces) == ("a", 1, None)
    with pytest.raises(LannerError, match="^the stream broke off before its end$"):
        list(pieces)
    stream = b'{"text": "a"}\n'
    with pytest.raises(LannerError, match="an answer without 'tokens'"):
        list(APIClient(misbehaving(reply(200, stream))).chat("x", 1, stream=True))


def test_a_line_without_end_is_not_kept(misbehaving, monkeypatch):
    monkeypatch.setattr("lanner.api_client._MAX_LINE_BYTES", 1000)
    for stream in (False, True):
        with pytest.raises(LannerError, match="has more than") as caught:
            list(APIClient(misbehaving(reply(200, b"x" * 2000))).completions_v1("m", "x", stream=stream))
        assert caught.value.code == "corrupt"


def test_silence(misbehaving):
    go_on = threading.Event()
    client = APIClient(misbehaving(lambda handler: go_on.wait(10)), timeout_s=0.2)
    with pytest.raises(LannerError, match="no answer within 0.2 seconds") as caught:
        _ = client.available_models
    assert caught.value.code == "timeout"
    go_on.set()


def test_nobody_there():
    with pytest.raises(LannerError, match=r"^http://127.0.0.1:9/v1/models: Connection refused$") as caught:
        _ = APIClient("127.0.0.1:9").available_models
    assert caught.value.code == "unavailable"


def test_a_key_goes_to_no_other_server(misbehaving):
    seen = []
    elsewhere = misbehaving(lambda handler: seen.append(handler.headers["Authorization"]))

    def redirect(handler):
        handler.send_response(302)
        handler.send_header("Location", elsewhere + "/v1/models")
        handler.end_headers()

    with pytest.raises(LannerError, match="HTTP 302"):
        _ = APIClient(misbehaving(redirect), "secret").available_models
    assert seen == []


def test_a_proxy_is_not_asked_for_this_machine(served, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert APIClient(served.api_server_url, KEY).available_models == ["small"]


def test_fields_that_other_servers_do_not_know_are_left_out(misbehaving):
    seen = []

    def answer(handler):
        seen.append(json.loads(handler.body))
        reply(200, b'{"choices": []}')(handler)

    client = APIClient(misbehaving(answer))
    list(client.chat_completions_v1("m", QUESTION))
    list(client.chat_completions_v1("m", QUESTION, session_id=2, ignore_eos=True, skip_special_tokens=False))
    assert not {"session_id", "ignore_eos", "skip_special_tokens", "logprobs", "stop", "max_tokens"} & set(seen[0])
    assert (seen[1]["session_id"], seen[1]["ignore_eos"], seen[1]["skip_special_tokens"]) == (2, True, False)


class Config:
    """An engine configuration by its attributes' names alone."""

    def __init__(self, **fields):
        self.__dict__.update(fields)


def test_flags_of_an_engine_configuration():
    @dataclass
    class Engine:
        model_format: str | None = None
        cache_max_entry_count: float = 0.8
        quant_policy: int = 0
        enable_prefix_caching: bool | None = None
        enable_metrics: bool = True
        async_: int = 1
        hf_overrides: dict | None = None
        adapters: dict | None = None
        empty_init: bool = False
        use_logn_attn: bool = False

    assert engine_flags(None) == engine_flags(Engine()) == []
    assert engine_flags(Engine("awq", 0.4, 8, False, False, 0, {"a": {"b": 1}}, {"x": "/p", "y": "/q"})) == [
        "--model-format=awq",
        "--cache-max-entry-count=0.4",
        "--quant-policy=8",
        "--disable-prefix-caching",
        "--disable-metrics",
        "--async=0",
        '--hf-overrides={"a": {"b": 1}}',
        "--adapters",
        "x=/p",
        "y=/q",
    ]
    assert engine_flags(Engine(enable_prefix_caching=True)) == ["--enable-prefix-caching"]
    assert engine_flags(Config(session_len=512, tp=2)) == ["--tp=2", "--session-len=512"]
    with pytest.raises(LannerError, match="use_logn_attn=True is not available"):
        engine_flags(Engine(use_logn_attn=True))


def test_fields_without_a_meaning_are_told(caplog):
    @dataclass
    class Engine:
        empty_init: bool = False

    assert engine_flags(Engine(empty_init=True)) == []
    assert "empty_init has no meaning here" in caplog.text


def test_every_flag_is_one_of_the_program():
    help_text = subprocess.run(
        [os.environ["LANNER_BINARY"], "serve", "api_server", "--help"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    flags = {
        *serving._VALUES.values(),
        *(flag for pair in serving._SWITCHES.values() for flag in pair if flag),
        "--adapters",
    }
    assert {flag for flag in flags if f"  {flag} " not in help_text and f"  {flag}\n" not in help_text} == set()


def test_serve_takes_configurations_and_flags(model, monkeypatch):
    monkeypatch.setenv("LANNER_PROGRAM", os.environ["LANNER_BINARY"])

    class Template:
        model_path = None

        @staticmethod
        def to_json():
            return '{"model_name": "chatml", "meta_instruction": "Speak, friend."}'

    config = Config(session_len=300, cache_max_entry_count=0.02, quant_policy=8, threads=1)
    with serve(
        model, server_port=0, backend_config=config, chat_template_config=Template(), max_queue=5, access_log=True
    ) as client:
        assert client.available_models == [pathlib.Path(model).name]
        assert client_of(f"http://0.0.0.0:{client.server.port}").available_models == client.available_models
        _, length = client.encode("Hi", do_preprocess=True)
        _, bare = client.encode("Speak, friend.")
        assert length > bare
        words = pathlib.Path(f"/proc/{client.server.pid}/cmdline").read_bytes().split(b"\0")
        assert b"--max-queue=5" in words and b"--access-log" in words and b"--quant-policy=8" in words
        with pytest.raises(InvalidArgumentError, match="300"):
            list(client.completions_v1("", "word " * 400))
    assert client.server.returncode == 0


def test_serve_says_why_not(model, monkeypatch):
    monkeypatch.setenv("LANNER_PROGRAM", os.environ["LANNER_BINARY"])
    with pytest.raises(LannerError, match="^/no/such/model: "):
        serve("/no/such/model", server_port=0)
    with pytest.raises(InvalidArgumentError, match="backend"):
        serve(model, backend="tensorrt")
    with pytest.raises(InvalidArgumentError, match="chat_template_config: a int is no chat template"):
        serve(model, chat_template_config=3)
    monkeypatch.setenv("SSL_CERTFILE", "/no/such/file")
    with pytest.raises(LannerError, match="SSL_CERTFILE: /no/such/file: No such file"):
        serve(model, ssl=True)


def test_tls(model, monkeypatch, tmp_path):
    monkeypatch.setenv("LANNER_PROGRAM", os.environ["LANNER_BINARY"])
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            tmp_path / "key.pem",
            "-out",
            tmp_path / "certificate.pem",
            "-days",
            "2",
            "-subj",
            "/CN=example.com",
        ],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    monkeypatch.setenv("SSL_CERTFILE", str(tmp_path / "certificate.pem"))
    monkeypatch.setenv("SSL_KEYFILE", str(tmp_path / "key.pem"))
    with serve(model, "small", server_port=0, ssl=True, **SMALL) as client:
        assert client.api_server_url.startswith("https://")
        assert client.available_models == ["small"]
        with pytest.raises(LannerError, match="CERTIFICATE_VERIFY_FAILED"):
            _ = APIClient(client.api_server_url).available_models
