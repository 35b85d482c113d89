#!/usr/bin/env python3
"""Writes the folder of every tiny model of tests/model/tiny_models.py below FOLDER. In a GPU bundle that file lies beside
this one. Needs numpy and safetensors.

    tests/gpu/write_tiny_models.py FOLDER
"""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "model"))
import tiny_models  # noqa: E402

for name, make in tiny_models.MODELS.items():
    folder = pathlib.Path(sys.argv[1]) / name
    folder.mkdir(parents=True)
    make().write_folder(folder)
