#!/usr/bin/env python3
"""Writes a folder of the shape of InternLM2-Chat-1.8B: bf16, random values, a tokenizer of its size (3.8 GB).

    write_course_model.py FOLDER [--layers 24]

What the course quantizes, for measuring time and memory where the real weights cannot be had:
`lanner lite auto_awq FOLDER --calib-dataset ptb ...`. Needs numpy.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "gpu"))
import start_time  # noqa: E402

HIDDEN, MLP, VOCAB, HEADS, KV_HEADS = 2048, 8192, 92544, 16, 8
CONFIG = {
    "architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", "hidden_size": HIDDEN, "intermediate_size": MLP,
    "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": VOCAB, "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-05, "rope_theta": 1000000, "hidden_act": "silu", "bias": False, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
LAYERS_OF_A_SHARD = 12
ONE = np.uint16(0x3F80)  # in bf16


def layer_shapes(index):
    layer = f"model.layers.{index}."
    head = HIDDEN // HEADS
    return {
        layer + "attention_norm.weight": (HIDDEN,), layer + "ffn_norm.weight": (HIDDEN,),
        layer + "attention.wqkv.weight": ((HEADS + 2 * KV_HEADS) * head, HIDDEN), layer + "attention.wo.weight": (HIDDEN, HIDDEN),
        layer + "feed_forward.w1.weight": (MLP, HIDDEN), layer + "feed_forward.w3.weight": (MLP, HIDDEN),
        layer + "feed_forward.w2.weight": (HIDDEN, MLP),
    }


def write_model(folder, layers):
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(1).standard_normal(start_time.POOL, np.float32) * np.float32(0.02)
    pool = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    shards = [{"model.tok_embeddings.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,), "output.weight": (VOCAB, HIDDEN)}]
    for first in range(0, layers, LAYERS_OF_A_SHARD):
        shards.append({})
        for index in range(first, min(layers, first + LAYERS_OF_A_SHARD)):
            shards[-1] |= layer_shapes(index)
    places = {}
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        start_time.write_shard(folder / name, tensors, pool, "BF16", ONE)
        places |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}), encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(start_time.tokenizer()), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=24)
    arguments = parser.parse_args()
    write_model(arguments.folder, arguments.layers)


if __name__ == "__main__":
    main()
