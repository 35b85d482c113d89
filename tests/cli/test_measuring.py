"""What the verbs that measure do with their report; their figures are tested in tests/eval."""

import json
import os

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
    assert formats["down"] == "int4" and formats["head"] == "float16"
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
