"""Models that Transformers does not have, in plain PyTorch, written from the code that is published with their checkpoints.

Each class takes the configuration and the tensors of tiny_models.py under the checkpoint's own names, and computes logits
for a list of tokens in fp32, without a cache. Nothing here follows src/: rows are split as the published code views them,
rotations are those of the published code (halves, or neighbouring pairs as complex numbers), ALiBi is a matrix that is added.
"""

import math

import torch
import torch.nn.functional as F


def rms_norm(x, gain, eps):
    return gain * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


def rotate_halves(x, base):
    """x (tokens, heads, dim): cat(freqs, freqs), and rotate_half."""
    tokens, _, dim = x.shape
    frequencies = 1.0 / (base ** (torch.arange(0, dim, 2).float() / dim))
    angles = torch.outer(torch.arange(tokens).float(), frequencies)
    angles = torch.cat((angles, angles), -1)[:, None]
    first, second = x[..., : dim // 2], x[..., dim // 2 :]
    return x * angles.cos() + torch.cat((-second, first), -1) * angles.sin()


def dynamic_base(base, dim, factor, trained, session_len):
    """The base that the published classes of dynamic NTK reach for a sequence of `session_len` tokens."""
    if session_len <= trained:
        return base
    return base * ((factor * session_len / trained) - (factor - 1)) ** (dim / (dim - 2))


def attend(q, k, v, bias=None):
    """q (tokens, heads, dim), k and v (tokens, kv_heads, dim); bias (heads, tokens, tokens) is added to the scaled scores."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(q.shape[-1])
    if bias is not None:
        scores = scores + bias
    future = torch.triu(torch.ones(q.shape[0], q.shape[0], dtype=torch.bool), 1)
    weights = scores.masked_fill(future, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v).flatten(1)


class Remote:
    """Llama's frame; a family says how its layers attend and what its MLP is."""

    layer_prefix = "model.layers.{}."
    embedding, final_norm, head = "model.embed_tokens", "model.norm", "lm_head"
    attention_norm, mlp_norm = "input_layernorm", "post_attention_layernorm"

    def __init__(self, config, tensors, session_len):
        self.c, self.t, self.session_len = config, tensors, session_len
        self.hidden, self.heads = config["hidden_size"], config["num_attention_heads"]
        self.kv_heads = config.get("num_key_value_heads", self.heads)
        self.head_dim = self.hidden // self.heads
        self.layers = config.get("num_hidden_layers") or config["num_layers"]
        self.eps = config.get("rms_norm_eps")

    def linear(self, name, x):
        return F.linear(x, self.t[name + ".weight"], self.t.get(name + ".bias"))

    def norm(self, name, x):
        return rms_norm(x, self.t[name + ".weight"], self.eps)

    def split(self, x, heads):
        return x.view(x.shape[0], heads, self.head_dim)

    def embed(self, tokens):
        return F.embedding(tokens, self.t[self.embedding + ".weight"])

    def attention(self, prefix, x):
        raise NotImplementedError

    def mlp(self, prefix, x):
        gate = F.silu(self.linear(prefix + "mlp.gate_proj", x))
        return self.linear(prefix + "mlp.down_proj", gate * self.linear(prefix + "mlp.up_proj", x))

    def add(self, x, y):
        return x + y

    def project_head(self, x):
        return self.linear(self.head, x)

    def logits(self, tokens):
        x = self.embed(torch.tensor(tokens))
        for i in range(self.layers):
            prefix = self.layer_prefix.format(i)
            x = self.add(x, self.attention(prefix, self.norm(prefix + self.attention_norm, x)))
            x = self.add(x, self.mlp(prefix, self.norm(prefix + self.mlp_norm, x)))
        return self.project_head(self.norm(self.final_norm, x))


class InternLM(Remote):
    """modeling_internlm.py: q, k, v and o with biases; rotary {"base", "type"}."""

    def attention(self, prefix, x):
        rotary = self.c["rotary"]
        base = rotary["base"]
        if rotary["type"] == "dynamic":
            base = dynamic_base(base, self.head_dim, rotary["scaling_factor"], self.c["max_position_embeddings"],
                                self.session_len)
        q, k, v = (self.split(self.linear(f"{prefix}self_attn.{n}_proj", x), self.heads) for n in "qkv")
        return self.linear(prefix + "self_attn.o_proj", attend(rotate_halves(q, base), rotate_halves(k, base), v))


class InternLM2(Remote):
    """modeling_internlm2.py: wqkv viewed as (kv_heads, q_per_kv + 2, head_dim); w2(silu(w1 x) * w3 x)."""

    embedding, head = "model.tok_embeddings", "output"
    attention_norm, mlp_norm = "attention_norm", "ffn_norm"

    def attention(self, prefix, x):
        base, scaling = self.c["rope_theta"], self.c.get("rope_scaling")
        if scaling and scaling["type"] == "dynamic":
            base = dynamic_base(base, self.head_dim, scaling["factor"], self.c["max_position_embeddings"],
                                self.session_len)
        per_kv = self.heads // self.kv_heads
        qkv = self.linear(prefix + "attention.wqkv", x).view(x.shape[0], self.kv_heads, per_kv + 2, self.head_dim)
        q = qkv[:, :, :per_kv].flatten(1, 2)
        q, k = rotate_halves(q, base), rotate_halves(qkv[:, :, -2], base)
        return self.linear(prefix + "attention.wo", attend(q, k, qkv[:, :, -1]))

    def mlp(self, prefix, x):
        inner = F.silu(self.linear(prefix + "feed_forward.w1", x)) * self.linear(prefix + "feed_forward.w3", x)
        return self.linear(prefix + "feed_forward.w2", inner)


class QWen(Remote):
    """modeling_qwen.py: c_attn split into thirds, w1(x) * silu(w2(x)), and within seq_length neither NTK nor logn."""

    layer_prefix = "transformer.h.{}."
    embedding, final_norm, attention_norm, mlp_norm = "transformer.wte", "transformer.ln_f", "ln_1", "ln_2"

    def __init__(self, config, tensors, session_len):
        super().__init__(config, tensors, session_len)
        self.eps = config["layer_norm_epsilon"]

    def attention(self, prefix, x):
        q, k, v = (self.split(part, self.heads) for part in self.linear(prefix + "attn.c_attn", x).split(self.hidden, -1))
        base = self.c["rotary_emb_base"]
        return self.linear(prefix + "attn.c_proj", attend(rotate_halves(q, base), rotate_halves(k, base), v))

    def mlp(self, prefix, x):
        inner = self.linear(prefix + "mlp.w1", x) * F.silu(self.linear(prefix + "mlp.w2", x))
        return self.linear(prefix + "mlp.c_proj", inner)


class Baichuan7B(Remote):
    """modeling_baichuan.py of Baichuan-7B: W_pack is q, k, v."""

    def attention(self, prefix, x):
        q, k, v = (self.split(part, self.heads) for part in self.linear(prefix + "self_attn.W_pack", x).chunk(3, -1))
        return self.linear(prefix + "self_attn.o_proj", self.mix(q, k, v))

    def mix(self, q, k, v):
        return attend(rotate_halves(q, 10000.0), rotate_halves(k, 10000.0), v)


def interleaved_slopes(heads):
    """_get_interleave of modeling_baichuan.py."""

    def of_power(n):
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    if math.log2(heads).is_integer():
        return of_power(heads)
    closest = 2 ** math.floor(math.log2(heads))
    return of_power(closest) + interleaved_slopes(2 * closest)[0::2][: heads - closest]


class Baichuan2Of13B(Baichuan7B):
    """Baichuan2-13B: ALiBi, and a head that is normalized (NormHead)."""

    def mix(self, q, k, v):
        tokens = torch.arange(q.shape[0])
        slopes = torch.tensor(interleaved_slopes(self.heads))
        return attend(q, k, v, slopes[:, None, None] * (tokens[None, :] - tokens[:, None])[None])

    def project_head(self, x):
        return F.linear(x, F.normalize(self.t["lm_head.weight"]))


class ChatGLM(Remote):
    """modeling_chatglm.py: half of each head rotates as complex numbers of neighbours; swiglu over the chunks."""

    layer_prefix = "transformer.encoder.layers.{}."
    embedding, head = "transformer.embedding.word_embeddings", "transformer.output_layer"
    final_norm = "transformer.encoder.final_layernorm"

    def __init__(self, config, tensors, session_len):
        super().__init__(config, tensors, session_len)
        self.eps, self.head_dim = config["layernorm_epsilon"], config["kv_channels"]

    def rotate(self, x):
        rotating = self.head_dim // 2
        theta = 1.0 / ((10000 * self.c["rope_ratio"]) ** (torch.arange(0, rotating, 2).float() / rotating))
        turn = torch.polar(torch.ones(x.shape[0], rotating // 2), torch.outer(torch.arange(x.shape[0]).float(), theta))
        pairs = torch.view_as_complex(x[..., :rotating].reshape(*x.shape[:-1], -1, 2).contiguous())
        turned = torch.view_as_real(pairs * turn[:, None]).flatten(-2)
        return torch.cat((turned, x[..., rotating:]), -1)

    def attention(self, prefix, x):
        mixed = self.linear(prefix + "self_attention.query_key_value", x)
        if self.c["multi_query_attention"]:
            groups = self.c["multi_query_group_num"]
            sizes = [self.heads * self.head_dim, groups * self.head_dim, groups * self.head_dim]
            q, k, v = mixed.split(sizes, -1)
            q, k, v = self.split(q, self.heads), self.split(k, groups), self.split(v, groups)
        else:
            q, k, v = mixed.view(x.shape[0], self.heads, 3 * self.head_dim).chunk(3, -1)
        return self.linear(prefix + "self_attention.dense", attend(self.rotate(q), self.rotate(k), v))

    def mlp(self, prefix, x):
        first, second = self.linear(prefix + "mlp.dense_h_to_4h", x).chunk(2, -1)
        return self.linear(prefix + "mlp.dense_4h_to_h", F.silu(first) * second)


class MiniCPM(Remote):
    """modeling_minicpm.py: scale_emb, scale_depth / sqrt(layers), hidden_size / dim_model_base; tied head."""

    head = "model.embed_tokens"

    def embed(self, tokens):
        return super().embed(tokens) * self.c["scale_emb"]

    def attention(self, prefix, x):
        q = self.split(self.linear(prefix + "self_attn.q_proj", x), self.heads)
        k, v = (self.split(self.linear(f"{prefix}self_attn.{n}_proj", x), self.kv_heads) for n in "kv")
        base = self.c["rope_theta"]
        return self.linear(prefix + "self_attn.o_proj", attend(rotate_halves(q, base), rotate_halves(k, base), v))

    def add(self, x, y):
        return x + y * (self.c["scale_depth"] / math.sqrt(self.layers))

    def project_head(self, x):
        return super().project_head(x / (self.hidden / self.c["dim_model_base"]))


REMOTE = {
    "internlm": InternLM, "internlm2": InternLM2, "internlm2_dynamic": InternLM2, "qwen": QWen, "baichuan": Baichuan7B,
    "baichuan2_13b": Baichuan2Of13B, "chatglm": ChatGLM, "chatglm_ungrouped": ChatGLM, "minicpm": MiniCPM,
}
