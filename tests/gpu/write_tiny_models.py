#!/usr/bin/env python3
"""Writes the folder of every tiny model of tests/model/tiny_models.py below FOLDER, for the GPU bundle.

    tests/gpu/write_tiny_models.py FOLDER
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "model"))
import tiny_models  # noqa: E402

for name, make in tiny_models.MODELS.items():
    folder = pathlib.Path(sys.argv[1]) / name
    folder.mkdir(parents=True)
    make().write_folder(folder)
