#!/usr/bin/env python3
"""Times `lanner chat` from the start of its process to the first text of its answer, with weights in the page cache.

    start_time.py LANNER FOLDER [--runs 3] [--limit SECONDS] [flags of lanner chat]

FOLDER gets, where it is not there yet, a checkpoint of 3.8 GB: the shape of InternLM2-1.8B as Llama, fp16, random values, two
shards, and a tokenizer of its size. It is read once before the first run. Ends with 1 when the median is over the limit.
Needs numpy.
"""

import argparse
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
    "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 92544,
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "hidden_act": "silu",
    "tie_word_embeddings": False, "torch_dtype": "float16",
}
SHARDS = 2
POOL = 1 << 24  # random values, of which every tensor is a piece or several


def shapes():
    hidden, mlp, vocab = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["vocab_size"]
    kv = CONFIG["num_key_value_heads"] * CONFIG["head_dim"]
    result = {"model.embed_tokens.weight": (vocab, hidden)}
    for i in range(CONFIG["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        result |= {
            layer + "input_layernorm.weight": (hidden,), layer + "post_attention_layernorm.weight": (hidden,),
            layer + "self_attn.q_proj.weight": (hidden, hidden), layer + "self_attn.k_proj.weight": (kv, hidden),
            layer + "self_attn.v_proj.weight": (kv, hidden), layer + "self_attn.o_proj.weight": (hidden, hidden),
            layer + "mlp.gate_proj.weight": (mlp, hidden), layer + "mlp.up_proj.weight": (mlp, hidden),
            layer + "mlp.down_proj.weight": (hidden, mlp),
        }
    return result | {"model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}


def write_shard(path, tensors, pool, dtype="F16", one=np.float16(1)):
    """The safetensors format: the header's length, the header, the tensors one behind the other. `pool` has elements of
    `dtype`, of which `one` is the gain of norms."""
    header, at = {}, 0
    for name, shape in tensors.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for index, (name, shape) in enumerate(tensors.items()):
            count = int(np.prod(shape))
            if len(shape) == 1:
                file.write(np.full(count, one).tobytes())
                continue
            start = index * 7919 % POOL
            for first in range(0, count, POOL):
                file.write(np.roll(pool, -start)[: min(POOL, count - first)].tobytes())


def tokenizer():
    """Byte-level BPE with as many tokens as the model has: bytes, then words of two, three and more letters."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    letters |= {byte: chr(256 + i) for i, byte in enumerate(b for b in range(256) if b not in letters)}
    vocab = {letters[byte]: byte for byte in range(256)}
    merges = []
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    parts = [*alphabet]
    while len(vocab) < CONFIG["vocab_size"]:
        longer = []
        for left, right in itertools.product(parts, alphabet):
            if len(vocab) == CONFIG["vocab_size"]:
                break
            vocab[left + right] = len(vocab)
            merges.append([left, right])
            longer.append(left + right)
        parts = longer
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": merges}}


def write_checkpoint(folder):
    folder.mkdir(parents=True, exist_ok=True)
    pool = (np.random.default_rng(1).standard_normal(POOL, np.float32) * 0.02).astype(np.float16)
    tensors = list(shapes().items())
    half = len(tensors) // SHARDS
    index = {}
    for shard in range(SHARDS):
        mine = dict(tensors[shard * half : (shard + 1) * half if shard + 1 < SHARDS else None])
        name = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        write_shard(folder / name, mine, pool)
        index |= dict.fromkeys(mine, name)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}), encoding="utf-8")


def read_once(folder):
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            while file.read(1 << 26):
                pass


def first_text(command):
    """Seconds to the first byte of the answer and to the end of the process, and what it says of loading."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(b"hello\n")
    process.stdin.close()
    first = process.stdout.read(1)
    seconds = time.monotonic() - began
    process.stdout.read()
    errors = process.stderr.read().decode(errors="replace")
    if process.wait() != 0 or not first:
        sys.exit(f"{' '.join(command)}: exit {process.returncode}: {errors[-1000:]}")
    loading = next((line for line in errors.splitlines() if line.startswith("loading")), "")
    return seconds, time.monotonic() - began, loading


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lanner", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--limit", type=float, default=2.5)
    arguments, flags = parser.parse_known_args()
    if not (arguments.folder / "model.safetensors.index.json").exists():
        write_checkpoint(arguments.folder)
    read_once(arguments.folder)
    command = [str(arguments.lanner.resolve()), "chat", str(arguments.folder), "--max-new-tokens", "8", "--greedy", "--verbose",
               *flags]
    times = []
    for _ in range(arguments.runs):
        first, whole, loading = first_text(command)
        times.append(first)
        print(f"first text after {first:.2f} s, end after {whole:.2f} s; {loading}", flush=True)
    median = statistics.median(times)
    print(f"median {median:.2f} s, limit {arguments.limit} s")
    return 0 if median <= arguments.limit else 1


if __name__ == "__main__":
    sys.exit(main())
