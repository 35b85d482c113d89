"""AWQ and GPTQ folders of random numbers, packed here with NumPy, against what the reader makes of them.

Equality is exact. A weight is scale * (code - zero). With a scale in fp16 or bf16 (11 bits) and code - zero of at most
9 bits the product is exact in fp32, and so are scale * code, -scale * zero and their sum, which is how the reader keeps
it. Hence every value must have the very bits of the product in float64, rounded. Scales in fp32 (24 bits) round twice
on the way, and are held to one rounding of each product and one of the sum.

LANNER_CHECKPOINT_PROBE names the program built from tests/model/checkpoint_probe.cpp.
"""

import json

import numpy as np
import pytest
from checkpoint_reader import Probe, probe_refusal
from safetensors.numpy import save_file

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
SHAPES = [(8, 128), (72, 256), (128, 1280)]


def pack(codes, bits, order=None):
    """(n, m) of small integers -> (n, m * bits / 32) words, the first of each word in its lowest bits."""
    in_word = 32 // bits
    grouped = codes.reshape(codes.shape[0], -1, in_word).astype(np.uint64)
    if order is not None:
        grouped = grouped[:, :, order]
    shifts = np.arange(in_word, dtype=np.uint64) * np.uint64(bits)
    return (grouped << shifts).sum(axis=2).astype(np.uint32)


def random_matrix(rng, rows, cols, group, bits, symmetric):
    groups = 1 if group == -1 else cols // group
    top = 2**bits
    codes = rng.integers(0, top, (cols, rows))
    zeros = np.full((groups, rows), top // 2) if symmetric else rng.integers(0, top, (groups, rows))
    scales = (rng.standard_normal((groups, rows)) * 0.02).astype(np.float16)
    scales.flat[:3] = [0.0, 6.0e-8, 65504.0]  # zero, subnormal, largest
    return codes, zeros, scales


def expected_weights(codes, zeros, scales, group_of):
    """(rows, cols), by the meaning of the format."""
    difference = codes - zeros[group_of]
    return (scales.astype(np.float64)[group_of] * difference).astype(np.float32).T


def write_folder(folder, quantization, tensors):
    config = {"architectures": ["LlamaForCausalLM"]}
    if quantization is not None:
        config["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "model.safetensors")


def read_matrix(folder, rows, cols, model_format=""):
    with Probe(folder, model_format) as probe:
        return probe.tensor("m.weight", (rows, cols))


def assert_same_bits(values, expected):
    same = (values.view(np.uint32) == expected.view(np.uint32)) | ((values == 0) & (expected == 0))
    assert same.all(), f"{(~same).sum()} of {same.size} differ"


def awq_tensors(codes, zeros, scales):
    return {
        "m.qweight": pack(codes, 4, AWQ_ORDER).view(np.int32),
        "m.qzeros": pack(zeros, 4, AWQ_ORDER).view(np.int32),
        "m.scales": scales,
    }


def gptq_tensors(codes, zeros, scales, bits, second_format, group_of=None):
    words = pack(zeros, bits)
    if not second_format:
        words = words - np.uint32(0x11111111 if bits == 4 else 0x01010101)
    tensors = {
        "m.qweight": pack(codes.T, bits).T.view(np.int32),
        "m.qzeros": words.view(np.int32),
        "m.scales": scales,
    }
    if group_of is not None:
        tensors["m.g_idx"] = group_of.astype(np.int32)
    return tensors


@pytest.mark.parametrize("group", [32, 64, 128, -1])
@pytest.mark.parametrize("zero_point", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_awq(tmp_path, shape, zero_point, group):
    rows, cols = shape
    rng = np.random.default_rng(rows * cols + group)
    codes, zeros, scales = random_matrix(rng, rows, cols, group, 4, symmetric=not zero_point)
    group_of = np.arange(cols) // (cols if group == -1 else group)
    tensors = awq_tensors(codes, zeros, scales)
    if not zero_point:
        del tensors["m.qzeros"]
    quantization = {
        "quant_method": "awq",
        "version": "gemm",
        "bits": 4,
        "group_size": group,
        "zero_point": zero_point,
        "modules_to_not_convert": ["plain"],
    }
    tensors["plain.weight"] = rng.standard_normal((4, 8)).astype(np.float16)
    write_folder(tmp_path, quantization, tensors)
    values, kind = read_matrix(tmp_path, rows, cols)
    assert kind == "int4"
    assert_same_bits(values, expected_weights(codes, zeros, scales, group_of))
    with Probe(tmp_path) as probe:
        plain, kind = probe.tensor("plain.weight", (4, 8))
    assert kind == "float16"
    assert_same_bits(plain, tensors["plain.weight"].astype(np.float32))


@pytest.mark.parametrize("bits,kind", [(4, "int4"), (8, "int8")])
@pytest.mark.parametrize("group", [32, 64, 128, -1])
@pytest.mark.parametrize("second_format", [False, True])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_gptq(tmp_path, shape, act_order, symmetric, second_format, group, bits, kind):
    rows, cols = shape
    rng = np.random.default_rng(rows * cols + group + 7 * act_order + 3 * symmetric + bits)
    codes, zeros, scales = random_matrix(rng, rows, cols, group, bits, symmetric)
    group_of = np.arange(cols) // (cols if group == -1 else group)
    if act_order:
        rng.shuffle(group_of)
    quantization = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group,
        "sym": symmetric,
        "desc_act": act_order,
        "checkpoint_format": "gptq_v2" if second_format else "gptq",
    }
    write_folder(tmp_path, quantization, gptq_tensors(codes, zeros, scales, bits, second_format, group_of))
    values, internal = read_matrix(tmp_path, rows, cols)
    assert internal == kind
    assert_same_bits(values, expected_weights(codes, zeros, scales, group_of))


def test_gptq_without_group_index(tmp_path):
    rng = np.random.default_rng(5)
    codes, zeros, scales = random_matrix(rng, 16, 256, 128, 4, symmetric=True)
    tensors = gptq_tensors(codes, zeros, scales, 4, second_format=False)
    write_folder(tmp_path, {"quant_method": "gptq", "bits": 4, "group_size": 128}, tensors)
    values, _ = read_matrix(tmp_path, 16, 256)
    assert_same_bits(values, expected_weights(codes, zeros, scales, np.arange(256) // 128))


def test_scales_of_fp32_round_each_product_once(tmp_path):
    rng = np.random.default_rng(6)
    codes, zeros, _ = random_matrix(rng, 16, 256, 64, 4, symmetric=False)
    scales = rng.standard_normal((4, 16)).astype(np.float32)
    write_folder(tmp_path, {"quant_method": "awq", "bits": 4, "group_size": 64}, awq_tensors(codes, zeros, scales))
    values, _ = read_matrix(tmp_path, 16, 256)
    group_of = np.arange(256) // 64
    of_code = scales[group_of] * codes.astype(np.float32)
    offset = -scales[group_of] * zeros[group_of].astype(np.float32)
    assert_same_bits(values, np.ascontiguousarray((of_code + offset).T))


def test_model_format_of_folders_without_quantization_config(tmp_path):
    rng = np.random.default_rng(8)
    codes, zeros, scales = random_matrix(rng, 16, 256, 64, 4, symmetric=False)
    write_folder(tmp_path, None, awq_tensors(codes, zeros, scales))
    values, _ = read_matrix(tmp_path, 16, 256, "awq")
    assert_same_bits(values, expected_weights(codes, zeros, scales, np.arange(256) // 64))
    with Probe(tmp_path) as probe:
        probe.process.stdin.write(b"matrix m.weight 16 256 0\n")
        probe.process.stdin.flush()
        answer = probe.process.stdout.readline().decode()
    assert answer.startswith("error unsupported:") and "--model-format awq or gptq" in answer, answer


def test_model_format_that_contradicts(tmp_path):
    rng = np.random.default_rng(9)
    codes, zeros, scales = random_matrix(rng, 16, 256, 64, 4, symmetric=False)
    write_folder(tmp_path, {"quant_method": "awq", "bits": 4, "group_size": 64}, awq_tensors(codes, zeros, scales))
    assert "quantization_config says awq" in probe_refusal(tmp_path, "gptq")
    values, _ = read_matrix(tmp_path, 16, 256, "hf")
    assert_same_bits(values, expected_weights(codes, zeros, scales, np.arange(256) // 64))
    assert "'fp8'" in probe_refusal(tmp_path, "fp8")


@pytest.mark.parametrize(
    "quantization,words",
    [
        ({"quant_method": "awq", "bits": 8}, "8 bits"),
        ({"quant_method": "gptq", "bits": 3}, "3 bits"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "'gemv'"),
        ({"quant_method": "bitsandbytes"}, "'bitsandbytes'"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "'fp8'"),
    ],
)
def test_other_methods_are_refused(tmp_path, quantization, words):
    rng = np.random.default_rng(10)
    codes, zeros, scales = random_matrix(rng, 16, 256, 64, 4, symmetric=False)
    write_folder(tmp_path, quantization, awq_tensors(codes, zeros, scales))
    refusal = probe_refusal(tmp_path)
    assert "unsupported" in refusal and "quantization_config" in refusal and words in refusal, refusal
