"""lanner benchmark serving, against the scripted server."""

import json
import subprocess

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
