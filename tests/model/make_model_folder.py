#!/usr/bin/env python3
"""Makes a Hugging Face folder out of the default model's GGUF file, for the tests that need one.

    python tests/model/make_model_folder.py MODEL.gguf FOLDER

Weights are widened to fp32, q and k rows put back into the order of Transformers, and the vocabulary written as a
tokenizer.json of the `tokenizers` package. It knows the one model that it is for (Llama architecture, vocabulary of
kind gpt2 with the pre-tokenizer smollm) and refuses others. The folder appears only when it is complete.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import save_file

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
END_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
CONTROL, USER_DEFINED = 3, 4


def rows_in_halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp interleaves the two halves of each head's rows; this undoes it."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).transpose(0, 2, 1, 3).reshape(rows, columns)


def tensors_of(reader: GGUFReader, heads: int, kv_heads: int) -> dict[str, np.ndarray]:
    tensors = {}
    for tensor in reader.tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(shape)
        if tensor.name in END_NAMES:
            name = END_NAMES[tensor.name]
        else:
            _, layer, kind, _ = tensor.name.split(".")
            if kind in ("attn_q", "attn_k"):
                values = rows_in_halves(values, heads if kind == "attn_q" else kv_heads)
            name = f"model.layers.{layer}.{LAYER_NAMES[kind]}.weight"
        tensors[name] = np.ascontiguousarray(values)
    return tensors


def tokenizer_json(tokens: list[str], types: list[int], merges: list[str]) -> dict:
    added = [
        {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": kind == CONTROL}
        for i, (token, kind) in enumerate(zip(tokens, types)) if kind in (CONTROL, USER_DEFINED)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence",
                          "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {token: i for i, token in enumerate(tokens)},
                  "merges": [merge.split(" ", 1) for merge in merges]},
    }


def write_folder(gguf: Path, folder: Path) -> None:
    reader = GGUFReader(gguf)
    meta = {name: field.contents() for name, field in reader.fields.items()}
    if (meta["general.architecture"], meta["tokenizer.ggml.pre"]) != ("llama", "smollm"):
        sys.exit(f"{gguf}: not the model that this script is for")
    heads, kv_heads = meta["llama.attention.head_count"], meta["llama.attention.head_count_kv"]
    hidden, tokens = meta["llama.embedding_length"], meta["tokenizer.ggml.tokens"]
    special = {name: meta[f"tokenizer.ggml.{key}_token_id"]
               for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))}
    ids = {f"{name}_token_id": token for name, token in special.items()}
    texts = {f"{name}_token": tokens[token] for name, token in special.items()}
    files = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": len(tokens),
            "hidden_size": hidden, "intermediate_size": meta["llama.feed_forward_length"],
            "num_hidden_layers": meta["llama.block_count"], "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "head_dim": hidden // heads,
            "max_position_embeddings": meta["llama.context_length"],
            "rms_norm_eps": float("%.6g" % meta["llama.attention.layer_norm_rms_epsilon"]),
            "rope_theta": float(meta["llama.rope.freq_base"]), "hidden_act": "silu", "attention_bias": False,
            "mlp_bias": False, "tie_word_embeddings": True, "torch_dtype": "float32", **ids},
        "generation_config.json": ids,
        "tokenizer.json": tokenizer_json(tokens, meta["tokenizer.ggml.token_type"], meta["tokenizer.ggml.merges"]),
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": False,
                                  "clean_up_tokenization_spaces": False,
                                  "chat_template": meta["tokenizer.chat_template"],
                                  "model_max_length": meta["llama.context_length"], **texts},
    }
    part = folder.with_name(folder.name + f".part-{os.getpid()}")
    part.mkdir(parents=True)
    try:
        for name, content in files.items():
            (part / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        save_file(tensors_of(reader, heads, kv_heads), part / "model.safetensors", metadata={"format": "pt"})
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    if not Path(sys.argv[2], "model.safetensors").exists():
        write_folder(Path(sys.argv[1]), Path(sys.argv[2]))
