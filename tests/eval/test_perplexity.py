"""`lanner eval perplexity` on a real model against Transformers, and the other verbs that measure.

    LANNER_BINARY     the program
    LANNER_TEST_GGUF  SmolLM2-135M-Instruct, Q4_1

golden_perplexity.json says what Transformers computes; make_perplexity_golden.py made it.
"""

import hashlib
import json
import math
import os
import pathlib
import subprocess
import tempfile

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = json.loads(pathlib.Path(__file__).with_name("golden_perplexity.json").read_text(encoding="utf-8"))
TEXT = REPOSITORY / "data" / "wikitext2" / "test.txt"

# Both compute in fp32 and add in different orders. A wrong rope base or a shifted row is off by a thousand times as much.
FLOAT32_NLL_TOLERANCE = 2e-4


def required(variable):
    value = os.environ.get(variable)
    if not value:
        pytest.fail(f"set {variable}: this test runs a real model and does not pass without it")
    if not pathlib.Path(value).exists():
        pytest.fail(f"{variable}={value}: no such file")
    return value


def lanner(*arguments, environment=None, text=""):
    return subprocess.run(
        [required("LANNER_BINARY"), *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | (environment or {}),
        check=False,
    )


def report(tmp_path, *arguments):
    """Runs a measuring verb and returns its JSON."""
    path = tmp_path / "report.json"
    done = lanner(*arguments, "--json", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    print(done.stdout)
    return json.loads(path.read_text(encoding="utf-8"))


def golden_run(seqlen, windows):
    return next(run for run in GOLDEN["runs"] if run["seqlen"] == seqlen and run["windows"] == windows)


def test_the_text_is_the_goldens():
    assert hashlib.sha256(TEXT.read_bytes()).hexdigest() == GOLDEN["text_sha256"]


@pytest.mark.parametrize("dataset", ["wikitext2", TEXT])
def test_perplexity_equals_transformers(tmp_path, dataset):
    expected = golden_run(256, 4)
    got = report(
        tmp_path, "eval", "perplexity", required("LANNER_TEST_GGUF"), "--dataset", dataset,
        "--seqlen", 256, "--max-windows", 4, "--dtype", "float32",
    )
    assert got["dataset"]["text_tokens"] == GOLDEN["tokens"]
    assert (got["windows"], got["tokens"], got["predictions"]) == (4, 1024, 4 * 255)
    assert got["window_nll"] == pytest.approx(expected["window_nll"], abs=FLOAT32_NLL_TOLERANCE)
    assert got["mean_nll"] == pytest.approx(expected["mean_nll"], abs=FLOAT32_NLL_TOLERANCE)
    assert got["perplexity"] == pytest.approx(math.exp(got["mean_nll"]), rel=1e-9)


def test_perplexity_of_a_window_that_takes_several_chunks(tmp_path):
    expected = golden_run(1024, 4)
    got = report(
        tmp_path, "eval", "perplexity", required("LANNER_TEST_GGUF"),
        "--seqlen", 1024, "--max-windows", 1, "--dtype", "float32", "--max-prefill-token-num", 300,
    )
    assert got["window_nll"] == pytest.approx(expected["window_nll"][:1], abs=FLOAT32_NLL_TOLERANCE)


def test_default_arithmetic_is_close_to_float32(tmp_path):
    got = report(
        tmp_path, "eval", "compare", required("LANNER_TEST_GGUF"), "--seqlen", 256, "--max-windows", 2,
    )
    expected = golden_run(256, 4)["window_nll"][:2]
    assert got["reference_perplexity"] == pytest.approx(math.exp(sum(expected) / 2), rel=FLOAT32_NLL_TOLERANCE)
    assert got["perplexity_ratio"] == pytest.approx(1, abs=0.02)
    assert 0 <= got["mean_kl"] <= 0.01
    assert got["mean_kl"] <= got["percentile_99_kl"]
    assert 0.93 <= got["top1_agreement"] <= 1


def test_float32_does_not_diverge_from_itself(tmp_path):
    got = report(
        tmp_path, "eval", "compare", required("LANNER_TEST_GGUF"),
        "--seqlen", 64, "--max-windows", 1, "--dtype", "float32",
    )
    assert got["mean_kl"] == 0
    assert (got["top1_agreement"], got["perplexity_ratio"]) == (1, 1)


def test_the_folder_and_the_gguf_of_one_model_agree(tmp_path):
    got = report(
        tmp_path, "eval", "compare", required("LANNER_TEST_MODEL_DIR"), required("LANNER_TEST_GGUF"),
        "--seqlen", 64, "--max-windows", 2, "--dtype", "float32",
    )
    assert (got["reference"], got["model"]) == (
        pathlib.Path(os.environ["LANNER_TEST_MODEL_DIR"]).name, pathlib.Path(os.environ["LANNER_TEST_GGUF"]).name)
    assert got["predictions"] == 2 * 63
    assert 0 <= got["mean_kl"] < 1e-8
    assert got["top1_agreement"] == 1


def test_models_that_cut_the_text_differently_are_not_compared():
    folder = pathlib.Path(required("LANNER_TEST_MODEL_DIR"))
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:  # on the same disk: the weights are not copied
        other = pathlib.Path(beside)
        for file in folder.iterdir():
            if file.name != "tokenizer.json":
                os.link(file, other / file.name)
        tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        tokenizer["model"]["merges"] = []
        (other / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
        done = lanner("eval", "compare", folder, other, "--seqlen", "16", "--max-windows", "1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cut the text into different tokens" in done.stderr and done.stderr.count("\n") == 1


def test_json_lines_are_joined_by_an_empty_line(tmp_path):
    parts = ["The falcon is a bird of prey.", "It nests on cliffs, 三 of them.", "And it is fast, very fast indeed."]
    lines, whole = tmp_path / "text.jsonl", tmp_path / "text.txt"
    lines.write_text("".join(json.dumps({"text": part}) + "\n" for part in parts), encoding="utf-8")
    whole.write_text("\n\n".join(parts), encoding="utf-8")
    first, second = (
        report(tmp_path, "eval", "perplexity", required("LANNER_TEST_GGUF"), "--dataset", path, "--seqlen", 16)
        for path in (lines, whole)
    )
    assert first["window_nll"] == second["window_nll"]


def test_a_missing_set_says_where_to_put_it(tmp_path):
    done = lanner(
        "eval", "perplexity", required("LANNER_TEST_GGUF"), "--dataset", "c4",
        environment={"LANNER_DATA_DIR": str(tmp_path)},
    )
    assert done.returncode == 1
    assert str(tmp_path / "c4" / "test.txt") in done.stderr


def test_a_text_shorter_than_a_window_is_refused(tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("Too short.", encoding="utf-8")
    done = lanner("eval", "perplexity", required("LANNER_TEST_GGUF"), "--dataset", short, "--seqlen", 64)
    assert done.returncode == 1
    assert "fewer than one window" in done.stderr


def test_generation_benchmark_reports_shares_of_the_machine(tmp_path):
    got = report(
        tmp_path, "benchmark", "generation", required("LANNER_TEST_GGUF"), "--batch-sizes", 1, 3,
        "--prompt-tokens", 32, "--output-tokens", 17, "--repetitions", 1,
    )
    assert got["layer_parameters"] == 106_168_320  # 30 layers of 3,538,944
    assert got["products"] == "int8"
    assert got["ops_per_parameter"] == 4  # an activation is two bytes
    assert 80e6 < got["weight_bytes_per_step"] < 150e6
    assert [row["batch_size"] for row in got["decode"]] == [1, 3]
    limits = got["limits"]
    for row in got["prefill"]:
        speed = row["tokens_per_s"]
        assert 0 < speed["min"] <= speed["median"] <= speed["max"]
        share = got["ops_per_parameter"] * got["layer_parameters"] * speed["median"] / limits["int8_ops_per_s"]
        assert row["share_of_peak"] == pytest.approx(share)
    for row in got["decode"]:
        steps_per_s = row["tokens_per_s"]["median"] / row["batch_size"]
        share = got["weight_bytes_per_step"] * steps_per_s / limits["read_bytes_per_s"]
        assert row["share_of_bandwidth"] == pytest.approx(share)
    assert got["machine"]["threads"] == limits["threads"] >= 1
    assert got["machine"]["isa"] in {"generic", "avx2", "avx512", "amx"}
