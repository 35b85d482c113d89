"""What a tiny random checkpoint is and how its tensors, its GGUF form and its mutations are made; tiny_models.py lists them."""

import copy
import json
import math
import pathlib
import zlib
from dataclasses import dataclass, field
from typing import Any, Callable

import numpy as np

VOCAB, HIDDEN, MLP, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 320, 64, 96, 3, 4, 2, 16
SESSION_LEN = 256
GOLDEN = pathlib.Path(__file__).parent / "golden_tiny.json"
SHORT_PROMPTS, SHORT_LENGTH, LONG_LENGTH, GREEDY_TOKENS = 4, 48, 104, 32


def read_seeds() -> dict[str, int]:
    """The seed of each model's weights, which make_tiny_goldens.py chose."""
    if not GOLDEN.exists():
        return {}
    return {name: model["seed"] for name, model in json.loads(GOLDEN.read_text(encoding="utf-8"))["models"].items()}


SEEDS = read_seeds()


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """fp32 in -1..1, from the name and the position alone."""
    counter = np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()) << 32)
    with np.errstate(over="ignore"):
        z = (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float64) / 2.0**23 - 1.0).astype(np.float32).reshape(shape)


def prompts() -> list[list[int]]:
    """The four short prompts and the long one."""
    result = []
    for i in range(SHORT_PROMPTS + 1):
        length = SHORT_LENGTH if i < SHORT_PROMPTS else LONG_LENGTH
        result.append([int(v) for v in (uniform(f"prompt {i}", (length,)) + 1) / 2 * (VOCAB - 1)])
    return result


@dataclass
class Gguf:
    architecture: str
    metadata: dict[str, Any]  # behind "<architecture>."; floats are written as float32
    tensors: dict[str, np.ndarray]


Mutation = Callable[[dict, dict], None]  # of the configuration and the tensors


@dataclass
class Model:
    name: str
    config: dict[str, Any]
    tensors: dict[str, np.ndarray]
    gguf: Gguf | None = None
    mutations: dict[str, Mutation] = field(default_factory=dict)
    # (session_len, prompts): where rope depends on the longest session, short and long prompts run in different ones.
    runs: list[tuple[int, list[int]]] = field(default_factory=lambda: [(SESSION_LEN, list(range(SHORT_PROMPTS + 1)))])

    def write_folder(self, folder: pathlib.Path, mutation: str | None = None) -> None:
        from safetensors.numpy import save_file

        config, tensors = copy.deepcopy(self.config), dict(self.tensors)
        if mutation is not None:
            self.mutations[mutation](config, tensors)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
        save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})

    def wrong_gguf_values(self) -> dict[str, Any]:
        """For each number of the metadata that shapes do not fix, another one."""
        wrong = {}
        for key, value in self.gguf.metadata.items():
            if "epsilon" in key:
                wrong[key] = 1e-2
            elif isinstance(value, float):
                wrong[key] = 2 * value
            elif key == "attention.sliding_window" and value > 0:
                wrong[key] = value + 1
            elif key == "rope.scaling.original_context_length" and "rope.scaling.attn_factor" in self.gguf.metadata:
                wrong[key] = value // 2
        return wrong

    def write_gguf(self, path: pathlib.Path, changes: dict[str, Any] | None = None) -> None:
        from gguf import GGUFWriter

        writer = GGUFWriter(str(path), self.gguf.architecture)
        for key, value in (self.gguf.metadata | (changes or {})).items():
            key = f"{self.gguf.architecture}.{key}"
            if isinstance(value, str):
                writer.add_string(key, value)
            elif isinstance(value, float):
                writer.add_float32(key, value)
            else:
                writer.add_uint32(key, value)
        for name, tensor in self.gguf.tensors.items():
            writer.add_tensor(name, np.ascontiguousarray(tensor))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


# Tensors -------------------------------------------------------------------------------------------------------------


def make_tensors(model: str, shapes: dict[str, tuple[int, ...]], embedding: float = 0.2, gain: float = 1.0) -> dict:
    """Values by what a tensor is: the names of the families agree enough to tell."""
    tensors = {}
    for name, shape in shapes.items():
        values = uniform(f"{model} {SEEDS.get(model, 0)} {name}", shape)
        if name.endswith(".bias"):
            tensors[name] = 0.5 * values
        elif len(shape) == 1:  # a norm's gain
            tensors[name] = gain + 0.5 * values
        elif "embed" in name or "wte" in name:
            tensors[name] = np.float32(embedding * math.sqrt(3)) * values
        else:
            tensors[name] = np.float32(1.5 * math.sqrt(3 / shape[1])) * values
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def layered(layers: int, ends: dict, layer: dict, prefix: str = "model.layers.{}.") -> dict:
    shapes = dict(ends)
    for i in range(layers):
        shapes |= {prefix.format(i) + name: shape for name, shape in layer.items()}
    return shapes


def llama_shapes(c: dict, biases: tuple[str, ...] = (), norms: tuple[str, ...] = (), tied: bool = False) -> dict:
    hidden, mlp = c["hidden_size"], c["intermediate_size"]
    head_dim = c.get("head_dim") or hidden // c["num_attention_heads"]
    q, kv = c["num_attention_heads"] * head_dim, c.get("num_key_value_heads", c["num_attention_heads"]) * head_dim
    layer = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (q, hidden),
        "self_attn.k_proj.weight": (kv, hidden),
        "self_attn.v_proj.weight": (kv, hidden),
        "self_attn.o_proj.weight": (hidden, q),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (mlp, hidden),
        "mlp.up_proj.weight": (mlp, hidden),
        "mlp.down_proj.weight": (hidden, mlp),
    }
    for name in biases:
        layer[name + ".bias"] = (layer[name + ".weight"][0],)
    for name in norms:
        layer[name + ".weight"] = (head_dim if name.startswith("self_attn") else hidden,)
    ends = {"model.embed_tokens.weight": (c["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    if not tied:
        ends["lm_head.weight"] = (c["vocab_size"], hidden)
    return layered(c["num_hidden_layers"], ends, layer)


def fuse(shapes: dict, parts: tuple[str, ...], fused: str) -> dict:
    """Several projections of each layer as one, in the order of `parts`."""
    result = {}
    for name, shape in shapes.items():
        part = next((part for part in parts if name.endswith(f".{part}.weight") or name.endswith(f".{part}.bias")), None)
        if part is None:
            result[name] = shape
            continue
        key = name.replace(f".{part}.", f".{fused}.")
        result[key] = (result.get(key, (0,))[0] + shape[0], *shape[1:])
    return result


# What llama.cpp's converter does -----------------------------------------------------------------------------------

GGUF_NAMES = {
    "embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm",
    "tok_embeddings": "token_embd", "wte": "token_embd", "ln_f": "output_norm",
    "word_embeddings": "token_embd", "final_layernorm": "output_norm", "output_layer": "output",
    "input_layernorm": "attn_norm", "attention_norm": "attn_norm", "ln_1": "attn_norm", "ln_mlp": "attn_norm",
    "ln_attn": "attn_norm_2",
    "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output", "wo": "attn_output",
    "qkv_proj": "attn_qkv", "c_attn": "attn_qkv", "query_key_value": "attn_qkv",
    "q_norm": "attn_q_norm", "k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm", "ffn_norm": "ffn_norm", "ln_2": "ffn_norm",
    "gate_proj": "ffn_gate", "w1": "ffn_gate", "up_proj": "ffn_up", "w3": "ffn_up", "down_proj": "ffn_down", "w2": "ffn_down",
    "gate_up_proj": "ffn_up", "dense_h_to_4h": "ffn_up", "dense_4h_to_h": "ffn_down",
}


def gguf_tensors(tensors: dict, names: dict[str, str] | None = None) -> dict:
    """Under llama.cpp's names; `names` are those of a family that means something else by them."""
    names = GGUF_NAMES | (names or {})
    result = {}
    for name, tensor in tensors.items():
        stem, kind = name.rsplit(".", 1)
        index = next((part for part in stem.split(".") if part.isdigit()), None)
        last = next((new for old, new in names.items() if stem == old or stem.endswith("." + old)
                     or (old == "model.norm" and stem == "model.norm")), None)
        assert last is not None, name
        result[(f"blk.{index}." if index is not None else "") + f"{last}.{kind}"] = tensor
    return result


def permute(tensor: np.ndarray, heads: int) -> np.ndarray:
    shape = tensor.shape
    return tensor.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def permute_q_k(tensors: dict, heads: int, kv_heads: int) -> dict:
    result = dict(tensors)
    for name, tensor in tensors.items():
        if ".attn_q." in name or ".attn_k." in name:
            result[name] = permute(tensor, heads if ".attn_q." in name else kv_heads)
    return result


def gguf_metadata(c: dict, **more: Any) -> dict:
    heads = c["num_attention_heads"]
    keys = {
        "block_count": c["num_hidden_layers"],
        "context_length": c.get("max_position_embeddings", 2048),
        "embedding_length": c["hidden_size"],
        "feed_forward_length": c.get("intermediate_size"),
        "attention.head_count": heads,
        "attention.head_count_kv": c.get("num_key_value_heads", heads),
        "attention.layer_norm_rms_epsilon": c.get("rms_norm_eps"),
        "rope.freq_base": float(c.get("rope_theta", 10000.0)),
        "rope.dimension_count": c.get("head_dim") or c["hidden_size"] // heads,
    }
    if "head_dim" in c:
        keys |= {"attention.key_length": c["head_dim"], "attention.value_length": c["head_dim"]}
    keys |= {key.replace("__", "."): value for key, value in more.items()}
    return {key: value for key, value in keys.items() if value is not None}


# Mutations -----------------------------------------------------------------------------------------------------------


def setting(path: str, value: Any) -> Mutation:
    """Sets config["a"]["b"] of "a.b"; a value of None takes the field away."""

    def mutate(config: dict, _tensors: dict) -> None:
        *outer, last = path.split(".")
        for key in outer:
            config = config[key]
        assert config.get(last) != value, f"{path} is {value} already"
        if value is None:
            del config[last]
        else:
            config[last] = value

    return mutate


def swapping_heads(part: str, head_dim: int = HEAD_DIM) -> Mutation:
    """The first two heads of every tensor with `part` in its name change places."""

    def mutate(_config: dict, tensors: dict) -> None:
        touched = [name for name in tensors if part in name and name.endswith(".weight")]
        assert touched
        for name in touched:
            rows = tensors[name].copy()
            rows[:head_dim], rows[head_dim : 2 * head_dim] = tensors[name][head_dim : 2 * head_dim], tensors[name][:head_dim]
            tensors[name] = rows

    return mutate


EPS = {"eps": setting("rms_norm_eps", 1e-2)}
THETA = {"theta": setting("rope_theta", 500.0)}


def config_of(architecture: str, model_type: str, **more: Any) -> dict:
    config = {
        "architectures": [architecture], "model_type": model_type, "vocab_size": VOCAB, "hidden_size": HIDDEN,
        "intermediate_size": MLP, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "max_position_embeddings": SESSION_LEN, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False, "torch_dtype": "float32",
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }
    config |= more
    return {key: value for key, value in config.items() if value is not ...}  # ...: not there


QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
ALL_BIASES = (*QKV, "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
TWO_SESSIONS = [(96, list(range(SHORT_PROMPTS))), (160, [SHORT_PROMPTS])]  # a trained or original context of 96
