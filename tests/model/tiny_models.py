"""Tiny random checkpoints of every architecture, for test_tiny_models.py and make_tiny_goldens.py.

Weights come from a counter and a hash (SplitMix64) instead of a library's random numbers, so that the same bits are made
everywhere and always, without torch. They are large enough for logits with a standard deviation of about 1 or more: at the
usual 0.02 a wrong theta would go unnoticed. Windows and original contexts are shorter than the long prompt.

A Model (tiny_checkpoint.py) has the folder's config.json and tensors; `gguf` is what llama.cpp's converter (llama-cpp-python
0.3.36) makes of them: an architecture, its metadata, and its tensors. `mutations` are changes after which the comparison
with the golden must fail.
"""

import math
from typing import Any, Callable

import numpy as np
from tiny_checkpoint import (
    ALL_BIASES,
    EPS,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    KV_HEADS,
    LAYERS,
    MLP,
    QKV,
    SESSION_LEN,
    SHORT_PROMPTS,
    THETA,
    TWO_SESSIONS,
    VOCAB,
    Gguf,
    Model,
    config_of,
    fuse,
    gguf_metadata,
    gguf_tensors,
    layered,
    llama_shapes,
    make_tensors,
    permute_q_k,
    setting,
    swapping_heads,
)



def llama() -> Model:
    c = config_of("LlamaForCausalLM", "llama", attention_bias=True, mlp_bias=True)
    tensors = make_tensors("llama", llama_shapes(c, ALL_BIASES))
    gguf = Gguf("llama", gguf_metadata(c), permute_q_k(gguf_tensors(tensors), HEADS, KV_HEADS))
    return Model("llama", c, tensors, gguf, EPS | THETA | {
        "no attention bias": setting("attention_bias", False), "no mlp bias": setting("mlp_bias", False),
        "activation": setting("hidden_act", "gelu"), "heads": swapping_heads("k_proj"),
        "partial rotation": setting("partial_rotary_factor", 0.5)})


def llama_linear() -> Model:
    c = config_of("LlamaForCausalLM", "llama", tie_word_embeddings=True, rope_scaling={"type": "linear", "factor": 2.0})
    return Model("llama_linear", c, make_tensors("llama_linear", llama_shapes(c, tied=True)), None, {
        "factor": setting("rope_scaling.factor", 4.0), "kind": setting("rope_scaling.type", "dynamic"),
        "no scaling": setting("rope_scaling", None)}, [(SESSION_LEN + 64, [0, SHORT_PROMPTS])])


def llama_dynamic() -> Model:
    c = config_of("LlamaForCausalLM", "llama", max_position_embeddings=96,
                  rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    return Model("llama_dynamic", c, make_tensors("llama_dynamic", llama_shapes(c)), None, {
        "factor": setting("rope_scaling.factor", 4.0), "context": setting("max_position_embeddings", 80)}, TWO_SESSIONS)


def llama_llama3() -> Model:
    c = config_of("LlamaForCausalLM", "llama", head_dim=32, rope_scaling={
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64})
    return Model("llama_llama3", c, make_tensors("llama_llama3", llama_shapes(c)), None, {
        "factor": setting("rope_scaling.factor", 4.0), "low": setting("rope_scaling.low_freq_factor", 0.5),
        "high": setting("rope_scaling.high_freq_factor", 8.0),
        "original": setting("rope_scaling.original_max_position_embeddings", 128)})


def llama_yarn() -> Model:
    c = config_of("LlamaForCausalLM", "llama", rope_scaling={
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 4.0, "beta_slow": 1.0})
    return Model("llama_yarn", c, make_tensors("llama_yarn", llama_shapes(c)), None, {
        "factor": setting("rope_scaling.factor", 2.0), "beta": setting("rope_scaling.beta_slow", 0.25),
        "attention factor": setting("rope_scaling.attention_factor", 1.0),
        "original": setting("rope_scaling.original_max_position_embeddings", 256)})


def mistral() -> Model:
    c = config_of("MistralForCausalLM", "mistral", head_dim=32, sliding_window=24)
    return Model("mistral", c, make_tensors("mistral", llama_shapes(c)), None, EPS | THETA | {
        "window": setting("sliding_window", 25), "no window": setting("sliding_window", 4096)})


def qwen() -> Model:
    c = config_of("QWenLMHeadModel", "qwen", num_key_value_heads=..., rms_norm_eps=..., rope_theta=..., hidden_act=...,
                  intermediate_size=2 * MLP, layer_norm_epsilon=1e-5, rotary_emb_base=10000, rotary_pct=1.0, kv_channels=HEAD_DIM,
                  seq_length=SESSION_LEN, no_bias=True, use_dynamic_ntk=True, use_logn_attn=True, scale_attn_weights=True)
    layer = {
        "ln_1.weight": (HIDDEN,), "attn.c_attn.weight": (3 * HIDDEN, HIDDEN), "attn.c_attn.bias": (3 * HIDDEN,),
        "attn.c_proj.weight": (HIDDEN, HIDDEN), "ln_2.weight": (HIDDEN,), "mlp.w1.weight": (MLP, HIDDEN),
        "mlp.w2.weight": (MLP, HIDDEN), "mlp.c_proj.weight": (HIDDEN, MLP)}
    ends = {"transformer.wte.weight": (VOCAB, HIDDEN), "transformer.ln_f.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}
    tensors = make_tensors("qwen", layered(LAYERS, ends, layer, "transformer.h.{}."))
    names = {"attn.c_proj": "attn_output", "mlp.c_proj": "ffn_down", "w1": "ffn_up", "w2": "ffn_gate"}
    metadata = gguf_metadata(c, attention__layer_norm_rms_epsilon=1e-5)
    return Model("qwen", c, tensors, Gguf("qwen", metadata, gguf_tensors(tensors, names)), {
        "eps": setting("layer_norm_epsilon", 1e-2), "theta": setting("rotary_emb_base", 500),
        "heads": swapping_heads("c_attn")})


def qwen2() -> Model:
    c = config_of("Qwen2ForCausalLM", "qwen2", tie_word_embeddings=True, use_sliding_window=False, sliding_window=24,
                  max_window_layers=1)
    tensors = make_tensors("qwen2", llama_shapes(c, QKV, tied=True))
    return Model("qwen2", c, tensors, Gguf("qwen2", gguf_metadata(c), gguf_tensors(tensors)), EPS | THETA | {
        "window": setting("use_sliding_window", True)})


def qwen2_window() -> Model:
    c = config_of("Qwen2ForCausalLM", "qwen2", use_sliding_window=True, sliding_window=24, max_window_layers=1)
    return Model("qwen2_window", c, make_tensors("qwen2_window", llama_shapes(c, QKV)), None, {
        "window": setting("sliding_window", 32), "layers": setting("max_window_layers", 2)})


def qwen3() -> Model:
    c = config_of("Qwen3ForCausalLM", "qwen3", head_dim=32, attention_bias=False)
    tensors = make_tensors("qwen3", llama_shapes(c, norms=("self_attn.q_norm", "self_attn.k_norm")))
    return Model("qwen3", c, tensors, Gguf("qwen3", gguf_metadata(c), gguf_tensors(tensors)), EPS | THETA | {
        "heads": swapping_heads("q_proj", 32)})


def internlm() -> Model:
    c = config_of("InternLMForCausalLM", "internlm", num_key_value_heads=..., rope_theta=..., bias=True,
                  max_position_embeddings=96, rotary={"base": 10000, "type": "dynamic", "scaling_factor": 2.0})
    return Model("internlm", c, make_tensors("internlm", llama_shapes(c, (*QKV, "self_attn.o_proj"))), None, EPS | {
        "base": setting("rotary.base", 500), "factor": setting("rotary.scaling_factor", 1.0),
        "no bias": setting("bias", False)}, TWO_SESSIONS)


def internlm2_tensors(name: str, c: dict, bias: bool) -> dict:
    rows = (HEADS + 2 * KV_HEADS) * HEAD_DIM
    layer = {
        "attention_norm.weight": (HIDDEN,), "attention.wqkv.weight": (rows, HIDDEN), "attention.wo.weight": (HIDDEN, HIDDEN),
        "ffn_norm.weight": (HIDDEN,), "feed_forward.w1.weight": (MLP, HIDDEN), "feed_forward.w3.weight": (MLP, HIDDEN),
        "feed_forward.w2.weight": (HIDDEN, MLP)}
    if bias:
        layer |= {"attention.wqkv.bias": (rows,), "attention.wo.bias": (HIDDEN,)}
    ends = {"model.tok_embeddings.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,), "output.weight": (VOCAB, HIDDEN)}
    return make_tensors(name, layered(c["num_hidden_layers"], ends, layer))


def internlm2() -> Model:
    c = config_of("InternLM2ForCausalLM", "internlm2", bias=False, rope_theta=1000000.0)
    tensors = internlm2_tensors("internlm2", c, bias=False)
    parts = {}
    for name, tensor in tensors.items():
        if "wqkv" not in name:
            parts[name] = tensor
            continue
        groups = tensor.reshape(KV_HEADS, HEADS // KV_HEADS + 2, HEAD_DIM, HIDDEN)
        for part, rows in (("q_proj", groups[:, :-2]), ("k_proj", groups[:, -2]), ("v_proj", groups[:, -1])):
            parts[name.replace("wqkv", part)] = rows.reshape(-1, HIDDEN)
    names = {"output": "output", "norm": "output_norm"}
    gguf = Gguf("internlm2", gguf_metadata(c), permute_q_k(gguf_tensors(parts, names), HEADS, KV_HEADS))
    return Model("internlm2", c, tensors, gguf, EPS | THETA | {"heads": swapping_heads("wqkv")})


def internlm2_dynamic() -> Model:
    c = config_of("InternLM2ForCausalLM", "internlm2", bias=True, max_position_embeddings=96,
                  rope_scaling={"type": "dynamic", "factor": 2.0})
    return Model("internlm2_dynamic", c, internlm2_tensors("internlm2_dynamic", c, bias=True), None, {
        "factor": setting("rope_scaling.factor", 3.0), "no bias": setting("bias", False)}, TWO_SESSIONS)


def internlm3() -> Model:
    c = config_of("InternLM3ForCausalLM", "internlm3", head_dim=32, qkv_bias=True, bias=True)
    return Model("internlm3", c, make_tensors("internlm3", llama_shapes(c, ALL_BIASES)), None, EPS | THETA | {
        "no qkv bias": setting("qkv_bias", False), "no bias": setting("bias", False)})


def baichuan_tensors(name: str, c: dict) -> dict:
    shapes = fuse(llama_shapes(c), ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn.W_pack")
    return make_tensors(name, shapes)


def baichuan() -> Model:
    c = config_of("BaiChuanForCausalLM", "baichuan", num_key_value_heads=..., rope_theta=...)
    tensors = baichuan_tensors("baichuan", c)
    parts = {}
    for name, tensor in tensors.items():
        if "W_pack" not in name:
            parts[name] = tensor
            continue
        for part, rows in zip(("q_proj", "k_proj", "v_proj"), np.split(tensor, 3)):
            parts[name.replace("W_pack", part)] = rows
    gguf = Gguf("baichuan", gguf_metadata(c), permute_q_k(gguf_tensors(parts), HEADS, HEADS))
    return Model("baichuan", c, tensors, gguf, EPS | {
        "theta": setting("rope_theta", 500.0), "alibi": setting("max_position_embeddings", None),
        "heads": swapping_heads("W_pack")})


def baichuan2_13b() -> Model:
    # 13B has no max_position_embeddings; the vocabulary is what tells Baichuan 2. Six heads: not a power of two.
    c = config_of("BaichuanForCausalLM", "baichuan", num_key_value_heads=..., rope_theta=..., max_position_embeddings=...,
                  model_max_length=SESSION_LEN, vocab_size=125696, hidden_size=96, num_attention_heads=6, num_hidden_layers=2)

    def unnormalized(config: dict, tensors: dict) -> None:
        config["vocab_size"] = 125695
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensors[name] = tensors[name][:125695]

    tensors = baichuan_tensors("baichuan2_13b", c)
    tensors["lm_head.weight"] = (tensors["lm_head.weight"] * (1 + np.arange(125696)[:, None] % 7)).astype(np.float32)
    # Rows of length 1 make small logits: the last norm makes up for it.
    tensors["model.norm.weight"] *= np.float32(2)
    return Model("baichuan2_13b", c, tensors, None, EPS | {
        "rope": setting("max_position_embeddings", SESSION_LEN), "head": unnormalized})


def chatglm_config(**more: Any) -> dict:
    config = {
        "architectures": ["ChatGLMModel"], "model_type": "chatglm", "padded_vocab_size": VOCAB, "vocab_size": VOCAB,
        "hidden_size": HIDDEN, "ffn_hidden_size": MLP, "num_layers": LAYERS, "num_attention_heads": HEADS,
        "kv_channels": HEAD_DIM, "multi_query_attention": True, "multi_query_group_num": KV_HEADS, "layernorm_epsilon": 1e-5,
        "seq_length": SESSION_LEN, "add_bias_linear": False, "add_qkv_bias": True, "rmsnorm": True, "post_layer_norm": True,
        "apply_residual_connection_post_layernorm": False, "original_rope": True, "rope_ratio": 5,
        "tie_word_embeddings": False, "torch_dtype": "float32"}
    return config | more


def chatglm_tensors(name: str, c: dict) -> dict:
    kv_heads = c["multi_query_group_num"] if c["multi_query_attention"] else c["num_attention_heads"]
    rows = (HEADS + 2 * kv_heads) * c["kv_channels"]
    layer = {
        "input_layernorm.weight": (HIDDEN,), "self_attention.query_key_value.weight": (rows, HIDDEN),
        "self_attention.query_key_value.bias": (rows,), "self_attention.dense.weight": (HIDDEN, HEADS * c["kv_channels"]),
        "post_attention_layernorm.weight": (HIDDEN,), "mlp.dense_h_to_4h.weight": (2 * MLP, HIDDEN),
        "mlp.dense_4h_to_h.weight": (HIDDEN, MLP)}
    ends = {
        "transformer.embedding.word_embeddings.weight": (VOCAB, HIDDEN),
        "transformer.encoder.final_layernorm.weight": (HIDDEN,), "transformer.output_layer.weight": (VOCAB, HIDDEN)}
    return make_tensors(name, layered(LAYERS, ends, layer, "transformer.encoder.layers.{}."))


def chatglm() -> Model:
    c = chatglm_config()
    tensors = chatglm_tensors("chatglm", c)
    metadata = {
        "block_count": LAYERS, "context_length": SESSION_LEN, "embedding_length": HIDDEN, "feed_forward_length": MLP,
        "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS, "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": HEAD_DIM // 2, "rope.freq_base": 50000.0}
    gguf = Gguf("chatglm", metadata, gguf_tensors(tensors, {"self_attention.dense": "attn_output"}))
    return Model("chatglm", c, tensors, gguf, {
        "eps": setting("layernorm_epsilon", 1e-2), "ratio": setting("rope_ratio", 1), "no bias": setting("add_qkv_bias", False),
        "whole rotation": setting("partial_rotary_factor", 1.0), "heads": swapping_heads("query_key_value")})


def chatglm_ungrouped() -> Model:
    c = chatglm_config(architectures=["ChatGLMForConditionalGeneration"], multi_query_attention=False, kv_channels=32)
    return Model("chatglm_ungrouped", c, chatglm_tensors("chatglm_ungrouped", c), None, {
        "heads": swapping_heads("query_key_value", 32)})


def glm_tensors(name: str, c: dict, norms: tuple[str, ...] = ()) -> dict:
    shapes = llama_shapes(c, QKV, norms)
    return make_tensors(name, fuse(shapes, ("mlp.gate_proj", "mlp.up_proj"), "mlp.gate_up_proj"))


def glm() -> Model:
    c = config_of("GlmForCausalLM", "glm", head_dim=32, partial_rotary_factor=0.5, attention_bias=True)
    tensors = glm_tensors("glm", c)
    metadata = gguf_metadata(c, rope__dimension_count=16)
    return Model("glm", c, tensors, Gguf("chatglm", metadata, gguf_tensors(tensors)), EPS | THETA | {
        "no bias": setting("attention_bias", False), "rotation": setting("partial_rotary_factor", 1.0)})


def glm4() -> Model:
    c = config_of("Glm4ForCausalLM", "glm4", head_dim=32, partial_rotary_factor=0.5, attention_bias=True)
    tensors = glm_tensors("glm4", c, ("post_self_attn_layernorm", "post_mlp_layernorm"))
    names = {"post_self_attn_layernorm": "post_attention_norm", "post_mlp_layernorm": "post_ffw_norm"}
    metadata = gguf_metadata(c, rope__dimension_count=16)
    return Model("glm4", c, tensors, Gguf("glm4", metadata, gguf_tensors(tensors, names)), EPS | THETA | {
        "no bias": setting("attention_bias", False), "rotation": setting("partial_rotary_factor", 0.25)})


GEMMA_NORMS = ("pre_feedforward_layernorm", "post_feedforward_layernorm")
GEMMA_GGUF_NAMES = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
                    "post_feedforward_layernorm": "post_ffw_norm"}


def gemma_gguf(architecture: str, c: dict, tensors: dict, names: dict, **more: Any) -> Gguf:
    shifted = {name: tensor + 1 if tensor.ndim == 1 else tensor for name, tensor in tensors.items()}
    return Gguf(architecture, gguf_metadata(c, **more), gguf_tensors(shifted, names))


def gemma_tensors(name: str, c: dict, norms: tuple[str, ...] = ()) -> dict:
    """Small embeddings, so that what layers add counts, and a large last gain, so that the tied head's logits do."""
    tensors = make_tensors(name, llama_shapes(c, norms=norms, tied=True), embedding=0.06, gain=0.0)
    tensors["model.norm.weight"] += np.float32(2)
    return tensors


def gemma() -> Model:
    c = config_of("GemmaForCausalLM", "gemma", head_dim=32, num_key_value_heads=1, hidden_act="gelu", tie_word_embeddings=...)
    tensors = gemma_tensors("gemma", c)
    return Model("gemma", c, tensors, gemma_gguf("gemma", c, tensors, {}), EPS | THETA | {
        "activation": setting("hidden_act", "silu")})


def gemma2() -> Model:
    c = config_of("Gemma2ForCausalLM", "gemma2", head_dim=32, hidden_act=..., hidden_activation="gelu_pytorch_tanh",
                  tie_word_embeddings=..., query_pre_attn_scalar=32, attn_logit_softcapping=3.0, final_logit_softcapping=4.0,
                  sliding_window=24)
    tensors = gemma_tensors("gemma2", c, GEMMA_NORMS)
    gguf = gemma_gguf("gemma2", c, tensors, GEMMA_GGUF_NAMES, attn_logit_softcapping=3.0, final_logit_softcapping=4.0,
                      attention__sliding_window=24)
    return Model("gemma2", c, tensors, gguf, EPS | THETA | {
        "scale": setting("query_pre_attn_scalar", 64), "attention cap": setting("attn_logit_softcapping", 50.0),
        "logit cap": setting("final_logit_softcapping", 30.0), "window": setting("sliding_window", 25),
        "layers": setting("layer_types", ["full_attention", "sliding_attention", "full_attention"])})


def gemma3() -> Model:
    c = config_of("Gemma3ForCausalLM", "gemma3_text", head_dim=32, hidden_act=..., hidden_activation="gelu_pytorch_tanh",
                  tie_word_embeddings=..., query_pre_attn_scalar=32, sliding_window=24, num_hidden_layers=6,
                  sliding_window_pattern=6, rope_theta=1000000.0, rope_local_base_freq=10000.0,
                  rope_scaling={"rope_type": "linear", "factor": 8.0})
    norms = (*GEMMA_NORMS, "self_attn.q_norm", "self_attn.k_norm")
    tensors = gemma_tensors("gemma3", c, norms)
    gguf = gemma_gguf("gemma3", c, tensors, GEMMA_GGUF_NAMES, attention__sliding_window=24,
                      **{"rope__scaling__type": "linear", "rope__scaling__factor": 8.0})
    return Model("gemma3", c, tensors, gguf, EPS | {
        "theta": setting("rope_theta", 500.0), "local theta": setting("rope_local_base_freq", 500.0),
        "factor": setting("rope_scaling.factor", 1.0), "scale": setting("query_pre_attn_scalar", 64),
        "window": setting("sliding_window", 25), "pattern": setting("sliding_window_pattern", 3)})


def phi3_tensors(name: str, c: dict) -> dict:
    shapes = fuse(llama_shapes(c), QKV, "self_attn.qkv_proj")
    return make_tensors(name, fuse(shapes, ("mlp.gate_proj", "mlp.up_proj"), "mlp.gate_up_proj"))


def phi3() -> Model:
    c = config_of("Phi3ForCausalLM", "phi3", num_attention_heads=2, num_key_value_heads=1, partial_rotary_factor=0.75,
                  sliding_window=24, original_max_position_embeddings=SESSION_LEN, rope_scaling=None)
    tensors = phi3_tensors("phi3", c)
    metadata = gguf_metadata(c, rope__dimension_count=24, attention__sliding_window=24,
                             **{"rope__scaling__original_context_length": SESSION_LEN})
    return Model("phi3", c, tensors, Gguf("phi3", metadata, gguf_tensors(tensors)), EPS | THETA | {
        "window": setting("sliding_window", 25), "rotation": setting("partial_rotary_factor", 0.5),
        "heads": swapping_heads("qkv_proj", 32)})


def phi3_longrope() -> Model:
    short, long = [1.0, 1.1, 1.3, 1.6, 2.0, 2.5, 3.0, 3.6], [1.0, 1.5, 2.5, 4.0, 8.0, 12.0, 16.0, 24.0]
    c = config_of("Phi3ForCausalLM", "phi3", sliding_window=None, max_position_embeddings=384,
                  original_max_position_embeddings=96,
                  rope_scaling={"type": "longrope", "short_factor": short, "long_factor": long})
    tensors = phi3_tensors("phi3_longrope", c)
    metadata = gguf_metadata(c, attention__sliding_window=0, **{
        "rope__scaling__original_context_length": 96,
        "rope__scaling__attn_factor": math.sqrt(1 + math.log(4) / math.log(96))})
    gguf = gguf_tensors(tensors) | {"rope_factors_short.weight": np.array(short, np.float32),
                                    "rope_factors_long.weight": np.array(long, np.float32)}
    return Model("phi3_longrope", c, tensors, Gguf("phi3", metadata, gguf), {
        "short": setting("rope_scaling.short_factor", long), "long": setting("rope_scaling.long_factor", short),
        "attention factor": setting("rope_scaling.attention_factor", 1.0),
        "trained": setting("max_position_embeddings", 192)}, TWO_SESSIONS)


def falcon_model(name: str, more: dict, layer: dict, bias: bool = False) -> Model:
    c = config_of("FalconForCausalLM", "falcon", intermediate_size=..., rms_norm_eps=..., hidden_act=...,
                  num_key_value_heads=..., layer_norm_epsilon=1e-5, bias=bias, tie_word_embeddings=..., alibi=False) | more
    rows = {"falcon7b": HEADS + 2, "falcon40b": HEADS + 2 * KV_HEADS, "falcon_rw": 3 * HEADS}[name] * HEAD_DIM
    layer = layer | {
        "self_attention.query_key_value.weight": (rows, HIDDEN), "self_attention.dense.weight": (HIDDEN, HIDDEN),
        "mlp.dense_h_to_4h.weight": (4 * HIDDEN, HIDDEN), "mlp.dense_4h_to_h.weight": (HIDDEN, 4 * HIDDEN)}
    if bias:
        layer |= {key.replace(".weight", ".bias"): (shape[0],) for key, shape in layer.items() if len(shape) == 2}
    ends = {"transformer.word_embeddings.weight": (VOCAB, HIDDEN), "transformer.ln_f.weight": (HIDDEN,),
            "transformer.ln_f.bias": (HIDDEN,)}
    tensors = make_tensors(name, layered(LAYERS, ends, layer, "transformer.h.{}."))
    return Model(name, c, tensors)


def norm_shapes(*names: str) -> dict:
    return {f"{name}.{kind}": (HIDDEN,) for name in names for kind in ("weight", "bias")}


def falcon_gguf(model: Model, kv_heads: int) -> Gguf:
    tensors = dict(model.tensors)
    for name, tensor in model.tensors.items():
        if "query_key_value" in name:
            groups = tensor.reshape(kv_heads, HEADS // kv_heads + 2, HEAD_DIM, HIDDEN)
            parts = [groups[:, :-2], groups[:, -2], groups[:, -1]]
            tensors[name] = np.concatenate([part.reshape(-1, HIDDEN) for part in parts])
    metadata = {
        "block_count": LAYERS, "context_length": 2048, "embedding_length": HIDDEN, "feed_forward_length": 4 * HIDDEN,
        "attention.head_count": HEADS, "attention.head_count_kv": kv_heads, "attention.layer_norm_epsilon": 1e-5}
    return Gguf("falcon", metadata, gguf_tensors(tensors, {"self_attention.dense": "attn_output"}))


LAYER_NORM_EPS = {"eps": setting("layer_norm_epsilon", 1e-2)}


def falcon7b() -> Model:
    model = falcon_model("falcon7b", {"multi_query": True, "parallel_attn": True, "new_decoder_architecture": False},
                         norm_shapes("input_layernorm"))
    model.gguf = falcon_gguf(model, 1)
    model.mutations = LAYER_NORM_EPS | THETA | {
        "activation": setting("activation", "gelu_pytorch_tanh"), "heads": swapping_heads("query_key_value")}
    return model


def falcon40b() -> Model:
    model = falcon_model("falcon40b", {"new_decoder_architecture": True, "num_kv_heads": KV_HEADS, "parallel_attn": True},
                         norm_shapes("ln_attn", "ln_mlp"))
    model.gguf = falcon_gguf(model, KV_HEADS)
    model.mutations = LAYER_NORM_EPS | THETA | {"heads": swapping_heads("query_key_value")}
    return model


def falcon_rw() -> Model:
    model = falcon_model("falcon_rw", {"alibi": True, "multi_query": False, "parallel_attn": False,
                                       "new_decoder_architecture": False},
                         norm_shapes("input_layernorm", "post_attention_layernorm"), bias=True)
    model.mutations = LAYER_NORM_EPS | {
        "rope": setting("alibi", False), "no bias": setting("bias", False), "parallel": setting("parallel_attn", True)}
    return model


def minicpm() -> Model:
    c = config_of("MiniCPMForCausalLM", "minicpm", scale_emb=2.5, dim_model_base=32, scale_depth=1.4, tie_word_embeddings=...)
    tensors = make_tensors("minicpm", llama_shapes(c, tied=True), embedding=0.4)
    metadata = gguf_metadata(c, embedding_scale=2.5, residual_scale=1.4 / math.sqrt(LAYERS), logit_scale=HIDDEN / 32)
    gguf = Gguf("minicpm", metadata, permute_q_k(gguf_tensors(tensors), HEADS, KV_HEADS))
    return Model("minicpm", c, tensors, gguf, EPS | THETA | {
        "embedding": setting("scale_emb", 3), "depth": setting("scale_depth", 1.0), "logits": setting("dim_model_base", 64)})


MODELS: dict[str, Callable[[], Model]] = {
    make.__name__: make
    for make in (llama, llama_linear, llama_dynamic, llama_llama3, llama_yarn, mistral, qwen, qwen2, qwen2_window, qwen3,
                 internlm, internlm2, internlm2_dynamic, internlm3, baichuan, baichuan2_13b, chatglm, chatglm_ungrouped, glm,
                 glm4, gemma, gemma2, gemma3, phi3, phi3_longrope, falcon7b, falcon40b, falcon_rw, minicpm)
}
