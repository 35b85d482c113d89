"""Hugging Face folders of Llama's form for the measurements here: read, and written once more with other matrices."""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil

import numpy as np
from safetensors.numpy import load_file, save_file

LAYER_MATRIX = re.compile(r"model\.layers\.(\d+)\.(self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)\.weight")
SMALL_FILES = 32 << 20  # what is copied beside the weights: texts, vocabularies


def read_config(folder):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") != "llama":
        raise SystemExit(f"{folder}/config.json: model_type {config.get('model_type')!r} is not llama")
    return config


def read_tensors(folder):
    """All tensors of the folder by name, as fp32."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise SystemExit(f"{folder}: no safetensors")
    return {name: value.astype(np.float32) for path in paths for name, value in load_file(path).items()}


def layer_matrices(tensors):
    """The names of the matrices that quantizers round."""
    return [name for name in tensors if LAYER_MATRIX.fullmatch(name)]


@contextlib.contextmanager
def made_beside(destination):
    """A folder to fill, which takes its place when the block has ended without an exception."""
    part = destination.with_name(f"{destination.name}.part-{os.getpid()}")
    part.mkdir(parents=True)
    try:
        yield part
        part.rename(destination)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_folder(source, destination, tensors):
    """The folder `source` with these tensors, in fp32, in one file. It appears when it is complete."""
    with made_beside(destination) as part:
        for path in source.iterdir():
            is_weights = path.suffix in (".safetensors", ".bin") or path.name.endswith(".index.json")
            if path.is_file() and not is_weights and path.stat().st_size <= SMALL_FILES:
                shutil.copyfile(path, part / path.name)
        config = {**read_config(source), "torch_dtype": "float32"}
        config.pop("dtype", None)
        (part / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        contiguous = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in tensors.items()}
        save_file(contiguous, part / "model.safetensors", metadata={"format": "pt"})


def new_folder_argument(text):
    """Of what takes long to fill: said at once, and not when it is to be put there."""
    folder = pathlib.Path(text)
    if folder.exists():
        raise argparse.ArgumentTypeError(f"{folder}: is there already")
    return folder


def folder_argument(text):
    folder = pathlib.Path(text)
    if not (folder / "config.json").is_file():
        raise SystemExit(f"{folder}: has no config.json")
    return folder
