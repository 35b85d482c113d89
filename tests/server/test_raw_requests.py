"""Requests with bytes that are wrong anywhere, in the first line as in the body: each is answered in a documented shape or
dropped, and none harms the server. 4,000 of them; 200,000 where LANNER_TEST_THOROUGH is set.

LANNER_SERVER_PROBE may name a program that was built with sanitizers, as `make asan` has it: what they find ends the program.
"""

import collections
import concurrent.futures
import http.client
import io
import json
import random
import socket

from api_description import EXAMPLES, Description, check_events
from test_mutations import WITH_GRAMMARS, mutated

WORKERS = 16
ANSWERS = {200, 204, 400, 401, 403, 404, 405, 409, 413, 431, 501}  # docs/serving.md; 500 and 503 must not come
BODIES = [*EXAMPLES.items(), *(("/v1/chat/completions", body) for body in WITH_GRAMMARS)]
WITHOUT = ["GET /v1/models", "GET /v1/models/test", "GET /anthropic/v1/models", "GET /health", "GET /health/live", "GET /health/ready",
           "GET /version", "GET /metrics", "GET /is_sleeping", "GET /openapi.json", "GET /", "GET /chat", "GET /terminate",
           "HEAD /v1/models", "OPTIONS /v1/chat/completions", "OPTIONS *", "POST /sleep?level=1", "POST /wakeup?tags=weights"]
HEADERS = ["Accept: */*", "Expect: 100-continue", "X-Request-Id: mine", "Origin: http://evil.example", "X-Api-Key: secret",
           "Access-Control-Request-Headers: a, b", "Upgrade: h2c", "Connection: keep-alive, upgrade", "Cookie: a=b", "Range: bytes=0-1",
           "If-None-Match: *", "Transfer-Encoding: chunked", "Content-Length: 5", "Content-Length: 0", "Host: other", "X-Empty:",
           "Content-Encoding: gzip", "Content-Type: text/plain", "Authorization: Bearer wrong"]
PIECES = [b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b"\xff", b":", b" ", b"\t", b"%00", b"../", b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u",
          b"\\ud800", b"-", b"1e999", b"18446744073709551616", b"-9223372036854775809", b"ffffffffffffffff\r\n", b"0\r\n\r\n",
          b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"GET ", b"chunked", b"null", b"true", b"[" * 80, b'{"a":' * 80, b"a" * 3000, b"\xc3\x28",
          b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"]


def chunked(body, source):
    parts = []
    while body:
        size = source.randrange(1, 200)
        parts.append(b"%x%s\r\n%s\r\n" % (len(body[:size]), source.choice([b"", b"", b";a=b"]), body[:size]))
        body = body[size:]
    return b"".join(parts) + b"0\r\n" + source.choice([b"", b"", b"Trailer: x\r\n"]) + b"\r\n"


def well_formed(source):
    """A request that is proper HTTP; its body may be nearly right only."""
    headers = [b"Host: x", b"Authorization: Bearer secret"]
    headers += [source.choice(HEADERS).encode() for _ in range(source.choice([0, 0, 0, 1, 2]))]
    if source.random() < 0.9:
        headers.append(b"Connection: close")
    body = b""
    if source.random() < 0.2:
        line = source.choice(WITHOUT).encode()
    else:
        path, body = source.choice(BODIES)
        if source.random() < 0.5:
            body = mutated(body, source)
        body = json.dumps(body, ensure_ascii=source.random() < 0.5).encode("utf-8", "surrogatepass")
        line = b"POST " + path.encode()
        headers.append(b"Content-Type: application/json")
        if source.random() < 0.1:
            headers.append(b"Transfer-Encoding: chunked")
            body = chunked(body, source)
        else:
            headers.append(b"Content-Length: %d" % len(body))
    source.shuffle(headers)
    return b"\r\n".join([line + b" HTTP/1.1", *headers, b"", body])


def with_wrong_bytes(request, source):
    request = bytearray(request)
    for _ in range(source.choice([0, 0, 1, 1, 1, 2, 3, 8])):
        at = source.randrange(len(request) + 1)
        until = at + source.choice([1, 2, 4, 16, 64])
        action = source.randrange(6)
        if action == 0 and at < len(request):
            request[at] ^= 1 << source.randrange(8)
        elif action == 1:
            request[at:at] = source.randbytes(source.randrange(1, 9))
        elif action == 2:
            del request[at:until]
        elif action == 3:
            request[at:at] = request[at:until] * source.choice([1, 2, 20])
        elif action == 4:
            request[at:until] = source.choice(PIECES)
        elif source.random() < 0.2:
            del request[at:]
        else:
            request[at:at] = source.choice(PIECES)
    return bytes(request)


def exchange(port, request):
    """(what the server sent until it closed the connection, whether it was waiting for more)."""
    got = bytearray()
    waited = False
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        try:
            client.sendall(request)
            client.settimeout(0.1)
            while True:
                try:
                    data = client.recv(1 << 16)
                except TimeoutError:
                    assert not waited, f"the server neither answers nor closes: {request!r}"
                    waited = True
                    client.settimeout(60)
                    client.shutdown(socket.SHUT_WR)
                    continue
                if not data:
                    return bytes(got), waited
                got += data
        except (ConnectionResetError, BrokenPipeError):
            return bytes(got), True


class Answers(io.BytesIO):
    """What http.client reads several answers from."""

    def makefile(self, *_):
        return self

    def close(self):
        pass

    def left(self):
        return self.tell() < len(self.getbuffer())


def judge(description, request, got, waited):
    """The statuses of all answers."""
    statuses = []
    answers = Answers(got)
    while answers.left():
        head = not statuses and request.lstrip(b"\r\n").startswith(b"HEAD ")
        reply = http.client.HTTPResponse(answers, method="HEAD" if head else "GET")
        try:
            reply.begin()
            body = reply.read()
        except http.client.HTTPException:
            assert waited, "the answer is cut, and not by its client"
            return statuses
        statuses.append(reply.status)
        # One that has closed its side counts as gone: its prompts are given up, and so it is told, though nobody listens.
        assert reply.status in ANSWERS or (reply.status == 503 and waited), reply.status
        if head:  # a body follows where the server could not read the request so far as to know that it is HEAD
            return statuses
        if reply.status == 204:
            continue
        if reply.status >= 400:
            assert reply.headers["Content-Type"] == "application/json"
            description.check_error(reply.status, body)
        elif reply.headers["Content-Type"] == "application/json":
            json.loads(body)
        elif reply.headers["Content-Type"] == "text/event-stream":
            check_events(body)
    return statuses


def send_many(server, description, count, seed):
    """How often each status came, or none, or nothing until the client gave up."""
    source = random.Random(seed)
    counts = collections.Counter()
    for _ in range(count):
        request = with_wrong_bytes(well_formed(source), source)
        try:
            got, waited = exchange(server.port, request)
            statuses = judge(description, request, got, waited)
        except Exception as failure:
            raise AssertionError(f"{failure!r} for {request[:4000]!r}") from failure
        counts["requests"] += 1
        counts.update(statuses or ["no answer"])
        counts["waited"] += waited
    return counts


def test_requests_with_wrong_bytes(start_probe, thorough):
    server = start_probe("--key", "secret", "--tools", "hermes", "--thoughts", "1")
    description = Description.of(server, {"Authorization": "Bearer secret"})
    count = 200_000 if thorough else 4_000
    counts = collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        for one in [pool.submit(send_many, server, description, count // WORKERS, seed) for seed in range(WORKERS)]:
            counts.update(one.result())
    print(f"\n{counts['requests']} requests with wrong bytes:", dict(counts.most_common()))
    assert server.ask("/health")[0] == 200
    assert server.stop() == 0, server.output  # with all that it held given back, where a sanitizer looks
    assert counts["requests"] == count
    assert counts[200] > count * 0.05 and counts[400] > count * 0.2 and counts["no answer"] < count * 0.3
