"""lanner lite auto_awq against AWQ written once more in NumPy (numpy_awq.py), on tiny models of every architecture."""

import json
import pathlib
import re
import signal
import subprocess
import time

import numpy as np
import numpy_awq
import pytest
import tiny_models
from quantize_support import BINARY, TEXT, write_tokenizer
from safetensors.numpy import load_file, save_file

GROUP = 32
SAMPLES, SEQLEN = 6, 80
FEW = ("--calib-samples", SAMPLES, "--calib-seqlen", SEQLEN)


def linears_of(tensors):
    return [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]


def test_rounding_and_packing_are_byte_for_byte_those_of_numpy(write_model, quantize):
    model = tiny_models.llama()
    rng = np.random.default_rng(3)
    # Groups that are constant, of one sign, tiny, or have one value far from the others.
    odd = rng.standard_normal((64, 64)).astype(np.float32)
    odd[0, :32], odd[1, :32], odd[2], odd[3, :32], odd[4, 5] = 0.25, 0, np.abs(odd[2]) + 3, odd[3, :32] * 1e-7, 300
    odd[5] = -np.abs(odd[5]) - 2
    odd[6] = np.rint(odd[6] * 2) / 2
    model.tensors["model.layers.1.self_attn.q_proj.weight"] = odd
    folder = write_model(model)
    config, tensors = quantize(folder, "--calib-samples", "0")
    linears = [name for name in model.tensors if name.endswith("_proj.weight")]
    assert len(linears) == 7 * model.config["num_hidden_layers"]
    wanted = {}
    for name, value in model.tensors.items():
        if name in linears:
            module = name.removesuffix(".weight")
            wanted |= {f"{module}.{part}": words for part, words in numpy_awq.pack(value, GROUP).items()}
        else:
            wanted[name] = value.astype(np.float16)
    assert wanted.keys() == tensors.keys()
    for name, value in wanted.items():
        assert tensors[name].dtype == value.dtype and tensors[name].tobytes() == value.tobytes(), name
    assert config == {**model.config, "torch_dtype": "float16", "quantization_config": {
        "quant_method": "awq", "version": "gemm", "bits": 4, "group_size": GROUP, "zero_point": True}}


@pytest.mark.parametrize("heads", ["shared", "own"])
def test_smoothing_is_that_of_numpy(write_model, quantize, environment, heads):
    environment["LANNER_CPU_ISA"] = "generic"  # whose products are fp32
    model = tiny_models.llama()
    if heads == "own":  # then v and o are smoothed, too
        model.config["num_key_value_heads"] = model.config["num_attention_heads"]
        for name, value in model.tensors.items():
            if ".k_proj." in name or ".v_proj." in name:
                model.tensors[name] = np.concatenate([value, value[::-1] * np.float32(0.7)])
    model.tensors["model.layers.0.input_layernorm.weight"][[3, 40]] = 0  # such channels keep their scale
    _, tensors = quantize(write_model(model), *FEW)
    reference = numpy_awq.Llama(model.config, model.tensors)
    for window in numpy_awq.windows(list(TEXT.encode()), SAMPLES, SEQLEN):
        reference.forward(window)
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


def test_searched_scales_are_better(run, write_model, quantize, text, tmp_path):
    """Embeddings with a few large channels, as large models have them."""
    model = tiny_models.qwen2()
    embedding = model.tensors["model.embed_tokens.weight"]
    embedding[:, [5, 17, 40]] *= 30
    folder = write_model(model)
    kl = {}
    for name, flags in {"plain": ("--calib-samples", "0"), "default": FEW, "off": (*FEW, "--search-scale", "False"),
                        "searched": (*FEW, "--search-scale")}.items():
        quantize(folder, *flags, name=name)
        done = run("eval", "compare", folder, tmp_path / name, "--reference-dtype", "float32", "--dtype", "float32",
                   "--dataset", text, "--seqlen", "128", "--max-windows", "16", "--json", tmp_path / "r.json")
        assert done.returncode == 0, done.stderr
        kl[name] = json.loads((tmp_path / "r.json").read_text())["mean_kl"]
    assert kl["off"] == kl["default"]
    assert kl["searched"] < kl["default"] < kl["plain"], kl


def test_what_comes_out_runs_in_the_engine(run, write_model, quantize, text, tmp_path):
    model = tiny_models.internlm2()
    folder = write_model(model)
    quantize(folder, *FEW)
    flags = ("--dataset", text, "--seqlen", "128", "--max-windows", "4")
    for format_flags in ((), ("--model-format", "awq")):
        done = run("eval", "compare", folder, tmp_path / "out", *format_flags, *flags, "--json", tmp_path / "r.json")
        assert done.returncode == 0, done.stderr
        report = json.loads((tmp_path / "r.json").read_text())
        assert 0 < report["mean_kl"] < 0.5 and 0.8 < report["perplexity_ratio"] < 1.25
    # The engine computes with what NumPy unpacks.
    tensors = load_file(tmp_path / "out/model.safetensors")
    plain = {name: value for name, value in tensors.items() if not name.endswith((".qweight", ".qzeros", ".scales"))}
    plain |= {f"{module}.weight": np.ascontiguousarray(numpy_awq.dequantize(tensors, module)) for module in linears_of(tensors)}
    other = write_model(model, "plain")
    save_file(plain, other / "model.safetensors", metadata={"format": "pt"})
    done = run("eval", "compare", other, tmp_path / "out", "--dtype", "float32", *flags, "--json", tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["mean_kl"] < 1e-9 and abs(report["perplexity_ratio"] - 1) < 1e-5


def test_the_report_says_what_eval_compare_says(run, environment, write_model, text, tmp_path):
    folder = write_model(tiny_models.llama())
    flags = ("--calib-dataset", text, "--w-group-size", "32", *FEW)
    done = run("lite", "auto_awq", folder, "--work-dir", tmp_path / "out", *flags, "--report-windows", "3")
    assert done.returncode == 0, done.stderr
    report = done.stdout.decode()
    command = re.search(r"\(lanner (eval compare .*)\)\n", report)[1].split()
    compared = run(*command)
    assert compared.returncode == 0 and compared.stdout.decode() in report
    assert report.count("\n  before: ") == report.count("\n  after:  ") == 3
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


@pytest.fixture(scope="module")
def slow_folder(tmp_path_factory):
    """One that takes some seconds: eight layers as wide as such tests may be."""
    model = tiny_models.llama()
    rng = np.random.default_rng(5)
    hidden, mlp, layers = 256, 512, 8
    config = {**model.config, "hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers,
              "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 1024, "attention_bias": False,
              "mlp_bias": False}
    config.pop("head_dim", None)
    shapes = tiny_models.llama_shapes(config)
    model.config = config
    model.tensors = {name: (rng.standard_normal(shape) * (0.06 if len(shape) == 2 else 0.1) + (len(shape) == 1)).astype(np.float32)
                     for name, shape in shapes.items()}
    folder = tmp_path_factory.mktemp("slow") / "model"
    model.write_folder(folder)
    write_tokenizer(folder)
    return folder


def test_a_killed_run_goes_on_and_writes_the_same_bytes(slow_folder, environment, run, text, tmp_path):
    flags = ["lite", "auto_awq", str(slow_folder), "--calib-dataset", str(text), "--calib-seqlen", "256", "--w-group-size",
             "64", "--no-report", "--calib-samples=48"]
    done = run(*flags, "--work-dir", tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    killed = 0
    part = tmp_path / "killed.part"
    for wanted in (2, 5):  # layers that are done when it is killed
        process = subprocess.Popen([BINARY, *flags, "--work-dir", str(tmp_path / "killed"), "--resume"], env=environment,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(part.glob("unfinished/*.scales"))) < wanted:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed == 2 and not (tmp_path / "killed").exists()
    refused = run(*flags, "--work-dir", tmp_path / "killed")
    assert refused.returncode == 1 and b"--resume" in refused.stderr and part.exists()
    other = run(*flags[:-1], "--calib-samples=47", "--work-dir", tmp_path / "killed", "--resume")
    assert other.returncode == 1 and b"another calibration" in other.stderr and part.exists()
    done = run(*flags, "--work-dir", tmp_path / "killed", "--resume")
    assert done.returncode == 0, done.stderr
    assert not part.exists()
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "killed" / path.name).read_bytes(), path.name


def refused(run, tmp_path, *arguments, **more):
    """The one line with which it is refused; nothing is left behind."""
    before = {path.name for path in tmp_path.iterdir()}
    done = run("lite", "auto_awq", *arguments, "--no-report", **more)
    assert done.returncode == 1 and done.stdout == b""
    assert {path.name for path in tmp_path.iterdir()} == before
    line = done.stderr.decode()
    assert line.count("\n") == 1 and line.startswith("lanner: error: ")
    return line


def test_groups_that_do_not_fit_are_refused_with_the_command_that_does(run, write_model, tmp_path, text):
    model = tiny_models.llama()
    folder = write_model(model, "my model")
    line = refused(run, tmp_path, folder, "--calib-dataset", text, "--work-dir", tmp_path / "out", "--calib_samples", "4")
    command = line[line.index("lanner lite") :].strip()
    assert "32" in line and command.startswith("lanner lite auto_awq '") and "--calib-samples 4" in command
    done = subprocess.run(["bash", "-c", command.replace("lanner", BINARY, 1) + " --calib-seqlen 32 --no-report"],
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_bad_weights_are_refused(run, write_model, tmp_path, text):
    for name, value, what in (("model.layers.1.mlp.up_proj.weight", np.nan, "finite"),
                              ("model.layers.2.input_layernorm.weight", np.inf, "finite"),
                              ("model.layers.2.mlp.down_proj.weight", 3e38, "fp16"),
                              ("model.embed_tokens.weight", np.nan, "finite"),
                              ("lm_head.weight", 1e5, "fp16")):
        model = tiny_models.llama()
        model.tensors[name].flat[-1] = value
        folder = write_model(model)
        line = refused(run, tmp_path, folder, "--calib-dataset", text, "--work-dir", tmp_path / "out", "--w-group-size", "32", *FEW)
        assert what in line and (name in line or "layer" in line)


def test_bad_texts_are_refused(run, write_model, tmp_path):
    folder = write_model(tiny_models.llama())
    cases = [(b"ten bytes.", "10 tokens"), (b"", "0 tokens"), (b"\xff\xfe" * 200, "UTF-8")]
    for content, what in cases:
        path = tmp_path / "bad.txt"
        path.write_bytes(content)
        line = refused(run, tmp_path, folder, "--calib-dataset", path, "--work-dir", tmp_path / "out", "--w-group-size", "32", *FEW)
        assert what in line and "bad.txt" in line
    line = refused(run, tmp_path, folder, "--calib-dataset", "ptb", "--work-dir", tmp_path / "out", "--w-group-size", "32", *FEW)
    assert "ptb/train.txt" in line
    line = refused(run, tmp_path, folder, "--calib-dataset", "nothing", "--work-dir", tmp_path / "out", "--w-group-size", "32", *FEW)
    assert "neither a file nor a data set" in line


def test_places_that_cannot_be_written_are_refused(run, write_model, tmp_path, text):
    folder = write_model(tiny_models.llama())
    flags = (folder, "--calib-dataset", text, "--w-group-size", "32", *FEW)
    assert "cannot create" in refused(run, tmp_path, *flags, "--work-dir", "/proc/nowhere/out")
    assert "is there already" in refused(run, tmp_path, *flags, "--work-dir", folder)
    assert "is there already" in refused(run, tmp_path, *flags, "--work-dir", text)
    # A full disk, as far as a process can have one: files may not grow past some kilobytes.
    line = refused(run, tmp_path, *flags, "--work-dir", tmp_path / "out", preexec_fn=limit_files)
    assert "File too large" in line and "cannot write" in line


def limit_files():
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def test_what_is_no_folder_of_plain_weights_is_refused(run, write_model, quantize, tmp_path, text):
    model = tiny_models.llama()
    folder = write_model(model)
    quantize(folder, "--calib-samples", "0")
    assert "quantized already" in refused(run, tmp_path, tmp_path / "out", "--work-dir", tmp_path / "b", "--w-group-size", "32")
    model.write_gguf(pathlib.Path(tmp_path / "a.gguf"))
    assert "Hugging Face folder" in refused(run, tmp_path, tmp_path / "a.gguf", "--work-dir", tmp_path / "b", "--w-group-size", "32")
    assert "4 bits alone" in refused(run, tmp_path, folder, "--work-dir", tmp_path / "b", "--w-bits", "3")


def test_the_old_step_for_the_cache_says_that_it_is_not_needed(run, tmp_path):
    done = run("lite", "kv_qparams", "work_dir", "workspace/triton_models/weights", "--num-tp", "1", cwd=tmp_path)
    assert done.returncode == 0 and b"not needed" in done.stderr and not list(tmp_path.iterdir())
