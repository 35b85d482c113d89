"""What the verbs that measure do with their report; their figures are tested in tests/eval."""

import json
import os
import struct
import zlib
from xml.etree import ElementTree

import pytest

SMALL_LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 96, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": False,
}


@pytest.fixture
def shape(tmp_path):
    folder = tmp_path / "small-llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SMALL_LLAMA))
    return folder


@pytest.mark.parametrize("verb, figure", [
    (("eval", "perplexity", "--seqlen", "16", "--max-windows", "1"), b"perplexity "),
    (("eval", "compare", "--seqlen", "16", "--max-windows", "1"), b"mean KL "),
    (("benchmark", "generation", "--batch-sizes", "1", "--prompt-tokens", "8", "--output-tokens", "2", "--repetitions", "1"),
     b"decode, whole batch"),
])
def test_a_report_that_cannot_be_written_does_not_cost_the_table(run, model, tmp_path, verb, figure):
    done = run(*verb, model, "--threads", "1", "--json", tmp_path / "missing" / "report.json")
    assert done.returncode == 1
    assert figure in done.stdout
    assert done.stderr.startswith(b"lanner: error: ") and b"report.json" in done.stderr


def test_random_weights_need_a_configuration_alone(run, shape, tmp_path):
    report = tmp_path / "report.json"
    # Many tokens, so that they take longer than one does on a busy machine too.
    done = run("benchmark", "generation", "--random-weights", shape, "--batch-sizes", "1", "2", "--prompt-tokens", "8",
               "--output-tokens", "400", "--repetitions", "1", "--threads", "1", "--json", report)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"small-llama (random weights) on cpu ")
    figures = json.loads(report.read_text())
    assert figures["layer_parameters"] == 2 * (64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 96)
    assert [row["batch_size"] for row in figures["decode"]] == [1, 2]
    assert all(row["host_us_per_step"] > 0 for row in figures["decode"])
    # fp16 as it was made: layers and head, without the embedding; and norms of fp32
    assert figures["weight_bytes_per_step"] == 2 * (figures["layer_parameters"] + 96 * 64) + 4 * 64 * (2 * 2 + 1)


def test_random_weights_are_of_the_format_that_is_asked_for(run, shape, tmp_path):
    report = tmp_path / "report.json"
    done = run("benchmark", "kernels", "--random-weights", shape, "--random-weights-format", "int4", "--rows", "1", "--isa",
               "generic", "--threads", "1", "--json", report)
    assert done.returncode == 0, done.stderr
    formats = {figure["name"]: figure["formats"] for figure in json.loads(report.read_text())["shapes"]}
    # The head of a model whose layers are quantized becomes int8 on a CPU.
    assert formats["down"] == "int4" and formats["head"] == "int8"
    done = run("benchmark", "kernels", shape, "--random-weights-format", "int4")
    assert done.returncode == 1
    assert done.stderr == b"lanner: error: --random-weights-format goes with --random-weights\n"


@pytest.mark.parametrize("verb", [["generation", "--output-tokens", "2", "--repetitions", "1", "--batch-sizes", "1", "--prompt-tokens", "2"],
                                  ["kernels", "--rows", "1", "--isa", "generic"]])
def test_what_the_system_does_not_give_is_said(run, shape, verb):
    too_many = len(os.sched_getaffinity(0)) + 1
    done = run("benchmark", *verb, "--random-weights", shape, "--device", "cpu", "--threads", too_many, "--pin-threads")
    assert done.returncode == 0, done.stderr
    assert f"threads are not pinned: there are {too_many} threads, but this process may use {too_many - 1} processors\n".encode() in done.stderr
    done = run("benchmark", *verb, "--random-weights", shape, "--device", "cpu", "--threads", "1", "--numa", "interleave")
    if done.returncode != 0:  # a sandbox that forbids it
        assert done.stderr.startswith(b"lanner: error: memory cannot be interleaved: ") and done.stderr.count(b"\n") == 1


def test_a_list_of_requests_is_measured(run, shape, tmp_path):
    requests = tmp_path / "requests.json"
    requests.write_text("[[20, 5], [3, 9], [40, 1], [7, 7]]")
    report = tmp_path / "report.json"
    done = run("benchmark", "throughput", "--random-weights", shape, "--requests", requests, "--num-requests", "3", "--threads",
               "1", "--repetitions", "2", "--json", report)
    assert done.returncode == 0, done.stderr
    assert b"3 requests, 63 prompt tokens, 15 new ones" in done.stdout
    figures = json.loads(report.read_text())
    assert (figures["kind"], figures["requests"], figures["output_tokens"]) == ("throughput", 3, 15)
    assert 0 < figures["ttft_s"]["p50"] <= figures["ttft_s"]["p99"] <= figures["seconds"]


def test_kernels_are_measured_one_by_one(run, shape, tmp_path):
    report = tmp_path / "report.json"
    done = run("benchmark", "kernels", "--random-weights", shape, "--rows", "1", "3", "--isa", "generic", "--threads", "1",
               "--json", report)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"small-llama (random weights)\n") and b"96+96 x 64" in done.stdout
    figures = json.loads(report.read_text())
    assert [(one["name"], one["rows"], one["layers"]) for one in figures["shapes"]] == [
        ("qkv", [64, 32, 32], 2), ("attention out", [64], 2), ("gate up", [96, 96], 2), ("down", [64], 2), ("head", [96], 1)]
    body, = figures["bodies"]
    assert body["isa"] == "generic" and len(body["figures"]) == 10
    assert all(0 < one["seconds"]["min"] <= one["seconds"]["median"] for one in body["figures"])


def test_kernels_of_an_unknown_instruction_set_are_refused(run, shape):
    done = run("benchmark", "kernels", "--random-weights", shape, "--isa", "avx3")
    assert done.returncode == 2 and b"avx3: known are generic, avx2, avx512, amx" in done.stderr


@pytest.mark.parametrize("verb", [("generation",), ("kernels",), ("throughput", "--requests", "requests.json")])
def test_a_model_or_random_weights_but_not_both(run, shape, tmp_path, verb):
    (tmp_path / "requests.json").write_text("[[1, 1]]")
    verb = [str(tmp_path / word) if word.endswith(".json") else word for word in verb]
    for arguments in ([], ["model", "--random-weights", shape]):
        done = run("benchmark", *verb, *arguments)
        assert done.returncode == 1
        assert done.stderr == b"lanner: error: give either MODEL or --random-weights\n"


SVG = "{http://www.w3.org/2000/svg}"
KV_BYTES = {"float16": 2 * 2 * 2 * 16 * 2, "int8": 2 * 2 * 2 * (16 + 4), "int4": 2 * 2 * 2 * (8 + 4)}  # of a token of SMALL_LLAMA


def memory_report(run, shape, tmp_path, *flags):
    report = tmp_path / "report.json"
    done = run("benchmark", "memory", "--random-weights", shape, "--device", "cpu", "--threads", "1", "--json", report, *flags)
    assert done.returncode == 0, done.stderr
    return done, json.loads(report.read_text())


def test_memory_is_planned_for_each_ratio_and_type(run, shape, tmp_path):
    # Small shares, since the cache of so small a model is soon large enough for all sequences; the last holds but one.
    done, figures = memory_report(run, shape, tmp_path, "--ratios", "0.0004", "0.0002", "0.00000001")
    rows = figures["rows"]
    assert [(row["kv_type"], row["cache_max_entry_count"]) for row in rows] == [
        (kind, ratio) for kind in ("float16", "int8", "int4") for ratio in (0.0004, 0.0002, 0.00000001)]
    for row in rows:
        block_bytes = 64 * KV_BYTES[row["kv_type"]]
        assert row["kv_bytes"] == row["kv_blocks"] * block_bytes == row["kv_tokens"] * KV_BYTES[row["kv_type"]]
        share = row["cache_max_entry_count"] * (row["free_bytes"] - row["workspace_bytes"])
        least, most = 512 // 64, 128 * 512 // 64  # one sequence, and as many as may run
        assert row["kv_blocks"] == max(least, min(most, int(share // block_bytes)))
        assert row["planned_bytes"] == row["weight_bytes"] + row["workspace_bytes"] + row["kv_bytes"]
    assert [row["kv_tokens"] for row in rows if row["cache_max_entry_count"] == 0.00000001] == [512] * 3
    assert len(done.stdout.splitlines()) == 3 + len(rows)
    assert b"int4 costs a model of 0 million parameters" in done.stderr and done.stderr.count(b"\n") == 1


def test_a_filled_cache_is_resident(run, shape, tmp_path):
    flags = ("--ratios", "0.9", "--quant-policies", "0", "--max-batch-size", "2000", "--max-prefill-token-num", "2000")
    kv_bytes = 2000 * 512 * KV_BYTES["float16"]  # 262 MB
    for fill in (False, True):
        _, figures = memory_report(run, shape, tmp_path, *flags, *(["--fill"] if fill else []))
        (row,) = figures["rows"]
        assert figures["filled"] == fill and row["kv_bytes"] == kv_bytes
        if fill:
            assert kv_bytes < row["resident_bytes"] < row["planned_bytes"] + 100e6
        else:
            assert 0 < row["resident_bytes"] < kv_bytes / 2


def pixels_of(png):
    """Width, height and rows of (red, green, blue) of a PNG that is neither filtered nor interlaced."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    place, chunks = 8, []
    while place < len(png):
        (length,) = struct.unpack(">I", png[place:place + 4])
        name, content = png[place + 4:place + 8], png[place + 8:place + 8 + length]
        assert struct.unpack(">I", png[place + 8 + length:place + 12 + length])[0] == zlib.crc32(name + content)
        chunks.append((name, content))
        place += 12 + length
    assert [name for name, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, color, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert (depth, color, rest) == (8, 2, [0, 0, 0])
    data = zlib.decompress(chunks[1][1])
    assert len(data) == height * (1 + 3 * width)
    rows = [data[y * (1 + 3 * width):(y + 1) * (1 + 3 * width)] for y in range(height)]
    assert all(row[0] == 0 for row in rows)
    return width, height, [[tuple(row[1 + 3 * x:4 + 3 * x]) for x in range(width)] for row in rows]


def test_memory_is_drawn(run, shape, tmp_path):
    named = shape.rename(shape.with_name("a<b&c"))
    svg, png = tmp_path / "memory.svg", tmp_path / "memory.png"
    memory_report(run, named, tmp_path, "--ratios", "0.0004", "0.0001", "--plot", svg, png)
    picture = ElementTree.parse(svg).getroot()
    texts = [text.text for text in picture.iter(SVG + "text")]
    assert "Memory of a<b&c (random weights)" in texts
    for kind in ("float16", "int8", "int4"):
        assert kind + " planned" in texts and kind + " resident" in texts
    width, height, pixels = pixels_of(png.read_bytes())
    assert (width, height) == (int(picture.get("width")), int(picture.get("height")))
    # Every line of the one is in the other: the pixel in the middle of a wide one has its colour, or one drawn over it.
    colors = {line.get("stroke") for line in picture.iter(SVG + "line")}
    wide = [line for line in picture.iter(SVG + "line") if float(line.get("stroke-width")) >= 2]
    assert len(wide) > 12
    for line in wide:
        x, y = (int(sum(float(line.get(axis + end)) for end in "12") / 2) for axis in "xy")
        near = {"#%02x%02x%02x" % pixels[b][a] for a in (x - 1, x, x + 1) for b in (y - 1, y, y + 1)}
        assert near & (colors - {"#e0e0e0"})
    assert pixels[2][2] == (255, 255, 255)


@pytest.mark.parametrize("flags, message", [
    (["--plot", "memory.gif"], b"memory.gif: a chart is written as .svg or .png"),
    (["--ratios", "1"], b"--ratios must be between 0 and 1, both excluded"),
    (["--quant-policies", "0", "16"], b"--quant-policy 16 is not available yet in this version"),
])
def test_memory_refuses_before_it_opens_anything(run, tmp_path, flags, message):
    done = run("benchmark", "memory", tmp_path / "none", *flags)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"lanner: error: " + message + b"\n"
