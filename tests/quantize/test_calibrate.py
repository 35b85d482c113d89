"""lanner lite calibrate: its files, read by plain Python, against the same statistics taken in NumPy."""

import collections
import re

import numpy as np
import numpy_awq
import pytest
import tiny_models
import torch_pickle
from quantize_support import FEW, SAMPLES, SEQLEN, TEXT, check_it_goes_on

FILES = ["inputs_stats", "key_stats", "outputs_stats", "value_stats"]
KEYS = {"max", "min", "mean", "absmax", "absmean"}


@pytest.fixture
def calibrate(run, text, tmp_path):
    def calibrate_folder(folder, *flags, name="stats"):
        done = run("lite", "calibrate", folder, "--work-dir", tmp_path / name, "--calib-dataset", text, *flags)
        assert done.returncode == 0, done.stderr.decode()
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == [f"{file}.pth" for file in FILES]
        assert not (tmp_path / f"{name}.part").exists()
        return {file: torch_pickle.load(tmp_path / name / f"{file}.pth") for file in FILES}

    return calibrate_folder


class ObservedLlama(numpy_awq.Llama):
    """Remembers what modules read and make."""

    def __init__(self, config, tensors):
        super().__init__(config, tensors)
        self.inputs, self.outputs = collections.defaultdict(list), collections.defaultdict(list)

    def linear(self, x, name):
        y = super().linear(x, name)
        self.inputs[name].append(x)
        self.outputs[name].append(y)
        return y

    def norm(self, x, name):
        y = super().norm(x, name)
        self.outputs[name.removesuffix(".weight")].append(y)
        return y


def statistics(rows):
    rows = np.concatenate(rows)
    return {"max": rows.max(0), "min": rows.min(0), "mean": rows.mean(0), "absmax": np.abs(rows).max(0),
            "absmean": np.abs(rows).mean(0)}


def check(ours, wanted, shape=None):
    for key, modules in ours.items():
        assert modules.keys() == wanted.keys()
        for module, values in modules.items():
            expected = statistics(wanted[module])[key]
            assert values.dtype == np.float16 and values.shape == (shape or expected.shape), module
            np.testing.assert_allclose(values.astype(np.float32), expected, rtol=3e-3, atol=3e-3, err_msg=f"{key} {module}")


def test_statistics_are_those_of_numpy(calibrate, write_model, environment):
    environment["LANNER_CPU_ISA"] = "generic"  # whose products are fp32
    model = tiny_models.llama()
    folder = write_model(model)
    stats = calibrate(folder, *FEW)
    reference = ObservedLlama(model.config, model.tensors)
    for window in numpy_awq.windows(list(TEXT.encode()), SAMPLES, SEQLEN):
        reference.norm(reference.forward(window), "model.norm.weight")
    layers = model.config["num_hidden_layers"]
    assert stats["inputs_stats"].keys() == stats["outputs_stats"].keys() == KEYS
    assert len(reference.inputs) == 7 * layers and len(reference.outputs) == 9 * layers + 1
    check(stats["inputs_stats"], reference.inputs)
    check(stats["outputs_stats"], reference.outputs)
    heads = (reference.kv_heads, reference.dim)
    values = {f"model.layers.{i}": [rows.reshape(-1, *heads) for rows in reference.outputs[f"model.layers.{i}.self_attn.v_proj"]]
              for i in range(layers)}
    keys = {f"model.layers.{i}": [reference.rotate(rows.reshape(-1, *heads))
                                  for rows in reference.outputs[f"model.layers.{i}.self_attn.k_proj"]]
            for i in range(layers)}
    assert stats["key_stats"].keys() == stats["value_stats"].keys() == {"max", "min", "absmax"}
    check(stats["key_stats"], keys, heads)
    check(stats["value_stats"], values, heads)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma", "internlm", "internlm2", "qwen", "baichuan", "phi3",
                                  "chatglm", "falcon7b"])
def test_every_linear_of_every_architecture_is_there(calibrate, write_model, name):
    model = getattr(tiny_models, name)()
    stats = calibrate(write_model(model), *FEW)
    linears = {tensor.removesuffix(".weight"): value.shape for tensor, value in model.tensors.items()
               if value.ndim == 2 and re.search(r"\.\d+\.", tensor)}
    for key in KEYS:
        assert {module: (len(stats["outputs_stats"][key][module]), len(values))
                for module, values in stats["inputs_stats"][key].items()} == linears
    norms = stats["outputs_stats"]["max"].keys() - linears.keys()
    assert norms == {tensor.removesuffix(".weight") for tensor, value in model.tensors.items()
                     if value.ndim == 1 and tensor.endswith(".weight") and not re.search(r"[qk]_norm", tensor)}
    layers = {re.match(r".*?\.\d+(?=\.)", module)[0] for module in linears}
    assert stats["key_stats"]["max"].keys() == stats["value_stats"]["absmax"].keys() == layers


def test_rows_of_a_packed_matrix_stay_in_their_order(calibrate, write_model):
    model = tiny_models.internlm2()
    stats = calibrate(write_model(model), *FEW)
    config = model.config
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    dim = config["hidden_size"] // heads
    rows = stats["outputs_stats"]["max"]["model.layers.1.attention.wqkv"].reshape(kv_heads, heads // kv_heads + 2, dim)
    np.testing.assert_allclose(rows[:, -1], stats["value_stats"]["max"]["model.layers.1"], rtol=2e-3)


def test_numbers_that_fp16_does_not_hold_are_kept_in_fp32(calibrate, write_model):
    model = tiny_models.llama()
    model.tensors["model.layers.0.input_layernorm.weight"][3] = 2e5
    model.tensors["model.layers.0.self_attn.q_proj.weight"][:, 3] = 0
    model.tensors["model.layers.0.self_attn.k_proj.weight"][:, 3] = 0
    model.tensors["model.layers.0.self_attn.v_proj.weight"][:, 3] = 0
    stats = calibrate(write_model(model), *FEW)
    values = stats["inputs_stats"]["absmax"]["model.layers.0.self_attn.q_proj"]
    assert values.dtype == np.float32 and values[3] > 65504 and np.isfinite(values).all()
    assert stats["inputs_stats"]["absmax"]["model.layers.0.self_attn.o_proj"].dtype == np.float16


def test_a_search_leaves_its_ratios(calibrate, write_model):
    model = tiny_models.llama()
    stats = calibrate(write_model(model), *FEW, "--search-scale")
    ratios = stats["inputs_stats"]["ratios"]
    assert ratios.keys() == stats["inputs_stats"]["max"].keys()
    for module, ratio in ratios.items():
        if module.endswith("o_proj"):
            assert ratio is None  # its heads are shared
        else:
            assert 0 <= ratio < 1 and abs(ratio * 20 - round(ratio * 20)) < 1e-9
    assert ratios["model.layers.0.self_attn.q_proj"] == ratios["model.layers.0.self_attn.v_proj"]
    assert len({ratio for ratio in ratios.values() if ratio is not None}) > 1


def test_a_killed_run_goes_on_and_writes_the_same_bytes(slow_folder, environment, run, text, tmp_path):
    flags = ["lite", "calibrate", str(slow_folder), "--calib-dataset", str(text), "--calib-seqlen", "256", "--calib-samples=24"]
    check_it_goes_on(run, environment, tmp_path, flags, "*.statistics")


@pytest.mark.parametrize(("flags", "what"), [(("--calib-samples", "0"), "nothing to calibrate with"),
                                             (("--device", "cuda"), "--device cuda"),
                                             (("--calib-dataset", "ptb"), "ptb/train.txt")])
def test_what_cannot_be_done_is_refused_in_one_line(run, write_model, tmp_path, flags, what):
    folder = write_model(tiny_models.llama())
    done = run("lite", "calibrate", folder, "--work-dir", tmp_path / "out", *flags)
    line = done.stderr.decode()
    assert done.returncode == 1 and line.startswith("lanner: error: ") and line.count("\n") == 1 and what in line
    assert not list(tmp_path.glob("out*"))
