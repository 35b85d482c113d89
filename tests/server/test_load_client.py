"""The bars of docs/serving.md that are counts, by the client that measures them; `measure_load.py` has the times."""

import json
import os
import subprocess

from server_process import BUILD

CLIENT = os.environ.get("LANNER_LOAD_CLIENT", str(BUILD / "src" / "server" / "load_client"))
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def load(server, text="Hi", stream=False, **flags):
    body = json.dumps({"messages": [{"role": "user", "content": text}], "stream": stream})
    words = [word for name, value in flags.items() for word in ("--" + name.replace("_", "-"), str(value))]
    done = subprocess.run([CLIENT, "--port", str(server.port), "--body", body, *words], capture_output=True, text=True, timeout=120,
                          check=True)
    result = json.loads(done.stdout)
    assert result["unanswered"] == 0
    return {how: entry["count"] for how, entry in result["answers"].items()}, result


def test_streams_come_whole_and_in_order(start_probe):
    server = start_probe("--delay-us", 1000)
    assert load(server, f"[say {ALPHABET}]", True, connections=256, requests=512, seconds=60, expect=ALPHABET)[0] == {"200": 512}


def test_the_client_sees_what_is_wrong(start_probe):
    server = start_probe()
    assert load(server, f"[say {ALPHABET[::-1]}]", True, connections=4, requests=8, seconds=60, expect=ALPHABET)[0] == {"wrong": 8}
    assert load(server, "[fail]", True, connections=4, requests=8, seconds=60, expect="Hello world")[0] == {"wrong": 8}


def test_a_wave_gets_answers_or_refusals(start_probe):
    server = start_probe("--batch", 8, "--places", 40, "--tokens", 20, "--delay-us", 5000)
    counts, _ = load(server, connections=500, requests=500, seconds=60)
    assert set(counts) == {"200", "429"} and sum(counts.values()) == 500 and counts["200"] >= 40


def test_cut_streams_leave_nothing_behind(start_probe):
    server = start_probe()
    assert load(server, "[slow] [endless]", True, connections=50, requests=200, seconds=60, cut=1)[0] == {"cut": 200}


def test_four_times_too_much_is_half_as_good_at_the_worst(start_probe):
    server = start_probe("--places", 16, "--tokens", 20, "--delay-us", 5000)
    alone, full = load(server, connections=12, seconds=2)
    each = alone["200"] / full["seconds"] / 12
    counts, over = load(server, connections=100, rate=4 * 16 * each, seconds=3)
    assert set(counts) == {"200", "429"}
    assert counts["200"] / over["seconds"] > 16 * each / 2
