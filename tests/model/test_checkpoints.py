"""Checkpoint readers against independent ones: gguf-py, safetensors and Transformers' row permutation in NumPy.

Needs the variables below; without them the tests fail and say so. `make test` sets them.

    LANNER_CHECKPOINT_PROBE   the program built from tests/model/checkpoint_probe.cpp
    LANNER_TEST_GGUF          a real GGUF file of the llama architecture
    LANNER_TEST_MODEL_DIR     a real Hugging Face folder of the Llama architecture

Equality is exact: every value has the same bits. A scale is a number in fp16, or its product with an integer of at most
8 bits, which fp32 holds. What rounds, rounds once and in the same place in either reader: Q6_K's product with a code,
and sums with an offset.
"""

import json
import pathlib
import zlib

import gguf
import numpy as np
import pytest
import safetensors
from checkpoint_reader import Probe, probe_spec, required, ulp_distance

BLOCK_HALVES = {  # where each quantized type keeps its fp16 numbers, in bytes from the start of a block
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}
INTERNAL_FORMAT = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "Q4_0": "int4",
    "Q4_1": "int4",
    "Q5_0": "int8",
    "Q5_1": "int8",
    "Q8_0": "int8",
    "Q4_K": "int4",
    "Q5_K": "int8",
    "Q6_K": "int8",
}


def gguf_values(tensor):
    shape = tuple(int(size) for size in reversed(tensor.shape))
    if tensor.tensor_type.name == "BF16":
        bits = np.ascontiguousarray(tensor.data).view("<u2").astype(np.uint32) << 16
        return bits.view(np.float32).reshape(shape)
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(shape)


def plain_rope_rows(values, heads):
    """The inverse of LlamaModel.permute of llama.cpp's converter."""
    shape = values.shape
    return values.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def test_every_tensor_of_the_real_gguf():
    path = required("LANNER_TEST_GGUF")
    reader = gguf.GGUFReader(path)
    worst, elements = 0, 0
    with Probe(path) as probe:
        for tensor in reader.tensors:
            expected = gguf_values(tensor)
            values, kind = probe.tensor(tensor.name, expected.shape)
            if len(expected.shape) == 2:
                assert kind == INTERNAL_FORMAT[tensor.tensor_type.name], tensor.name
            distance = ulp_distance(values, expected)
            assert distance == 0, f"{tensor.name}: {distance} ulp"
            worst, elements = max(worst, distance), elements + expected.size
    print(f"GGUF: {len(reader.tensors)} tensors, {elements} values, worst {worst} ulp")
    assert len(reader.tensors) > 0


def test_spec_of_the_real_gguf():
    path = required("LANNER_TEST_GGUF")
    reader = gguf.GGUFReader(path)

    def field(key):
        return reader.fields[key].contents()

    result = probe_spec(path)
    spec = result["spec"]
    assert spec["hidden"] == field("llama.embedding_length")
    assert len(spec["layers"]) == field("llama.block_count")
    assert spec["heads"] == field("llama.attention.head_count")
    assert spec["kv_heads"] == field("llama.attention.head_count_kv")
    assert spec["intermediate"] == field("llama.feed_forward_length")
    assert spec["max_position"] == field("llama.context_length")
    assert spec["rope_theta"] == field("llama.rope.freq_base")
    assert np.float32(spec["norm_eps"]) == np.float32(field("llama.attention.layer_norm_rms_epsilon"))
    assert len(repr(spec["norm_eps"])) < 8, "a decimal such as 1e-05, not the float32 spelled out"
    tokens = field("tokenizer.ggml.tokens")
    assert spec["vocab"] == len(tokens)
    assert result["tokenizer_size"] == len(tokens)
    assert result["bos"] == tokens[field("tokenizer.ggml.bos_token_id")]
    assert result["eos"] == tokens[field("tokenizer.ggml.eos_token_id")]
    assert field("tokenizer.ggml.eos_token_id") in result["eos_ids"]
    assert result["chat_template"] == field("tokenizer.chat_template")
    assert result["tensor_bytes"] == sum(int(tensor.n_bytes) for tensor in reader.tensors)


def test_rope_rows_of_the_real_gguf():
    path = required("LANNER_TEST_GGUF")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    spec = probe_spec(path)["spec"]
    compared = 0
    with Probe(path) as probe:
        for layer in spec["layers"]:
            q, k, *others = layer["projections"]
            assert q["pairwise"] and k["pairwise"] and not any(other["pairwise"] for other in others)
            for projection in (q, k):
                expected = plain_rope_rows(gguf_values(tensors[projection["weight"]]), projection["heads"])
                values, _ = probe.tensor(projection["weight"], expected.shape, projection["heads"])
                assert ulp_distance(values, expected) == 0, projection["weight"]
                compared += 1
    assert compared == 2 * len(spec["layers"])


def test_every_tensor_of_the_real_folder():
    folder = pathlib.Path(required("LANNER_TEST_MODEL_DIR"))
    files = sorted(folder.glob("*.safetensors"))
    assert files, f"{folder} holds no safetensors"
    count, elements, stored = 0, 0, 0
    with Probe(folder) as probe:
        for path in files:
            with safetensors.safe_open(path, framework="numpy") as file:
                for name in file.keys():
                    tensor = file.get_tensor(name)
                    expected = tensor.astype(np.float32)
                    values, _ = probe.tensor(name, expected.shape)
                    assert ulp_distance(values, expected) == 0, name
                    count, elements = count + 1, elements + expected.size
                    stored += tensor.nbytes
    assert probe_spec(folder)["tensor_bytes"] == stored
    print(f"folder: {count} tensors, {elements} values, all equal")


def test_spec_of_the_real_folder():
    folder = required("LANNER_TEST_MODEL_DIR")
    config = json.loads(pathlib.Path(folder, "config.json").read_text(encoding="utf-8"))
    result = probe_spec(folder)
    spec = result["spec"]
    assert spec["architecture"] == config["architectures"][0]
    assert spec["vocab"] == config["vocab_size"]
    assert spec["hidden"] == config["hidden_size"]
    assert spec["intermediate"] == config["intermediate_size"]
    assert len(spec["layers"]) == config["num_hidden_layers"]
    assert spec["heads"] == config["num_attention_heads"]
    assert spec["kv_heads"] == config["num_key_value_heads"]
    assert spec["head_dim"] == config["head_dim"]
    assert spec["norm_eps"] == config["rms_norm_eps"]
    assert spec["rope_theta"] == config["rope_theta"]
    assert (spec["head"] == spec["embedding"]) == config["tie_word_embeddings"]
    tokenizer = json.loads(pathlib.Path(folder, "tokenizer_config.json").read_text(encoding="utf-8"))
    assert result["chat_template"] == tokenizer.get("chat_template", "")
    for ours, theirs in (("bos", "bos_token"), ("eos", "eos_token"), ("unk", "unk_token"), ("pad", "pad_token")):
        assert result[ours] == (tokenizer.get(theirs) or "")


def random_blocks(rng, kind, rows, cols):
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    data = rng.integers(0, 256, (rows * cols // block, size), dtype=np.uint8)
    for position in BLOCK_HALVES[kind]:
        halves = (rng.standard_normal(len(data)) * 0.01).astype(np.float16)
        halves[: min(3, len(data))] = [0.0, 6.0e-8, -65504.0][: min(3, len(data))]  # zero, subnormal, largest
        data[:, position : position + 2] = halves.view(np.uint8).reshape(-1, 2)
    return data.reshape(rows, cols // block * size)


def write_random_gguf(path, kind, rows, cols):
    rng = np.random.default_rng(zlib.crc32(f"{kind} {rows} {cols}".encode()))
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_uint32("llama.block_count", 1)
    if kind in BLOCK_HALVES:
        raw_type = gguf.GGMLQuantizationType[kind]
        writer.add_tensor("some.weight", random_blocks(rng, kind, rows, cols), raw_dtype=raw_type)
    else:
        values = rng.standard_normal((rows, cols)).astype(np.float32)
        if kind == "F16":
            values = values.astype(np.float16)
        if kind == "BF16":
            bits = (values.view(np.uint32) >> 16).astype(np.uint16)
            writer.add_tensor("some.weight", bits.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor("some.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kind", list(INTERNAL_FORMAT))
@pytest.mark.parametrize("rows,cols", [(1, 256), (7, 512), (64, 1280)])
def test_random_gguf_of_every_type(tmp_path, kind, rows, cols):
    path = tmp_path / f"{kind}.gguf"
    write_random_gguf(path, kind, rows, cols)
    (tensor,) = gguf.GGUFReader(path).tensors
    expected = gguf_values(tensor)
    with Probe(path) as probe:
        values, internal = probe.tensor("some.weight", (rows, cols))
        assert internal == INTERNAL_FORMAT[kind]
        assert ulp_distance(values, expected) == 0
        if rows % 2 == 0:
            rows_undone, _ = probe.tensor("some.weight", (rows, cols), heads=4)
            assert ulp_distance(rows_undone, plain_rope_rows(expected, 4)) == 0
