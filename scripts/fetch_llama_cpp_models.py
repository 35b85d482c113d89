#!/usr/bin/env python3
"""Fetches llama.cpp's folder models/ once and prints its path: vocabularies with expected tokens, and chat templates.

It lies in the source package of llama-cpp-python on PyPI (MIT), 77 MB, which is fetched with pip, so that pip's own
settings hold. pip looks into a source package before it keeps it and fetches a build tool for that: this takes minutes.
Only the tests marked `peer` want the folder; nothing of it becomes a part of this project.

    export LANNER_TEST_LLAMA_CPP_VOCABS=$(scripts/fetch_llama_cpp_models.py)
    .venv/bin/python -m pytest tests/text -m peer
    scripts/fetch_llama_cpp_models.py --offline    # fails where it has not been fetched
"""

import sys

from fetch_from_package import Package, main

MODELS = Package(requirement="llama-cpp-python==0.3.36",
                 sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
                 inside="/vendor/llama.cpp/models/", folder="llama-cpp-models",
                 what="llama.cpp's vocabularies and chat templates", size="77 MB")

if __name__ == "__main__":
    sys.exit(main(MODELS, __doc__))
