"""Many clients, and unkind ones. Times are generous, since tests share their machine; `-s` prints what was measured."""

import concurrent.futures
import json
import os
import re
import resource
import selectors
import socket
import struct
import time

import pytest

HI = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module", autouse=True)
def many_files():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def resident_mb(server):
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def descriptors(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def connect(server, count):
    return [socket.create_connection(("127.0.0.1", server.port), 30) for _ in range(count)]


def request(content, **more):
    body = json.dumps({"messages": [{"role": "user", "content": content}], **more}).encode()
    return (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body))


def chat_times(server, count):
    times = []
    for _ in range(count):
        begin = time.monotonic()
        assert server.ask("/v1/chat/completions", HI)[0] == 200
        times.append(time.monotonic() - begin)
    return sorted(times)


def figure(server, name):
    text = server.ask("/metrics")[2].decode()
    return int(re.search(name + r"\S* (\d+)", text.replace('model_name="test",', ""))[1])


def wait_for_aborts(server, count, seconds):
    """Until so many requests have been cancelled and none is left."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        aborts = figure(server, 'success_total{finished_reason="abort"}')
        if aborts == count and figure(server, "num_requests_running") == 0:
            return True
        time.sleep(0.01)
    return False


def test_idle_connections_cost_little(start_probe, many_files):
    count = min(8000, many_files - 500)
    assert count > 100, "this process may open too few files for the test to say anything"
    server = start_probe()
    alone = chat_times(server, 50)
    memory, files = resident_mb(server), descriptors(server)
    clients = connect(server, count)
    crowded = chat_times(server, 50)
    more = resident_mb(server) - memory
    print(f"\n{count} idle connections: {more:.0f} MB, p98 {1e3 * alone[-1]:.1f} ms alone, {1e3 * crowded[-1]:.1f} ms now")
    assert more < 150
    assert crowded[25] < 10 * alone[25] + 0.1
    for client in clients:
        client.close()
    until = time.monotonic() + 10
    while descriptors(server) > files + 5 and time.monotonic() < until:
        time.sleep(0.05)
    assert descriptors(server) <= files + 5


def test_slow_writers_hinder_nobody(start_probe):
    server = start_probe()
    alone = chat_times(server, 50)
    clients = connect(server, 2000)
    for at, client in enumerate(clients):
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Le" if at % 2 else request("Hi")[:-5])
    crowded = chat_times(server, 50)
    print(f"\n2000 slow writers: p50 {1e3 * alone[25]:.1f} ms alone, {1e3 * crowded[25]:.1f} ms now")
    assert crowded[25] < 10 * alone[25] + 0.1
    for client in clients:
        client.close()


def test_cut_streams_are_freed(start_probe):
    server = start_probe()
    for at in range(500):
        with socket.create_connection(("127.0.0.1", server.port), 30) as client:
            client.sendall(request("[endless] [slow]", stream=True))
            client.recv(1000)
            if at % 2:  # with a reset
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    begin = time.monotonic()
    assert wait_for_aborts(server, 500, 30)
    print(f"\n500 cut streams: all freed within {1e3 * (time.monotonic() - begin):.0f} ms of the last")


def test_readers_that_do_not_read_are_cancelled(start_probe):
    server = start_probe("--session-len", "100000000")
    memory = resident_mb(server)
    clients = connect(server, 20)
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(request("[endless]", stream=True))
    assert wait_for_aborts(server, 20, 60)
    print(f"\n20 readers that do not read: {resident_mb(server) - memory:.0f} MB")
    assert resident_mb(server) - memory < 100
    for client in clients:
        client.close()


def test_a_wave_beyond_the_limit(start_probe):
    server = start_probe("--places", 40, "--delay-us", 20000)
    clients = connect(server, 500)
    selector = selectors.DefaultSelector()
    sent, statuses, refused = {}, [], []
    for client in clients:
        selector.register(client, selectors.EVENT_READ)
        sent[client] = time.monotonic()
        client.sendall(request("Hi"))
    while len(statuses) < 500:
        ready = selector.select(20)
        assert ready, f"{500 - len(statuses)} requests have no answer"
        for key, _ in ready:
            reply = key.fileobj.recv(65536)
            statuses.append(int(reply.split()[1]))
            if statuses[-1] == 429:
                assert b"Retry-After: 1" in reply
                refused.append(time.monotonic() - sent[key.fileobj])
            selector.unregister(key.fileobj)
    refused.sort()
    print(f"\n500 at once: {statuses.count(200)} answered; refused in {1e3 * refused[-1]:.0f} ms at most, "
          f"{1e3 * refused[len(refused) // 2]:.1f} ms at the median")
    assert set(statuses) == {200, 429} and statuses.count(200) >= 40
    assert refused[-1] < 10
    for client in clients:
        client.close()


def test_everybody_gets_an_end_when_the_server_ends(start_probe):
    whole = 0
    for _ in range(5):
        server = start_probe()
        with concurrent.futures.ThreadPoolExecutor(100) as pool:
            asked = [pool.submit(server.ask, "/v1/chat/completions",
                                 {"messages": [{"role": "user", "content": "[slow]"}], "stream": True}) for _ in range(100)]
            until = time.monotonic() + 30
            while figure(server, "num_requests_running") == 0 and time.monotonic() < until:
                time.sleep(0.01)
            assert server.stop() == 0
            for one in asked:
                try:
                    status, _, body = one.result()
                except OSError:
                    continue  # it came when nobody listened any more
                assert (status == 200 and body.endswith(b"data: [DONE]\n\n")) or status == 503
                whole += status == 200
    assert whole > 0
