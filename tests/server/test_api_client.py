"""lanner serve api_client: a conversation through the server."""

import http.server
import json
import signal
import subprocess
import threading
import time

import pytest

from server_process import BINARY


def client(url, text, *flags, **more):
    return subprocess.run([BINARY, "serve", "api_client", url, *flags], input=text.encode(), capture_output=True,
                          timeout=60, check=False, **more)


def history_of(probe, session):
    """How many tokens the server remembers."""
    body = {"prompt": "x", "session_id": session, "interactive_mode": True, "request_output_len": 1}
    return json.loads(probe.ask("/v1/chat/interactive", body)[2])["history_tokens"]


def test_a_conversation(probe):
    done = client(probe.url, "[say one]\n\n[say two\nthree]\n\nexit\n\nnever said\n", "--session-id", "101")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"one\ntwo\nthree\n", b"exiting...\n")
    assert history_of(probe, 101) == 0  # exit has ended it


def test_end_begins_anew_and_goes_on(probe):
    done = client(probe.url, "[say one]\n\nend\n\n[say two]\n", "--session-id", "102")
    assert (done.returncode, done.stdout) == (0, b"one\ntwo\n")
    assert history_of(probe, 102) == 0


def test_the_server_keeps_the_conversation(start_probe):
    server = start_probe("--session-len", "120")
    done = client(server.url, "[say " + "x" * 60 + "]\n\n[say more]\n\nand more\n")
    assert done.stdout.startswith(b"x" * 13)
    assert b"warning: exceed session max length. Please end the session.\n" in done.stderr


def test_http_is_added(probe):
    done = client(f"localhost:{probe.port}", "[say one]\n", "--session-id", "103")
    assert done.stdout == b"one\n" and b"warning: " in done.stderr


def test_nobody_there():
    done = client("http://127.0.0.1:1", "Hi\n")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"lanner: error: 127.0.0.1:1: Connection refused\n"


def test_a_key(start_probe):
    server = start_probe("--key", "secret")
    done = client(server.url, "Hi\n", "--api-key", "wrong")
    assert (done.returncode, done.stderr) == (1, b"lanner: error: Unauthorized.\n")
    assert client(server.url, "Hi\n", "--api-key", "secret").stdout == b"Hello world\n"


def test_a_failure_is_told(probe):
    done = client(probe.url, "[fail]\n\n[say fine]\n", "--session-id", "104")
    assert done.returncode == 1 and done.stdout.endswith(b"fine\n")
    assert done.stderr == b"lanner: error: the script says so\n"


def test_ctrl_c_ends_the_answer_on_the_server(start_probe):
    server = start_probe()
    process = subprocess.Popen([BINARY, "serve", "api_client", server.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdin.write(b"[endless] [slow]\n\n")
    process.stdin.flush()
    assert process.stdout.read(5) == b"Hello"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    for _ in range(100):
        if b'num_requests_running{model_name="test"} 0' in server.ask("/metrics")[2]:
            return
        time.sleep(0.05)
    pytest.fail("the request goes on without its client")


class OtherServer(http.server.BaseHTTPRequestHandler):
    """One that knows OpenAI's routes alone."""

    asked = []

    def do_GET(self):
        self.send(200, json.dumps({"data": [{"id": "its-model"}]}).encode())

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self.send(404, b'{"detail": "Not Found"}')
            return
        self.asked.append(body)
        events = [{"choices": [{"delta": {"role": "assistant"}}]}, {"choices": [{"delta": {"content": "a"}}]},
                  {"choices": [{"delta": {"content": "b"}, "finish_reason": "stop"}]}, {"choices": []}]
        self.send(200, b"".join(b"data: " + json.dumps(event).encode() + b"\r\n\r\n" for event in events) +
                  b"data: [DONE]\r\n\r\n")

    def send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_another_server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), OtherServer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    done = client(f"http://127.0.0.1:{server.server_port}/v1/", "one\n\ntwo\n\nend\n\nthree\n")
    server.shutdown()
    assert (done.returncode, done.stdout) == (0, b"ab\nab\nab\n"), done.stderr
    assert [body["model"] for body in OtherServer.asked] == ["its-model"] * 3
    assert [[message["content"] for message in body["messages"]] for body in OtherServer.asked] == [
        ["one"], ["one", "ab", "two"], ["three"]]
