"""lanner benchmark serving, against the scripted server."""

import json
import struct
import subprocess

import pytest

from server_process import BINARY


def benchmark(server, *flags):
    return subprocess.run([BINARY, "benchmark", "serving", "--url", server.url, *map(str, flags)], capture_output=True,
                          text=True, timeout=120, check=False)


def test_it_counts_and_times(start_probe, tmp_path):
    server = start_probe("--tokens", 50, "--delay-us", 4000)
    report = tmp_path / "report.json"
    done = benchmark(server, "--num-requests", 24, "--concurrency", 8, "--prompt-tokens", 10, "--output-tokens", 20, "--json",
                     report)
    assert done.returncode == 0, done.stderr
    figures = json.loads(report.read_text())
    assert figures["kind"] == "serving" and figures["model"] == "test"
    assert (figures["requests"], figures["successful"], figures["failures"]) == (24, 24, {})
    assert (figures["prompt_tokens"], figures["output_tokens"]) == (240, 480)
    # The script takes 4 ms a token, at least; what is beside that is this machine's.
    assert 0.004 <= figures["ttft_s"]["p50"] < 2
    assert 0.002 <= figures["tpot_s"]["p50"] < 2
    assert 0.076 <= figures["latency_s"]["p50"] < 10
    assert figures["latency_s"]["p99"] >= figures["latency_s"]["p50"] >= figures["ttft_s"]["p50"]
    for line in ("Successful requests", "Output throughput (tok/s)", "Time per output token (TPOT)"):
        assert line in done.stdout


def test_a_rate_sets_the_pace(start_probe, tmp_path):
    server = start_probe("--tokens", 2)
    report = tmp_path / "report.json"
    assert benchmark(server, "--num-requests", 40, "--request-rate", 40, "--output-tokens", 2, "--json", report).returncode == 0
    assert 0.5 < json.loads(report.read_text())["seconds"] < 30


def test_what_is_refused_is_counted(start_probe):
    server = start_probe("--places", 2, "--tokens", 50, "--delay-us", 2000)
    done = benchmark(server, "--num-requests", 20, "--concurrency", 20, "--output-tokens", 50)
    assert done.returncode == 0 and "Failed: 429" in done.stdout


def test_nobody_there_and_no_key(start_probe):
    done = subprocess.run([BINARY, "benchmark", "serving", "--url", "http://127.0.0.1:1"], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 1 and "Connection refused" in done.stderr
    server = start_probe("--key", "secret")
    assert "401" in benchmark(server).stderr
    assert benchmark(server, "--api-key", "secret", "--num-requests", 3, "--output-tokens", 3).returncode == 0


def test_a_run_for_each_rate(start_probe, tmp_path):
    server = start_probe("--tokens", 50, "--delay-us", 4000)
    report, plot, picture = tmp_path / "report.json", tmp_path / "plot.svg", tmp_path / "plot.png"
    done = benchmark(server, "--num-requests", 20, "--request-rate", 50, 100, "--output-tokens", 20, "--goodput", "ttft:20000",
                     "e2el:20", "--json", report, "--plot", plot, picture)
    assert done.returncode == 0, done.stderr
    figures = json.loads(report.read_text())
    assert [load["request_rate"] for load in figures["loads"]] == [50, 100]
    # 20 tokens of 4 ms are never there in 20 ms: all requests succeed, and none is served well.
    assert all(load["successful"] == 20 and load["goodput"] == 0 and load["requests_per_s"] > 0 for load in figures["loads"])
    rows = [line.split() for line in done.stdout.splitlines() if line.split() and line.split()[0] in ("50", "100")]
    assert len(rows) == 2 and all(len(row) == 9 and row[2] == "0.00" for row in rows)
    drawn = plot.read_text()
    assert all(text in drawn for text in ("requests served", "time to first token", "time per output token", "offered requests/s"))
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (800, 1440)


def test_prompts_of_a_file(start_probe, tmp_path):
    server = start_probe("--tokens", 3)
    lines, conversations, report = tmp_path / "prompts.jsonl", tmp_path / "sharegpt.json", tmp_path / "report.json"
    lines.write_text('{"prompt": "abc"}\n\n{"prompt": ""}\n{"prompt": "defgh"}\n')
    conversations.write_text(json.dumps([{"conversations": []},
                                         {"conversations": [{"from": "human", "value": "abc"}, {"from": "gpt", "value": "x"}]},
                                         {"conversations": [{"from": "human", "value": "defgh"}]}]))
    counts = set()
    for file in (lines, conversations):
        assert benchmark(server, "--dataset", file, "--output-tokens", 3, "--json", report).returncode == 0
        figures = json.loads(report.read_text())
        assert (figures["requests"], figures["successful"], figures["output_tokens"]) == (2, 2, 6)
        counts.add(figures["prompt_tokens"])
    assert len(counts) == 1 and counts.pop() >= 8  # the server's count of "abc" and "defgh"


@pytest.mark.parametrize("text, message", [
    ('{"prompt": 5}\n', 'x.jsonl:1: no string "prompt"'), ('{"prompt": "a"}\n{\n', "x.jsonl:2"), ("\n", "no requests"),
])
def test_a_file_that_is_none(start_probe, tmp_path, text, message):
    (tmp_path / "x.jsonl").write_text(text)
    done = benchmark(start_probe(), "--dataset", tmp_path / "x.jsonl")
    assert done.returncode == 1 and message in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("flags, message", [
    (("--goodput", "ttft=5"), "--goodput ttft=5: must be"), (("--goodput", "itl:5"), "--goodput itl:5"),
    (("--goodput", "tpot:-1"), "--goodput tpot:-1"), (("--request-rate", "-1"), "--request-rate must be"),
    (("--request-rate", "0", "1"), "--request-rate 0"), (("--plot", "x.svg"), "--plot needs --request-rate"),
    (("--request-rate", "1", "--plot", "x.gif"), "x.gif"),
])
def test_flags_that_make_no_sense(start_probe, flags, message):
    done = benchmark(start_probe(), *flags)
    assert done.returncode == 1 and message in done.stderr
