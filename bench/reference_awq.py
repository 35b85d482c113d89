#!/usr/bin/env python3
"""AWQ by its formulas, without this project's code: Transformers computes what layers read, NumPy smooths and rounds.

    bench/reference_awq.py MODEL TEXT OUT --group-size 64 [--samples 128] [--seqlen 1024] [--plain] [--device cuda]

MODEL is a Hugging Face folder of a Llama, TEXT a text or a .json list of token ids. OUT becomes the same folder in fp32, whose
layers' matrices are those of MODEL after rounding, so that whatever measures MODEL can measure OUT: bench/weights_table.py
holds `lanner lite auto_awq` against it. --plain rounds without smoothing.

The formulas, of LMDeploy's `lite auto_awq`:

- Calibration. The text is tokenized once; after random.seed(0) each sample begins at randint(0, tokens - seqlen). Of each input
  channel of the layers' products: a_j, the greatest magnitude over all samples.
- Smoothing. For Linears that share an input: w_j = mean over their rows of |W_rj| / max |W_r| in the group of columns that j
  is in; s_j = sqrt(a_j) / sqrt(w_j), both at least 1e-4; s /= sqrt(max(s) min(s)); 1 where the norm's gain is 0. Columns of the
  Linears times s_j, and what makes the input divided by it: the gain of the norm (q, k, v; gate, up) or the rows of the Linear
  in front (v for o where heads are not shared; up for down).
- Rounding. In each group of a row: scale = max(largest - smallest, 1e-5) / 15, as fp16 stores it; zero = -round(smallest /
  scale), from 0 to 15; code = round(w / scale) + zero, from 0 to 15; w becomes (code - zero) * scale.

Needs torch, transformers, tokenizers, safetensors, numpy.
"""

import argparse
import json
import pathlib
import random
import sys
import time

import numpy as np
import tokenizers
import torch
import transformers
from model_folders import folder_argument, layer_matrices, new_folder_argument, read_config, read_tensors, write_folder

LEAST = np.float32(1e-4)
# What is read, by the first of the Linears that read it.
INPUTS = {"self_attn.q_proj": "attention", "self_attn.o_proj": "attention out", "mlp.gate_proj": "mlp", "mlp.down_proj": "down"}


def draw_windows(ids, samples, seqlen):
    if len(ids) < seqlen:
        raise SystemExit(f"the text has {len(ids)} tokens, a sample {seqlen}")
    random.seed(0)
    begins = [random.randint(0, len(ids) - seqlen) for _ in range(samples)]
    return [ids[begin : begin + seqlen] for begin in begins]


def read_tokens(folder, path):
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(content)
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(content).ids


def greatest_inputs(folder, windows, device):
    """{(layer, input): greatest magnitude of each channel} over all windows."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").to(device).eval()
    greatest = {}

    def watch(module, key):
        def see(_, inputs):
            most = inputs[0].detach().abs().flatten(0, -2).amax(dim=0)
            greatest[key] = torch.maximum(greatest[key], most) if key in greatest else most

        module.register_forward_pre_hook(see)

    for index, layer in enumerate(model.model.layers):
        for name, which in INPUTS.items():
            watch(layer.get_submodule(name), (index, which))
    with torch.no_grad():
        for window in windows:
            model.model(torch.tensor([window], device=device), use_cache=False)
    return {key: value.float().cpu().numpy() for key, value in greatest.items()}


def relative_weights(matrices, group):
    """w: (columns)."""
    joined = np.abs(np.concatenate(matrices))
    rows, columns = joined.shape
    grouped = joined.reshape(rows, columns // group, group)
    most = grouped.max(axis=2, keepdims=True)
    shares = np.divide(grouped, most, out=np.zeros_like(grouped), where=most > 0)
    return shares.reshape(rows, columns).mean(axis=0, dtype=np.float64).astype(np.float32)


def smoothing_scales(inputs, matrices, group, gain=None):
    weights = np.maximum(np.sqrt(relative_weights(matrices, group)), LEAST)
    scales = np.maximum(np.sqrt(inputs) / weights, LEAST)
    counted = np.ones(len(scales), bool) if gain is None else gain != 0
    scales = scales / np.sqrt(scales[counted].max() * scales[counted].min())
    return np.where(counted, scales, np.float32(1))


def smooth_layer(tensors, index, greatest, group, shared_heads):
    """Changes the tensors of one layer."""
    prefix = f"model.layers.{index}."

    def matrices(names):
        return [tensors[f"{prefix}{name}.weight"] for name in names]

    def multiply_columns(names, scales):
        for name in names:
            tensors[f"{prefix}{name}.weight"] = tensors[f"{prefix}{name}.weight"] * scales

    for norm, which, names in (
        ("input_layernorm", "attention", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
        ("post_attention_layernorm", "mlp", ("mlp.gate_proj", "mlp.up_proj")),
    ):
        gain = tensors[f"{prefix}{norm}.weight"]
        scales = smoothing_scales(greatest[index, which], matrices(names), group, gain)
        tensors[f"{prefix}{norm}.weight"] = gain / scales
        multiply_columns(names, scales)
    pairs = [("mlp.up_proj", "down", "mlp.down_proj")]
    if not shared_heads:
        pairs.append(("self_attn.v_proj", "attention out", "self_attn.o_proj"))
    for front, which, name in pairs:
        scales = smoothing_scales(greatest[index, which], matrices((name,)), group)
        tensors[f"{prefix}{front}.weight"] = tensors[f"{prefix}{front}.weight"] / scales[:, None]
        if f"{prefix}{front}.bias" in tensors:
            tensors[f"{prefix}{front}.bias"] = tensors[f"{prefix}{front}.bias"] / scales
        multiply_columns((name,), scales)


def rounded(matrix, group):
    rows, columns = matrix.shape
    grouped = matrix.reshape(rows, columns // group, group)
    smallest, largest = grouped.min(axis=2, keepdims=True), grouped.max(axis=2, keepdims=True)
    scale = (np.maximum(largest - smallest, np.float32(1e-5)) / np.float32(15)).astype(np.float16).astype(np.float32)
    zero = np.clip(-np.rint(smallest / scale), 0, 15)
    codes = np.clip(np.rint(grouped / scale) + zero, 0, 15)
    return ((codes - zero) * scale).reshape(rows, columns)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=folder_argument)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("out", type=new_folder_argument)
    parser.add_argument("--group-size", type=int, required=True)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--seqlen", type=int, default=1024)
    parser.add_argument("--plain", action="store_true", help="round without smoothing")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="of the processor")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    begin = time.monotonic()
    config, tensors = read_config(arguments.model), read_tensors(arguments.model)
    if not arguments.plain:
        windows = draw_windows(read_tokens(arguments.model, arguments.text), arguments.samples, arguments.seqlen)
        greatest = greatest_inputs(arguments.model, windows, arguments.device)
        shared_heads = config["num_key_value_heads"] != config["num_attention_heads"]
        for index in range(config["num_hidden_layers"]):
            smooth_layer(tensors, index, greatest, arguments.group_size, shared_heads)
    names = layer_matrices(tensors)
    for name in names:
        tensors[name] = rounded(tensors[name], arguments.group_size)
    write_folder(arguments.model, arguments.out, tensors)
    print(f"{arguments.out}: {len(names)} matrices in groups of {arguments.group_size}, {time.monotonic() - begin:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
