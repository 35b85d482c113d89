"""AWQ as LMDeploy computes it, once more in NumPy: windows, statistics, scales, rounding, packing; and the search for scales.

Written from the formulas, not from src/quant; everything in fp32. The forward pass is that of a Llama, and of an InternLM2
by its names.
"""

import random

import numpy as np

ROW_OF_NIBBLE = [0, 2, 4, 6, 1, 3, 5, 7]
F = np.float32


def windows(tokens, samples, seqlen):
    random.seed(0)
    begins = [random.randint(0, len(tokens) - seqlen) for _ in range(samples)]
    return [tokens[begin : begin + seqlen] for begin in begins]


def round_groups(weight, group, symmetric=False):
    """(rows, cols) -> codes (rows, cols), zeros and scales (rows, groups); the scale is the one that fp16 stores."""
    rows, cols = weight.shape
    grouped = weight.astype(F).reshape(rows, cols // group, group)
    low, high = np.minimum(grouped.min(axis=2), 0), np.maximum(grouped.max(axis=2), 0)
    if symmetric:
        high = np.maximum(-low, high)
        low = -high
    scales = (np.maximum(high - low, F(1e-5)) / F(15)).astype(np.float16)
    wide = scales.astype(F)
    zeros = np.full_like(wide, 8) if symmetric else np.clip(-np.rint(low / wide), 0, 15)
    codes = np.clip(np.rint(grouped / wide[:, :, None]) + zeros[:, :, None], 0, 15)
    return codes.reshape(rows, cols).astype(np.uint32), zeros.astype(np.uint32), scales


def pack_words(rows_last):
    """(n, rows) of 0..15 -> (n, rows / 8): word c holds rows 8 c to 8 c + 7."""
    n, rows = rows_last.shape
    octets = rows_last.reshape(n, rows // 8, 8)
    words = np.zeros((n, rows // 8), np.uint32)
    for nibble, row in enumerate(ROW_OF_NIBBLE):
        words |= octets[:, :, row] << np.uint32(4 * nibble)
    return words.view(np.int32)


def pack(weight, group, symmetric=False):
    codes, zeros, scales = round_groups(weight, group, symmetric)
    return {"qweight": pack_words(codes.T), "qzeros": pack_words(zeros.T), "scales": np.ascontiguousarray(scales.T)}


def unpack_words(words):
    n, count = words.shape
    rows = np.zeros((n, count, 8), np.uint32)
    for nibble, row in enumerate(ROW_OF_NIBBLE):
        rows[:, :, row] = words.view(np.uint32) >> np.uint32(4 * nibble) & np.uint32(15)
    return rows.reshape(n, count * 8)


def dequantize(tensors, module):
    """(rows, cols) in fp32 of what a folder holds."""
    codes = unpack_words(tensors[f"{module}.qweight"]).astype(F)
    zeros = unpack_words(tensors[f"{module}.qzeros"]).astype(F)
    scales = tensors[f"{module}.scales"].astype(F)
    group = codes.shape[0] // zeros.shape[0]
    return ((codes - zeros.repeat(group, axis=0)) * scales.repeat(group, axis=0)).T


def relative_weights(weights, group):
    joined = np.concatenate(weights).astype(F)
    grouped = np.abs(joined).reshape(joined.shape[0], -1, group or joined.shape[1])  # none: rows are groups
    share = grouped / grouped.max(axis=2, keepdims=True)
    return share.reshape(joined.shape).astype(np.float64).mean(axis=0).astype(F)


def scales_of(inputs, weights, group, gain=None, of_inputs=0.5, of_weights=0.5):
    w = relative_weights(weights, group)
    s = np.maximum(inputs.astype(F) ** F(of_inputs) / np.maximum(w ** F(of_weights), F(1e-4)), F(1e-4))
    counted = s if gain is None else s[gain != 0]
    s = s / np.sqrt(counted.max() * counted.min())
    if gain is not None:
        s[gain == 0] = 1
    return s


class Llama:
    """A Llama in NumPy that remembers the greatest and the mean magnitude of what its Linears read."""

    def __init__(self, config, tensors):
        self.c, self.t = config, {name: value.astype(F) for name, value in tensors.items()}
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.dim = config.get("head_dim") or config["hidden_size"] // self.heads
        self.absmax, self.sums, self.rows = {}, {}, {}

    def see(self, name, values):
        most = np.abs(values).max(axis=0)
        self.absmax[name] = np.maximum(self.absmax.get(name, 0), most)
        self.sums[name] = self.sums.get(name, 0) + np.abs(values).sum(axis=0, dtype=np.float64)
        self.rows[name] = self.rows.get(name, 0) + len(values)

    def absmean(self, name):
        return (self.sums[name] / self.rows[name]).astype(F)

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(axis=1, keepdims=True) + F(self.c["rms_norm_eps"])) * self.t[name]

    def linear(self, x, name):
        y = x @ self.t[f"{name}.weight"].T
        return y + self.t[f"{name}.bias"] if f"{name}.bias" in self.t else y

    def rotate(self, x):
        half = self.dim // 2
        angles = np.arange(x.shape[0])[:, None] * self.c["rope_theta"] ** (-np.arange(half) / half)
        cos, sin = np.cos(angles)[:, None].astype(F), np.sin(angles)[:, None].astype(F)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def embed(self, tokens):
        return self.t["model.embed_tokens.weight"][tokens]

    def forward(self, tokens):
        x = self.embed(tokens)
        for i in range(self.c["num_hidden_layers"]):
            x = self.layer(i, x)
        return x

    def layer(self, i, x):
        return self.mlp(i, self.attention(i, x))

    def attention(self, i, x):
        n = len(x)
        mask = np.triu(np.full((n, n), -np.inf, F), 1)
        p = f"model.layers.{i}."
        a = self.norm(x, p + "input_layernorm.weight")
        self.see((i, "qkv"), a)
        q = self.rotate(self.linear(a, p + "self_attn.q_proj").reshape(n, self.heads, self.dim))
        k = self.rotate(self.linear(a, p + "self_attn.k_proj").reshape(n, self.kv_heads, self.dim))
        v = self.linear(a, p + "self_attn.v_proj").reshape(n, self.kv_heads, self.dim)
        k, v = (z.repeat(self.heads // self.kv_heads, axis=1) for z in (k, v))
        scores = np.einsum("nhd,mhd->hnm", q, k) / F(np.sqrt(self.dim)) + mask
        scores = np.exp(scores - scores.max(axis=2, keepdims=True))
        scores /= scores.sum(axis=2, keepdims=True)
        attended = np.einsum("hnm,mhd->nhd", scores, v).reshape(n, -1)
        self.see((i, "o"), attended)
        return x + self.linear(attended, p + "self_attn.o_proj")

    def mlp(self, i, x):
        p = f"model.layers.{i}."
        m = self.norm(x, p + "post_attention_layernorm.weight")
        self.see((i, "mlp"), m)
        g = self.linear(m, p + "mlp.gate_proj")
        h = g / (1 + np.exp(-g)) * self.linear(m, p + "mlp.up_proj")
        self.see((i, "down"), h)
        return x + self.linear(h, p + "mlp.down_proj")


def smooth(model, layer, group):
    """The layer's tensors after smoothing, by name, and the scales of each of its groups."""
    p = f"model.layers.{layer}."
    t = {name: value.copy() for name, value in model.t.items() if name.startswith(p)}
    scales = {}

    def behind_norm(what, norm, linears):
        gain = t[f"{p}{norm}.weight"]
        s = scales[what] = scales_of(model.absmax[layer, what], [t[f"{p}{name}.weight"] for name in linears], group, gain)
        gain /= s
        for name in linears:
            t[f"{p}{name}.weight"] *= s

    def behind_linear(what, front, back):
        s = scales[what] = scales_of(model.absmax[layer, what], [t[f"{p}{back}.weight"]], group)
        for name in (f"{p}{front}.weight", f"{p}{front}.bias"):
            if name in t:
                t[name] /= s[:, None] if t[name].ndim == 2 else s
        t[f"{p}{back}.weight"] *= s

    behind_norm("qkv", "input_layernorm", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"])
    behind_norm("mlp", "post_attention_layernorm", ["mlp.gate_proj", "mlp.up_proj"])
    if model.heads == model.kv_heads:
        behind_linear("o", "self_attn.v_proj", "self_attn.o_proj")
    behind_linear("down", "mlp.up_proj", "mlp.down_proj")
    return t, scales


# What a search tries, with what is taken of the inputs, and the exponents of inputs and weights.
TWENTIETHS = [i / 20 for i in range(20)]
FORMULAS = [*(("absmean", r, 0.0) for r in TWENTIETHS), ("absmax", 0.5, 0.5), *(("absmean", r, 1 - r) for r in TWENTIETHS)]
# In the order of the search: what a group reads, the norm in front of it, its Linears, and the block that it is in.
SEARCHED = [("qkv", "input_layernorm", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], "attention"),
            ("mlp", "post_attention_layernorm", ["mlp.gate_proj", "mlp.up_proj"], "mlp"),
            ("o", None, ["self_attn.o_proj"], "attention"),
            ("down", None, ["mlp.down_proj"], "mlp")]


def rounded(weight, group):
    codes, zeros, scales = round_groups(weight, group)
    wide = [value.astype(F).repeat(group, axis=1) for value in (zeros, scales)]
    return (codes.astype(F) - wide[0]) * wide[1]


def search(model, layer, samples, group):
    """{what a group reads: [(scales, error)] of each of FORMULAS}. `samples`: hidden states in front of the layer. Groups that
    have been searched stay rounded by the best."""
    p = f"model.layers.{layer}."
    trial = Llama(model.c, {})
    trial.t = dict(model.t)
    between = [model.attention(layer, x) for x in samples]
    blocks = {"attention": (samples, between), "mlp": (between, [model.mlp(layer, x) for x in between])}
    found = {}
    for what, norm, linears, block in SEARCHED:
        if what == "o" and model.heads != model.kv_heads:
            continue
        names = [f"{p}{name}.weight" for name in linears]
        gain = model.t[f"{p}{norm}.weight"] if norm else None
        tried = []
        for kind, of_inputs, of_weights in FORMULAS:
            inputs = model.absmax[layer, what] if kind == "absmax" else model.absmean((layer, what))
            s = scales_of(inputs, [model.t[name] for name in names], group, gain, of_inputs, of_weights)
            for name in names:
                trial.t[name] = rounded(model.t[name] * s, group) / s
            tried.append((s, sum(squared_error(getattr(trial, block)(layer, x), y) for x, y in zip(*blocks[block]))))
        best = min(tried, key=lambda one: one[1])[0]
        for name in names:
            trial.t[name] = rounded(model.t[name] * best, group) / best
        found[what] = tried
    return found


def squared_error(got, wanted):
    return float(((got - wanted) ** 2).sum(dtype=np.float64))
