"""The server as a process: overload, its end, hostile input, the API's description of itself."""

import concurrent.futures
import http.client
import json
import random
import socket
import threading
import time

import pytest

from api_description import EXAMPLES, Description

HI = {"messages": [{"role": "user", "content": "Hi"}]}


def chat_body(content, **more):
    return {"messages": [{"role": "user", "content": content}], **more}


def test_overload_is_answered_at_once(start_probe):
    server = start_probe("--places", 8)

    def ask(_):
        begin = time.monotonic()
        status, headers, body = server.ask("/v1/chat/completions", chat_body("[slow] [endless]", max_tokens=20))
        return status, headers.get("Retry-After"), time.monotonic() - begin, json.loads(body)

    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(ask, range(40)))
    assert {status for status, *_ in answers} == {200, 429}
    assert sum(status == 200 for status, *_ in answers) >= 8
    for status, retry, seconds, body in answers:
        if status == 429:
            assert retry == "1" and body["error"]["type"] == "rate_limit_error" and seconds < 2
        else:
            assert len(body["choices"][0]["message"]["content"]) == 20


def test_sigterm_lets_answers_end(start_probe):
    server = start_probe()
    digits = "0123456789" * 10  # two seconds, so that all eight are under way at once
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(server.ask, "/v1/chat/completions", chat_body("[slow] [say " + digits + "]"))
                 for _ in range(8)]
        until = time.monotonic() + 30
        while b'num_requests_running{model_name="test"} 8' not in server.ask("/metrics")[2]:
            assert time.monotonic() < until, "not all requests have begun"
            time.sleep(0.01)
        assert server.stop() == 0
        for one in asked:
            status, _, body = one.result()
            assert status == 200
            assert json.loads(body)["choices"][0]["message"]["content"] == digits


@pytest.mark.parametrize("method, path, status", [
    ("GET", "/nope", 404), ("PUT", "/v1/models", 405), ("GET", "/v1/chat/completions", 405), ("HEAD", "/v1/models", 200),
    ("OPTIONS", "/v1/chat/completions", 204), ("GET", "/health", 200), ("GET", "/health/live", 200),
    ("GET", "/health/ready", 200), ("GET", "/version", 200), ("GET", "/", 200),
])
def test_routes(probe, method, path, status):
    got, headers, body = probe.ask(path, method=method)
    assert got == status
    assert headers["X-Request-Id"]
    if status >= 400:
        error = json.loads(body)
        assert error["object"] == "error" and error["code"] == status and error["error"]["message"] == error["message"]


def test_a_request_id_comes_back(probe):
    assert probe.ask("/health", headers={"X-Request-Id": "mine-1"})[1]["X-Request-Id"] == "mine-1"


HOSTILE = [b"", b"{", b"null", b"[]", b"\xff\xfe", b"{\"messages\": NaN}", b"[" * 100_000, b'{"a":' * 70 + b"1" + b"}" * 70,
           b'{"messages": [], "messages": []}', b'{"messages": 1e999}', b'{"messages": "\\ud800"}',
           b'{"messages": [{"role": "user", "content": "x"}], "n": 9223372036854775808}',
           b'{"messages": [{"role": "user", "content": "x"}], "seed": 1e300}',
           b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": -1}',
           b'{"messages": [{"role": "user", "content": "x"}], "logit_bias": {"-1": 1}}',
           b'{"messages": [{"role": "user", "content": {"a": 1}}]}', b'{"messages": [{"role": 1}]}',
           b'{"messages": [[]]}', b'{"messages": "' + b"x" * 100_000 + b'"}']


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bodies_are_refused(probe, body):
    status, _, answer = probe.ask("/v1/chat/completions", body)
    assert status == 400
    assert json.loads(answer)["error"]["type"] == "invalid_request_error"
    assert probe.ask("/v1/chat/completions", HI)[0] == 200


@pytest.mark.parametrize("session, status", [(2**53 - 1, 200), (2**53, 400), (2**53 + 1, 400), (2**63 - 1, 400), (2**64 - 1, 400)])
def test_the_greatest_session_is_one_that_every_reader_of_json_tells_from_the_next(probe, session, status):
    body = {"prompt": "Hi", "session_id": session, "request_output_len": 2}
    assert probe.ask("/v1/chat/interactive", body)[0] == status


@pytest.mark.parametrize("path", EXAMPLES)
@pytest.mark.parametrize("head, status", [(b"Content-Length: 33554433", 413), (b"Transfer-Encoding: gzip", 501)])
def test_what_is_refused_unread_has_the_form_of_its_route(probe, path, head, status):
    with socket.create_connection(("127.0.0.1", probe.port), 10) as client:
        client.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s\r\n\r\n" % (path.encode(), head))
        reply = http.client.HTTPResponse(client)
        reply.begin()
        body = reply.read()
    form = "AnthropicError" if path.startswith("/v1/messages") else "Error"
    assert reply.status == status
    Description.of(probe).judges[form].validate(json.loads(body))


def test_garbage_on_the_socket_harms_nobody(probe):
    random.seed(1)
    base = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\nabcd"
    for _ in range(300):
        mutated = bytearray(base)
        for _ in range(random.randrange(1, 8)):
            at = random.randrange(len(mutated))
            mutated[at:at + random.randrange(3)] = random.randbytes(random.randrange(4))
        with socket.create_connection(("127.0.0.1", probe.port), 10) as client:
            try:
                client.sendall(mutated)
                client.shutdown(socket.SHUT_WR)
                client.settimeout(10)
                while client.recv(65536):
                    pass
            except OSError:
                pass
    assert probe.ask("/health")[0] == 200


def test_many_idle_connections(probe):
    clients = [socket.create_connection(("127.0.0.1", probe.port), 10) for _ in range(500)]
    begin = time.monotonic()
    assert probe.ask("/v1/chat/completions", HI)[0] == 200
    assert time.monotonic() - begin < 5
    for client in clients:
        client.close()


def test_streams_at_once_are_whole(probe):
    results = []

    def ask():
        _, _, body = probe.ask("/v1/chat/completions", chat_body("[say abcdefghijklmnopqrstuvwxyz]", stream=True))
        events = [line[6:] for line in body.decode().split("\n\n") if line]
        text = "".join(json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1])
        results.append((text, events[-1]))

    threads = [threading.Thread(target=ask) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [("abcdefghijklmnopqrstuvwxyz", "[DONE]")] * 64


def test_the_description_is_true(probe):
    """Every field in /openapi.json is taken with a value of its schema, and every other is refused."""
    document = json.loads(probe.ask("/openapi.json")[2])
    values = {"integer": 1, "number": 1, "boolean": True, "string": "x", "object": {}, "array": [], "null": None}
    for path, methods in document["paths"].items():
        if "requestBody" not in methods.get("post", {}) or path == "/abort_request":
            continue
        schema = methods["post"]["requestBody"]["content"]["application/json"]["schema"]
        needed = {"messages": HI["messages"], "prompt": "x", "input": "xy", "tokens": [65], "max_tokens": 8}
        base = {name: needed[name] for name in schema.get("required", [])}
        if path in ("/generate", "/tokenize"):
            base["prompt"] = "x"
        for name, field in schema["properties"].items():
            if "enum" in field:
                value = field["enum"][0]
            else:
                kinds = field.get("type", "string")
                value = values[kinds if isinstance(kinds, str) else kinds[0]]
            value = {"response_format": {"type": "text"}, "thinking": {"type": "disabled"}}.get(name, value)
            if name in ("input_ids", "messages", "top_logprobs", "stream_options", "stop_token_ids", "logprobs", "echo",
                        "session_id", "cancel", "model", "stream", "tool_choice", "parallel_tool_calls"):
                continue  # they depend on others
            status, _, body = probe.ask(path, {**base, name: base.get(name, value)})
            assert status == 200, (path, name, value, body)
        assert probe.ask(path, {**base, "no_such_field": 1})[0] == 400
