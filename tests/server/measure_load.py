#!/usr/bin/env python3
"""Measures what the server bears, with the scripted engine: docs/serving.md, "What the server costs".

    tests/server/measure_load.py [--json FILE] [--model GGUF] [NAME…]      all, or those of these names

Server and client are two processes of this machine (build/src/server/server_probe and load_client). Tests check the same
conduct with generous bounds (test_load.py, test_load_client.py); here stand the figures, and whether each bar was met.
With --model, what is counted is counted with that model on one thread, too.
"""

import argparse
import concurrent.futures
import datetime
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

BUILD = pathlib.Path(os.environ.get("LANNER_BUILD_DIR", pathlib.Path(__file__).resolve().parents[2] / "build"))
PROBE = BUILD / "src" / "server" / "server_probe"
CLIENT = BUILD / "src" / "server" / "load_client"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"  # 64 tokens of the scripted engine


def words_of(flags):
    return [word for name, value in flags.items() for word in ("--" + name.replace("_", "-"), str(value))]


class Probe:
    def __init__(self, **flags):
        self.process = subprocess.Popen([PROBE, *words_of(flags)], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().split()[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def resident_mb(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as reply:
            return reply.read().decode()

    def figure(self, name, label=""):
        line = next(line for line in self.get("/metrics").splitlines() if line.startswith(f"lanner:{name}{{") and label in line)
        return float(line.split()[-1])

    def start_load(self, **flags):
        return subprocess.Popen([CLIENT, "--port", str(self.port), *words_of(flags)], stdout=subprocess.PIPE, text=True)

    def load(self, **flags):
        return result_of(self.start_load(**flags))


class Real(Probe):
    """lanner serve api_server with the model of --model."""

    model = ""

    def __init__(self, **flags):
        flags = {"server_port": 0, "threads": 1, "max_batch_size": 64, "max_queue": 2000, "session_len": 1024,
                 "cache_max_entry_count": 0.05, **flags}
        self.process = subprocess.Popen([BUILD / "lanner", "serve", "api_server", *words_of(flags), "--", self.model],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.port = next(int(found[1]) for found in map(re.compile(r"running on http://\S+:(\d+)").search, self.process.stdout)
                         if found)


def result_of(client):
    text = client.communicate(timeout=400)[0]
    assert client.returncode == 0
    return json.loads(text)


def chat(text="Hi", **more):
    return json.dumps({"messages": [{"role": "user", "content": text}], **more})


def stream(text="Hi", **more):
    return chat(text, stream=True, **more)


def answers(result):
    return {how: entry["count"] for how, entry in result["answers"].items()}


def streamed_tokens():
    """Tokens a second, each an event of its own; and what one costs, against an answer of one token."""
    figures = {}
    for connections in (16, 64):
        with Probe(tokens=256) as probe:
            figures[f"{connections}_streams"] = probe.load(connections=connections, seconds=4, body=stream())["events_per_second"]
    with Probe(tokens=256) as probe:
        before = sum(os_times(probe))
        result = probe.load(connections=16, seconds=4, body=stream())
        spent = sum(os_times(probe)) - before
    figures["server_cpu_us_per_token"] = 1e6 * spent / (result["events_per_second"] * result["seconds"])
    return figures, min(figures["16_streams"], figures["64_streams"]) >= 40_000


def os_times(probe):
    fields = pathlib.Path(f"/proc/{probe.process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return [int(field) / os.sysconf("SC_CLK_TCK") for field in fields[11:13]]


def requests_with_token_ids():
    figures = {}
    for connections in (16, 64):
        with Probe(tokens=1) as probe:
            body = json.dumps({"prompt": [72, 105, 33], "max_tokens": 1})
            result = probe.load(connections=connections, seconds=4, path="/v1/completions", body=body)
            assert set(answers(result)) == {"200"}
            figures[f"{connections}_connections"] = result["requests_per_second"]
    return figures, max(figures.values()) >= 15_000


def requests_with_template():
    figures = {}
    for connections in (16, 64):
        with Probe(tokens=1) as probe:
            result = probe.load(connections=connections, seconds=4, body=chat("What is the capital of France?", max_tokens=1))
            assert set(answers(result)) == {"200"}
            figures[f"{connections}_connections"] = result["requests_per_second"]
    return figures, min(figures.values()) >= 4_000


def chats_beside(seconds, **held):
    """20 chats a second of 20 tokens in 4 ms each, alone and beside `held` connections."""
    figures = {}
    for name, flags in (("alone", {}), ("beside", {**held, "settle_ms": 1000})):
        with Probe(tokens=20, delay_us=4000) as probe:
            probe.load(requests=20, body=chat())
            memory = probe.resident_mb()
            client = probe.start_load(rate=20, seconds=seconds, body=chat(), **flags)
            most = memory
            while client.poll() is None:
                most = max(most, probe.resident_mb())
                time.sleep(0.05)
            result = result_of(client)
            assert set(answers(result)) == {"200"} and not result["unanswered"]
            figures[name] = {"mb": most - memory, **result["answers"]["200"]}
    return figures, figures["beside"]["p99_ms"] < 2 * figures["alone"]["p99_ms"]


def idle_connections():
    figures, met = chats_beside(10, idle=8000)
    return figures, met and figures["beside"]["mb"] < 150


def slow_writers():
    return chats_beside(10, slow=2000)


def streams_in_order():
    with Probe(delay_us=1000) as probe:
        result = probe.load(connections=256, requests=1024, seconds=60, body=stream(f"[say {ALPHABET}]"), expect=ALPHABET)
    return {"answers": answers(result), "seconds": result["seconds"]}, answers(result) == {"200": 1024}


def wave():
    with Probe(batch=8, places=40, tokens=20, delay_us=5000) as probe:
        result = probe.load(connections=500, requests=500, seconds=60, body=chat())
    refused = result["answers"]["429"]
    return result["answers"], set(result["answers"]) == {"200", "429"} and refused["max_ms"] < 50


def overload():
    """64 places, answers of 32 tokens in 2 ms each: 1,000 answers a second at most; asked at 0.9 times that, and 4."""
    figures = {}
    for name, rate in (("1x", 900), ("4x", 3600)):
        with Probe(places=64, tokens=32, delay_us=2000) as probe:
            # What the engine really gives: the timer of its thread makes each token later than 2 ms.
            capacity = goodput(probe.load(connections=60, seconds=2, body=chat())) * 64 / 60
            result = probe.load(rate=rate * capacity / 1000, connections=200, seconds=5, body=chat())
            figures[name] = {"capacity": capacity, "offered": rate * capacity / 1000, "unanswered": result["unanswered"],
                             "goodput": goodput(result), "answers": result["answers"]}
    share = figures["4x"]["goodput"] / figures["1x"]["goodput"]
    return {**figures, "share_of_1x": share}, share >= 0.9


def goodput(result):
    return result["answers"]["200"]["count"] / result["seconds"]


def cut_streams():
    with Probe() as probe:
        return cut(probe, "[slow] [endless]")


def cut(probe, prompt, **more):
    """1,000 streams, each left after its first event: how long until the server has got rid of them."""
    result = probe.load(connections=100, requests=1000, seconds=200, cut=1, body=stream(prompt, **more))
    begin = time.monotonic()
    gone = 0
    while time.monotonic() - begin < 10:
        gone = probe.figure("request_success_total", 'finished_reason="abort"')
        levels = [probe.figure(name) for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")]
        if gone == 1000 and not any(levels):
            break
        time.sleep(0.005)
    seconds = time.monotonic() - begin
    met = answers(result) == {"cut": 1000} and gone == 1000 and seconds < 1
    return {"answers": answers(result), "aborted": gone, "seconds_until_free": seconds}, met


def real_streams():
    """256 greedy answers of 64 tokens: whatever runs beside them, they are one text."""
    more = {"max_tokens": 64, "temperature": 0, "ignore_eos": True}
    body = chat("Tell me about Paris.", **more)
    with Real() as server:
        request = urllib.request.Request(f"http://127.0.0.1:{server.port}/v1/chat/completions", body.encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            text = json.load(reply)["choices"][0]["message"]["content"]
        result = server.load(connections=256, requests=256, seconds=200, expect=text, body=stream("Tell me about Paris.", **more))
        usage = server.figure("kv_cache_usage_perc")
    return {"answers": answers(result), "seconds": result["seconds"], "kv_cache_usage_after": usage}, (
        answers(result) == {"200": 256} and usage == 0)


def real_cut_streams():
    with Real() as server:
        return cut(server, "Count to one thousand.", ignore_eos=True)


def real_endings():
    """SIGTERM with 64 answers under way and 100 waiting, 5 times."""
    return endings_of(Real, stream("Hello", max_tokens=24, ignore_eos=True), 5)


def asked(port, body):
    """"whole", "503", "refused" (nobody listened any more), or "lost"."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body.encode(),
                                     {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return "whole" if reply.read().endswith(b"data: [DONE]\n\n") else "lost"
    except urllib.error.HTTPError as error:
        return str(error.code)
    except OSError as error:
        return "refused" if "refused" in str(error) else "lost"


def endings():
    """SIGTERM with 64 answers under way and 100 waiting, 20 times."""
    return endings_of(lambda: Probe(batch=64, answer="x" * 20, delay_us=20_000), stream(), 20)


def endings_of(start, body, times):
    counts = {}
    seconds = []
    for _ in range(times):
        with start() as probe, concurrent.futures.ThreadPoolExecutor(164) as pool:
            waiting = [pool.submit(asked, probe.port, body) for _ in range(164)]
            until = time.monotonic() + 20
            while probe.figure("num_requests_running") < 64 or probe.figure("num_requests_waiting") < 100:
                assert time.monotonic() < until
                time.sleep(0.005)
            probe.process.send_signal(signal.SIGTERM)
            begin = time.monotonic()
            assert probe.process.wait(60) == 0
            seconds.append(time.monotonic() - begin)
            for one in waiting:
                counts[one.result()] = counts.get(one.result(), 0) + 1
    return {"answers": counts, "most_seconds": max(seconds)}, "lost" not in counts and counts["whole"] > 64 * times


ALL = [streamed_tokens, requests_with_token_ids, requests_with_template, idle_connections, slow_writers, streams_in_order,
       wave, overload, cut_streams, endings]
REAL = [real_streams, real_cut_streams, real_endings]


def processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(one.__name__ for one in ALL + REAL))
    parser.add_argument("--json")
    parser.add_argument("--model", default="")
    arguments = parser.parse_args()
    Real.model = arguments.model
    report = {"kind": "server_load", "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
              "machine": {"processor": processor(), "cpus": os.cpu_count()}, "engine": "scripted; real_…: " + (pathlib.Path(arguments.model).name or "none"), "results": {}}
    for measure in ALL + (REAL if arguments.model else []):
        if arguments.names and measure.__name__ not in arguments.names:
            continue
        figures, met = measure()
        report["results"][measure.__name__] = {"met": met, **figures}
        print(measure.__name__, "met" if met else "MISSED", json.dumps(figures), flush=True)
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if all(one["met"] for one in report["results"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
