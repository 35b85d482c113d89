"""lanner serve proxy, before scripted servers of which some end in the middle."""
import http.server
import json
import os
import queue
import signal
import subprocess
import threading
import time

import openai
import pytest

from server_process import BINARY, PROBE, Server

HI = {"model": "test", "messages": [{"role": "user", "content": "Hi"}]}


class Group:
    """A proxy and the servers behind it."""

    def __init__(self, folder, *flags, environment=None):
        self.proxy = Server([BINARY, "serve", "proxy", "--server-port", "0", "--health-interval", "0.2", *flags],
                            {**os.environ, **(environment or {})}, folder=folder)
        self.nodes = []

    def start_node(self, *flags):
        node = Server([PROBE, *map(str, flags)])
        self.nodes.append(node)
        return node

    def add(self, *flags, **status):
        node = self.start_node(*flags)
        assert self.post("/nodes/add", {"url": node.url, **({"status": status} if status else {})})[2] == b'"Added successfully"'
        return node

    def post(self, path, body, **more):
        return self.proxy.ask(path, body, **more)

    def status(self):
        return json.loads(self.proxy.ask("/nodes/status")[2])

    def wait(self, what):
        until = time.monotonic() + 20
        while not what(self.status()):
            assert time.monotonic() < until, self.status()
            time.sleep(0.05)

    def stop(self):
        code = self.proxy.stop()
        for node in self.nodes:
            node.stop(signal.SIGKILL)
        return code


@pytest.fixture
def group(tmp_path):
    started = []

    def start(*flags, **more):
        started.append(Group(tmp_path, *flags, **more))
        return started[-1]

    yield start
    for one in started:
        assert one.stop() == 0, one.proxy.output


def test_it_passes_on(group):
    proxy = group()
    node = proxy.add()
    client = proxy.proxy.client()
    assert [model.id for model in client.models.list()] == ["test"]
    assert client.chat.completions.create(**HI).choices[0].message.content == "Hello world"
    streamed = client.chat.completions.create(**HI, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == "Hello world"
    assert client.completions.create(model="test", prompt="x").choices[0].text == "Hello world"
    assert client.responses.create(model="test", input="x").output_text == "Hello world"
    with pytest.raises(openai.BadRequestError, match="no_such_field"):
        client.chat.completions.create(**HI, extra_body={"no_such_field": 1})
    known = proxy.status()[node.url]
    assert known["unfinished"] == 0 and known["healthy"] and known["models"] == ["test"] and len(known["latency"]) >= 4


def test_streams_pass_byte_for_byte(group):
    proxy = group()
    node = proxy.add()
    body = {**HI, "stream": True, "messages": [{"role": "user", "content": "[say " + "abc " * 100 + "]"}]}

    def without_what_differs(text):
        return [{**json.loads(line[6:]), "id": 0, "created": 0} for line in text.decode().split("\n\n") if line.startswith("data: {")]

    direct, through = node.ask("/v1/chat/completions", body), proxy.post("/v1/chat/completions", body)
    assert without_what_differs(direct[2]) == without_what_differs(through[2])
    assert through[1]["Content-Type"] == direct[1]["Content-Type"] == "text/event-stream"
    assert through[2].endswith(b"data: [DONE]\n\n")


def test_events_come_as_they_are_made(group):
    proxy = group()
    proxy.add()
    begin = time.monotonic()
    stream = proxy.proxy.client().chat.completions.create(
        model="test", stream=True, max_tokens=1000, messages=[{"role": "user", "content": "[slow][endless]"}])
    next(iter(stream))
    assert time.monotonic() - begin < 10  # all would take twenty seconds
    stream.close()
    proxy.wait(lambda nodes: all(node["unfinished"] == 0 for node in nodes.values()))


def test_a_client_that_leaves_ends_its_request_at_the_node(group):
    proxy = group()
    node = proxy.add()
    client = proxy.proxy.client()
    stream = client.chat.completions.create(model="test", stream=True, messages=[{"role": "user", "content": "[slow][endless]"}])
    next(iter(stream))
    stream.close()
    until = time.monotonic() + 10
    while b'num_requests_running{model_name="test"} 0' not in node.ask("/metrics")[2]:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_node_that_is_killed(group):
    proxy = group()
    first, second = proxy.add(), proxy.add()
    client = proxy.proxy.client()
    for _ in range(6):
        client.chat.completions.create(**HI)
    first.stop(signal.SIGKILL)
    for _ in range(20):  # none of them fails: no byte of an answer had come
        assert client.chat.completions.create(**HI).choices[0].message.content == "Hello world"
    proxy.wait(lambda nodes: not nodes[first.url]["healthy"] and nodes[second.url]["healthy"])
    proxy.nodes.append(Server([PROBE, "--port", str(first.port)]))
    proxy.wait(lambda nodes: nodes[first.url]["healthy"])
    before = len(proxy.status()[first.url]["latency"])
    for _ in range(12):
        client.chat.completions.create(**HI)
    assert len(proxy.status()[first.url]["latency"]) > before


@pytest.mark.parametrize("stream", [True, False])
def test_a_node_that_is_killed_in_the_middle(group, stream):
    proxy = group()
    node = proxy.add("--delay-us", "20000", "--tokens", "500")
    other = proxy.add("--delay-us", "20000", "--tokens", "30")
    client = proxy.proxy.client()
    results = []

    def ask():
        try:
            answer = client.chat.completions.create(**HI, stream=stream)
            if stream:
                results.append("".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices))
            else:
                results.append(answer.choices[0].message.content)
        except openai.APIError as error:
            results.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    proxy.wait(lambda nodes: nodes[node.url]["unfinished"] == 4 and nodes[other.url]["unfinished"] == 4)
    if stream:
        time.sleep(0.3)  # so that there have been events
    node.stop(signal.SIGKILL)
    for thread in threads:
        thread.join(timeout=60)
    whole = [result for result in results if result == "x" * 30]
    broken = [result for result in results if isinstance(result, openai.APIError)]
    assert len(results) == 8
    if stream:  # what had begun is told to have broken off; the rest is whole
        assert len(whole) == 4 and len(broken) == 4 and all("broke off" in str(error) for error in broken)
    else:  # of these nothing had been sent: the other node makes them
        assert len(whole) == 8


def test_nobody_is_there(group):
    proxy = group()
    with pytest.raises(openai.NotFoundError, match="does not exist") as caught:
        proxy.proxy.client().chat.completions.create(**HI)
    status, _, body = proxy.post("/v1/chat/completions", HI)
    assert (status, json.loads(body)["error_code"]) == (404, 10400) and caught.value.code == "model_not_found"
    node = proxy.add()
    node.stop(signal.SIGKILL)
    status, headers, body = proxy.post("/v1/chat/completions", HI)
    assert (status, json.loads(body)["error_code"]) == (503, 10401) and headers["Retry-After"]


def test_a_node_that_takes_too_long(group):
    proxy = group(environment={"AIOHTTP_TIMEOUT": "0.5"})
    proxy.add("--delay-us", "200000", "--tokens", "20")
    status, _, body = proxy.post("/v1/chat/completions", HI)
    assert (status, json.loads(body)["error_code"]) == (504, 10402)


def test_a_busy_node_makes_way(group):
    proxy = group()
    proxy.add("--places", "1")
    proxy.add()
    client = proxy.proxy.client()
    slow = [client.chat.completions.create(model="test", stream=True, messages=[{"role": "user", "content": "[slow][endless]"}])
            for _ in range(2)]
    for stream in slow:
        next(iter(stream))
    for _ in range(10):
        assert client.chat.completions.create(**HI).choices[0].message.content == "Hello world"
    for stream in slow:
        stream.close()


def test_keys_pass_through(group):
    proxy = group("--api-keys", "secret")
    node = proxy.start_node("--key", "secret")
    key = {"Authorization": "Bearer secret"}
    assert proxy.post("/nodes/add", {"url": node.url})[0] == 401
    assert proxy.post("/nodes/add", {"url": node.url}, headers=key)[0] == 200  # it has asked for the models with that key
    assert proxy.proxy.client("secret").chat.completions.create(**HI).choices[0].message.content == "Hello world"
    with pytest.raises(openai.AuthenticationError):
        proxy.proxy.client("wrong").chat.completions.create(**HI)
    assert proxy.proxy.ask("/health")[0] == 200


def test_keys_of_the_nodes_alone(group):
    proxy = group()
    node = proxy.start_node("--key", "secret")
    assert proxy.post("/nodes/add", {"url": node.url, "status": {"models": ["test"]}})[0] == 200
    assert proxy.proxy.client("secret").chat.completions.create(**HI).choices[0].message.content == "Hello world"
    with pytest.raises(openai.AuthenticationError):
        proxy.proxy.client("wrong").chat.completions.create(**HI)


def test_prefixes_stay_together(group):
    proxy = group("--routing-strategy", "prefix_hash")
    nodes = [proxy.add("--answer", name) for name in "abc"]
    client = proxy.proxy.client()

    def ask(text):
        return client.chat.completions.create(model="test", messages=[{"role": "user", "content": text}]).choices[0].message.content

    places = {i: ask(f"conversation {i}") for i in range(12)}
    assert len(set(places.values())) > 1
    assert all(ask(f"conversation {i}") == place for i, place in places.items())
    assert len(nodes) == 3


def test_the_nodes_are_kept(group, tmp_path):
    proxy = group()
    node = proxy.add(models=["test"], speed=2.5)
    assert json.loads((tmp_path / "proxy_config.json").read_text())[node.url]["speed"] == 2.5
    again = group()
    assert list(again.status()) == [node.url]
    assert proxy.post("/nodes/remove", {"url": node.url})[2] == b'"Deleted successfully"'
    assert group().status() == {}
    proxy.add()
    assert group("--disable-cache-status").status() == {}


BAD = [
    ("/nodes/add", {}, "url"), ("/nodes/add", {"url": "https://127.0.0.1:1"}, "http:// alone"),
    ("/nodes/add", {"url": "http://127.0.0.1:1/x"}, "without a path"), ("/nodes/add", {"url": "http://127.0.0.1:1"}, "url"),
    ("/nodes/add", {"url": "http://127.0.0.1:1", "status": {"models": [5]}}, "status.models"),
    ("/nodes/add", {"url": "http://127.0.0.1:1", "status": {"models": [], "speed": -1}}, "status.speed"),
    ("/v1/chat/completions", [], "object"), ("/v1/chat/completions", {"model": 5}, "model"), ("/v1/chat/completions", b"{", "JSON"),
]


@pytest.mark.parametrize("path, body, message", BAD)
def test_what_is_refused(group, path, body, message):
    proxy = group()
    status, _, answer = proxy.post(path, body)
    assert status == 400 and message in json.loads(answer)["error"]["message"]
    assert proxy.proxy.ask("/no/such/route")[0] == 404
    assert proxy.post("/nodes/remove", {"url": "http://127.0.0.1:1"})[0] == 404


def test_terminate_asks_the_nodes(group):
    proxy = group()
    node = proxy.add()
    status, _, body = proxy.post("/nodes/terminate", {"url": node.url})
    assert status == 502 and b"403" in body  # which does not allow it
    assert proxy.proxy.ask("/nodes/terminate_all")[0] == 502
    assert list(proxy.status()) == [node.url]


def test_a_server_registers_and_leaves(group, model):
    proxy = group()
    flags = ["--server-port", "0", "--model-name", "small", "--session-len", "256", "--cache-max-entry-count", "0.02"]
    server = Server([BINARY, "serve", "api_server", model, *flags, "--proxy-url", proxy.proxy.url])
    try:
        proxy.wait(lambda nodes: server.url in nodes)
        answer = proxy.proxy.client().chat.completions.create(
            model="small", max_tokens=16, temperature=0, messages=[{"role": "user", "content": "What is the capital of France?"}])
        assert answer.choices[0].message.content == "The capital of France is Paris."
    finally:
        assert server.stop() == 0
    assert proxy.status() == {}


class SlowToAnswer(http.server.BaseHTTPRequestHandler):
    """A proxy that makes an entry at once and says so late."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls.put(self.path)
        if self.path == "/nodes/add":
            self.server.may_answer.wait(60)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_server_that_was_not_answered_leaves_all_the_same(model):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), SlowToAnswer) as proxy:
        proxy.calls = queue.Queue()
        proxy.may_answer = threading.Event()
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        server = Server([BINARY, "serve", "api_server", model, "--server-port", "0", "--session-len", "256", "--cache-max-entry-count",
                         "0.02", "--proxy-url", f"http://127.0.0.1:{proxy.server_port}"])
        try:
            assert proxy.calls.get(timeout=60) == "/nodes/add"
        finally:
            assert server.stop() == 0
        proxy.may_answer.set()
        assert proxy.calls.get(timeout=60) == "/nodes/remove"
        proxy.shutdown()


def test_a_server_registers_with_the_key_of_its_environment(group, model):
    proxy = group("--api-keys", "secret")
    flags = ["--server-port", "0", "--session-len", "256", "--cache-max-entry-count", "0.02"]
    server = Server([BINARY, "serve", "api_server", model, *flags, "--proxy-url", proxy.proxy.url],
                    {**os.environ, "LANNER_API_KEY": "secret"})
    try:
        until = time.monotonic() + 20
        while server.url.encode() not in proxy.proxy.ask("/nodes/status", headers={"Authorization": "Bearer secret"})[2]:
            assert time.monotonic() < until, server.output
            time.sleep(0.05)
    finally:
        assert server.stop() == 0


def test_an_empty_key_is_no_key():
    done = subprocess.run([BINARY, "serve", "proxy", "--server-port", "0", "--api-keys", ""], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 1 and "--api-keys: a key has only visible ASCII characters" in done.stderr


def test_strange_flags_are_refused():
    done = subprocess.run([BINARY, "serve", "proxy", "--serving-strategy", "DistServe"], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 1 and "--serving-strategy DistServe" in done.stderr


@pytest.mark.parametrize("seconds", ["0", "-1", "5s", "nan", "1e9"])
def test_a_strange_timeout_is_refused(seconds):
    done = subprocess.run([BINARY, "serve", "proxy", "--server-port", "0"], capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, "AIOHTTP_TIMEOUT": seconds})
    assert done.returncode == 1 and "AIOHTTP_TIMEOUT: is no number of seconds" in done.stderr
