"""lanner lite auto_awq against AWQ written once more in NumPy (numpy_awq.py), on tiny models of every architecture."""

import json
import re

import numpy as np
import numpy_awq
import pytest
import tiny_models
from quantize_support import FEW, GROUP, SAMPLES, SEQLEN, TEXT, check_report, check_same_tensors, odd_groups, reference_of
from safetensors.numpy import load_file, save_file


def linears_of(tensors):
    return [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]


@pytest.mark.parametrize("symmetric", [False, True])
def test_rounding_and_packing_are_byte_for_byte_those_of_numpy(write_model, quantize, symmetric):
    model = tiny_models.llama()
    model.tensors["model.layers.1.self_attn.q_proj.weight"] = odd_groups()
    folder = write_model(model)
    config, tensors = quantize(folder, "--calib-samples", "0", *(["--w-sym"] if symmetric else []))
    linears = [name for name in model.tensors if name.endswith("_proj.weight")]
    assert len(linears) == 7 * model.config["num_hidden_layers"]
    wanted = {}
    for name, value in model.tensors.items():
        if name in linears:
            module = name.removesuffix(".weight")
            wanted |= {f"{module}.{part}": words for part, words in numpy_awq.pack(value, GROUP, symmetric).items()}
        else:
            wanted[name] = value.astype(np.float16)
    check_same_tensors(tensors, wanted)
    assert config == {**model.config, "torch_dtype": "float16", "quantization_config": {
        "quant_method": "awq", "version": "gemm", "bits": 4, "group_size": GROUP, "zero_point": True}}


def give_each_head_its_own_keys(model):
    model.config["num_key_value_heads"] = model.config["num_attention_heads"]
    for name, value in model.tensors.items():
        if ".k_proj." in name or ".v_proj." in name:
            model.tensors[name] = np.concatenate([value, value[::-1] * np.float32(0.7)])


@pytest.mark.parametrize("heads", ["shared", "own"])
def test_smoothing_is_that_of_numpy(write_model, quantize, environment, heads):
    environment["LANNER_CPU_ISA"] = "generic"  # whose products are fp32
    model = tiny_models.llama()
    if heads == "own":  # then v and o are smoothed, too
        give_each_head_its_own_keys(model)
    model.tensors["model.layers.0.input_layernorm.weight"][[3, 40]] = 0  # such channels keep their scale
    _, tensors = quantize(write_model(model), *FEW)
    reference = reference_of(model)
    equal = []
    for layer in range(model.config["num_hidden_layers"]):
        smoothed, scales = numpy_awq.smooth(reference, layer, GROUP)
        assert ("o" in scales) == (heads == "own")
        for name, value in smoothed.items():
            module = name.removesuffix(".weight")
            if f"{module}.qweight" not in tensors:
                np.testing.assert_allclose(tensors[name].astype(np.float32), value, rtol=2e-3, atol=1e-4, err_msg=name)
                continue
            ours = numpy_awq.unpack_words(tensors[f"{module}.qweight"])
            theirs = numpy_awq.round_groups(value, GROUP)[0].T
            difference = np.abs(ours.astype(int) - theirs.astype(int))
            assert difference.max() <= 1, name  # keys and values are fp16 in the engine: codes at a border may differ
            equal.append((difference == 0).mean())
    assert min(equal) > 0.98 and np.mean(equal) > 0.995


# Of each architecture: its norms and the Linears behind them, and pairs of Linears of which the first's rows are divided
# by what the second's columns are multiplied with. From LMDeploy's tables, and from what they mean for those it lacks.
LLAMA = ([("input_layernorm", ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
          ("post_attention_layernorm", ["mlp.gate_proj", "mlp.up_proj"])], [("mlp.up_proj", "mlp.down_proj")])
GLM = [("input_layernorm", ["self_attention.query_key_value"]), ("post_attention_layernorm", ["mlp.dense_h_to_4h"])]
ARCHITECTURES = {
    "llama": LLAMA, "mistral": LLAMA, "qwen2": LLAMA, "qwen3": LLAMA, "internlm3": LLAMA, "minicpm": LLAMA,
    "gemma": LLAMA,
    "internlm": (LLAMA[0], [("mlp.up_proj", "mlp.down_proj"), ("self_attn.v_proj", "self_attn.o_proj")]),
    "internlm2": ([("attention_norm", ["attention.wqkv"]), ("ffn_norm", ["feed_forward.w1", "feed_forward.w3"])],
                  [("feed_forward.w3", "feed_forward.w2")]),
    "qwen": ([("ln_1", ["attn.c_attn"]), ("ln_2", ["mlp.w1", "mlp.w2"])],
             [("mlp.w1", "mlp.c_proj"), ("attn.c_attn", "attn.c_proj")]),
    "baichuan": ([("input_layernorm", ["self_attn.W_pack"]), ("post_attention_layernorm", ["mlp.gate_proj", "mlp.up_proj"])],
                 [("mlp.up_proj", "mlp.down_proj")]),
    "phi3": ([("input_layernorm", ["self_attn.qkv_proj"]), ("post_attention_layernorm", ["mlp.gate_up_proj"])], []),
    "chatglm": (GLM, []),
    "falcon7b": ([("input_layernorm", ["self_attention.query_key_value", "mlp.dense_h_to_4h"])], []),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_smoothed_in_its_groups_and_computes_the_same(write_model, quantize, name):
    model = getattr(tiny_models, name)()
    _, tensors = quantize(write_model(model), *FEW)
    norms, pairs = ARCHITECTURES[name]
    offset = 1 if name.startswith("gemma") else 0
    modules = linears_of(tensors)
    layers = sorted({re.match(r".*?\.\d+\.", module)[0] for module in modules})
    assert len(layers) == model.config.get("num_hidden_layers", model.config.get("num_layers"))
    for prefix in layers:
        columns, rows = {}, {}
        for norm, linears in norms:
            old = model.tensors[f"{prefix}{norm}.weight"] + offset
            s = old / (tensors[f"{prefix}{norm}.weight"].astype(np.float32) + offset)
            assert s.std() > 0.03 and abs(np.log(s.max() * s.min())) < 0.02
            bias = f"{prefix}{norm}.bias"
            if bias in tensors:
                np.testing.assert_allclose(tensors[bias].astype(np.float32) * s, model.tensors[bias], atol=2e-3)
            columns |= {linear: s for linear in linears}
        for front, back in pairs:
            old, new = model.tensors[f"{prefix}{back}.weight"], numpy_awq.dequantize(tensors, prefix + back)
            columns[back] = (old * new).sum(axis=0) / (old * old).sum(axis=0)
            assert columns[back].std() > 0.03
            rows[front] = np.ones(model.tensors[f"{prefix}{front}.weight"].shape[0])
            rows[front][-len(columns[back]):] = columns[back]
        for module in (module for module in modules if module.startswith(prefix)):
            linear = module.removeprefix(prefix)
            wanted = model.tensors[f"{module}.weight"] * columns.get(linear, 1.0)
            wanted = wanted / rows[linear][:, None] if linear in rows else wanted
            error = numpy_awq.dequantize(tensors, module) - wanted
            # Of rounding: a quarter of one step of fifteen on average, more where smoothing makes columns uneven.
            share = float(np.abs(error).mean() / np.abs(wanted).mean())
            assert share < 0.09, module
            bias = f"{module}.bias"
            if bias in tensors:
                np.testing.assert_allclose(tensors[bias].astype(np.float32) * (rows[linear] if linear in rows else 1),
                                           model.tensors[bias], rtol=0.05, atol=2e-3)
    rounded = {f"{module}.weight" for module in modules}
    assert all(len(model.tensors[one].shape) == 2 and one not in tensors for one in rounded)
    assert not any("embed" in one or "lm_head" in one for one in rounded)


@pytest.mark.parametrize("heads", ["shared", "own"])
def test_a_search_takes_what_numpy_finds_best(write_model, quantize, environment, heads):
    environment["LANNER_CPU_ISA"] = "generic"  # whose products are fp32
    model = tiny_models.llama()
    if heads == "own":
        give_each_head_its_own_keys(model)
    model.tensors["model.embed_tokens.weight"][:, [5, 17, 40]] *= 10  # so that formulas differ
    _, tensors = quantize(write_model(model), *FEW, "--search-scale")
    reference = reference_of(model)
    samples = [reference.embed(window) for window in numpy_awq.windows(list(TEXT.encode()), SAMPLES, SEQLEN)]
    chosen = set()
    for layer in range(model.config["num_hidden_layers"]):
        found = numpy_awq.search(reference, layer, samples, GROUP)
        assert ("o" in found) == (heads == "own")
        for what, tried in found.items():
            module = f"model.layers.{layer}." + {"qkv": "self_attn.q_proj", "mlp": "mlp.gate_proj", "o": "self_attn.o_proj",
                                                 "down": "mlp.down_proj"}[what]
            codes = numpy_awq.unpack_words(tensors[f"{module}.qweight"]).T
            same = [(codes == numpy_awq.round_groups(model.tensors[f"{module}.weight"] * s, GROUP)[0]).mean() for s, _ in tried]
            taken = int(np.argmax(same))
            assert same[taken] > 0.98, (module, max(same))
            # Keys and values are fp16 in the engine: of two that are nearly as good it may take the other.
            assert tried[taken][1] <= 1.01 * min(error for _, error in tried), (module, numpy_awq.FORMULAS[taken])
            chosen.add(numpy_awq.FORMULAS[taken])
        samples = [reference.layer(layer, x) for x in samples]
    assert len(chosen) > 3


def test_searched_scales_are_better(write_model, quantize, compare, tmp_path):
    """Embeddings with a few large channels, as large models have them."""
    model = tiny_models.qwen2()
    embedding = model.tensors["model.embed_tokens.weight"]
    embedding[:, [5, 17, 40]] *= 30
    folder = write_model(model)
    kl = {}
    for name, flags in {"plain": ("--calib-samples", "0"), "default": FEW, "off": (*FEW, "--search-scale", "False"),
                        "searched": (*FEW, "--search-scale")}.items():
        quantize(folder, *flags, name=name)
        kl[name] = compare(folder, tmp_path / name, "--reference-dtype", "float32", "--dtype", "float32", windows=16)["mean_kl"]
    assert kl["off"] == kl["default"]
    assert kl["searched"] < kl["default"] < kl["plain"], kl


def test_what_comes_out_runs_in_the_engine(write_model, quantize, compare, tmp_path):
    model = tiny_models.internlm2()
    folder = write_model(model)
    quantize(folder, *FEW)
    for format_flags in ((), ("--model-format", "awq")):
        report = compare(folder, tmp_path / "out", *format_flags)
        assert 0 < report["mean_kl"] < 0.5 and 0.8 < report["perplexity_ratio"] < 1.25
    # The engine computes with what NumPy unpacks.
    tensors = load_file(tmp_path / "out/model.safetensors")
    plain = {name: value for name, value in tensors.items() if not name.endswith((".qweight", ".qzeros", ".scales"))}
    plain |= {f"{module}.weight": np.ascontiguousarray(numpy_awq.dequantize(tensors, module)) for module in linears_of(tensors)}
    other = write_model(model, "plain")
    save_file(plain, other / "model.safetensors", metadata={"format": "pt"})
    report = compare(other, tmp_path / "out", "--dtype", "float32")
    assert report["mean_kl"] < 1e-9 and abs(report["perplexity_ratio"] - 1) < 1e-5


def test_the_report_says_what_eval_compare_says(run, environment, write_model, text, tmp_path):
    folder = write_model(tiny_models.llama())
    flags = ("--calib-dataset", text, "--w-group-size", "32", *FEW)
    done = run("lite", "auto_awq", folder, "--work-dir", tmp_path / "out", *flags, "--report-windows", "3")
    report = check_report(run, done)
    ratio = float(re.search(r"perplexity ratio +([0-9.]+)", report)[1])
    assert (b"perplexity rose" in done.stderr) == (ratio > 1.1)
    environment["LANNER_DATA_DIR"] = str(tmp_path)
    (tmp_path / "wikitext2").mkdir()
    (tmp_path / "wikitext2/test.txt").write_text("short")
    short = run("lite", "auto_awq", folder, "--work-dir", tmp_path / "other", *flags)
    assert short.returncode == 1 and b"cannot be measured" in short.stderr and (tmp_path / "other/config.json").exists()


def test_texts_and_code_come_along_but_no_index_of_other_shards(write_model, quantize, tmp_path):
    model = tiny_models.llama()
    folder = write_model(model)
    (folder / "tokenization_own.py").write_text("pass\n")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for shard, part in shards.items():
        save_file({name: weights[name] for name in part}, folder / shard)
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    _, tensors = quantize(folder, "--calib-samples", "0")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json", "tokenizer.json", "tokenization_own.py", "model.safetensors"}
    assert len(linears_of(tensors)) == 21
