"""src/text against the Python package `tokenizers`, on a real model: not one id may differ.

LANNER_TEST_MODEL_DIR  a Hugging Face folder with tokenizer.json
LANNER_TEST_GGUF       a GGUF file of the same model
LANNER_TEST_LLAMA_CPP_VOCABS  the folder models/ of llama.cpp's source, with ggml-vocab-*.gguf, .inp and .out. Without it
                       those that scripts/fetch_llama_cpp_models.py has brought are taken. Their test runs only
                       when asked for: python -m pytest tests/text -m peer -s
"""

import os
import pathlib
import random
import subprocess
import sys
import time

import pytest
import tokenizers

import text_probe
import texts

COUNT = 20_000
SEED = 20240229


@pytest.fixture(scope="module")
def model_json():
    return text_probe.environment_path("LANNER_TEST_MODEL_DIR") / "tokenizer.json"


@pytest.fixture(scope="module")
def reference(model_json):
    return tokenizers.Tokenizer.from_file(str(model_json))


@pytest.fixture(scope="module")
def generated(reference):
    special = [token.content for token in reference.get_added_tokens_decoder().values()]
    return texts.generate(COUNT, SEED, special)


@pytest.fixture(scope="module", params=["json", "gguf"])
def source(request):
    """The two forms of the same model's tokenizer, as arguments of text_probe."""
    if request.param == "json":
        return ["--tokenizer", text_probe.environment_path("LANNER_TEST_MODEL_DIR") / "tokenizer.json"]
    return ["--gguf", text_probe.environment_path("LANNER_TEST_GGUF")]


def differences(expected, actual, inputs):
    wrong = [(text, e, a) for text, e, a in zip(inputs, expected, actual, strict=True) if e != a]
    print(f"{len(inputs)} compared, {len(wrong)} differ")
    return wrong[:5]


def test_encode_equals_python(source, reference, generated):
    expected = [reference.encode(text).ids for text in generated]
    assert differences(expected, text_probe.encode(source, generated), generated) == []


def test_special_tokens_as_ordinary_text_equal_python(source, model_json, generated):
    literal = tokenizers.Tokenizer.from_file(str(model_json))
    literal.encode_special_tokens = True
    expected = [literal.encode(text).ids for text in generated]
    assert differences(expected, text_probe.encode(source, generated, "--literal"), generated) == []


@pytest.mark.parametrize("flags", [[], ["--skip-special"]])
def test_decode_equals_python(source, reference, generated, flags):
    rng = random.Random(SEED)
    size = reference.get_vocab_size()
    ids = [reference.encode(text).ids for text in generated[::4]]
    ids += [[rng.randrange(size) for _ in range(rng.randrange(40))] for _ in range(5_000)]
    expected = [reference.decode(row, skip_special_tokens=bool(flags)) for row in ids]
    assert differences(expected, text_probe.decode("decode", source, ids, *flags), ids) == []
    assert differences(expected, text_probe.decode("stream", source, ids, *flags), ids) == []


def test_encode_speed_is_printed(source, generated):
    """No limit: machines differ. Run with -s to see it."""
    corpus = " ".join(text for text in generated if text.isprintable())
    parts = [corpus[at : at + 4096] for at in range(0, len(corpus), 4096)]
    started = time.monotonic()
    text_probe.encode(source, [])
    loaded = time.monotonic()
    text_probe.encode(source, parts)
    seconds = (time.monotonic() - loaded) - (loaded - started)
    print(f"load {loaded - started:.2f} s, encode {len(corpus.encode()) / 1e6 / max(seconds, 1e-6):.2f} MB/s")


# Kinds of tokenizers that are not read: the file is refused by name.
UNREAD_KINDS = {"bert", "t5", "gemma4"}


def llama_cpp_vocabularies():
    """The folder with llama.cpp's vocabularies, or a failed test that says how to get it."""
    named = os.environ.get("LANNER_TEST_LLAMA_CPP_VOCABS")
    if named:
        return pathlib.Path(named)
    script = text_probe.REPOSITORY / "scripts/fetch_llama_cpp_models.py"
    found = subprocess.run([sys.executable, str(script), "--offline"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        pytest.fail(f"llama.cpp's vocabularies are not here: run {script.relative_to(text_probe.REPOSITORY)} once, which "
                    "downloads 77 MB, or name their folder in LANNER_TEST_LLAMA_CPP_VOCABS")
    return pathlib.Path(found.stdout.strip())


def vectors(path):
    """The inputs and the ids that llama.cpp expects, both empty for a vocabulary that comes without."""
    expected_path = path.with_name(path.name + ".out")
    if not expected_path.exists():
        return [], []
    expected = [[int(word) for word in line.split()] for line in expected_path.read_text().splitlines()]
    inputs = path.with_name(path.name + ".inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    return inputs[: len(expected)], expected


@pytest.mark.peer
def test_llama_cpp_vectors():
    """Every vocabulary that llama.cpp tests, with its own inputs and expected ids."""
    rows, wrong, compared = [], [], 0
    for path in sorted(llama_cpp_vocabularies().glob("ggml-vocab-*.gguf")):
        inputs, expected = vectors(path)
        try:
            actual = text_probe.encode(["--gguf", path], inputs, "--no-special")
        except text_probe.ProbeError as error:
            unread = [kind for kind in UNREAD_KINDS if f"'{kind}' is not supported" in str(error)]
            assert unread, error
            rows.append((path.stem, f"kind {unread[0]} is not read"))
            continue
        differ = [case for case in zip(inputs, expected, actual, strict=True) if case[1] != case[2]]
        rows.append((path.stem, f"{len(inputs)} cases, {len(differ)} differ" if inputs else "loads; has no cases"))
        wrong += [(path.name, *case) for case in differ]
        compared += len(inputs)
    print()
    for name, result in rows:
        print(f"{name:30} {result}")
    assert wrong == []
    assert compared > 600
