"""src/text against the Python package `tokenizers`, on a real model: not one id may differ.

LANNER_TEST_MODEL_DIR  a Hugging Face folder with tokenizer.json
LANNER_TEST_GGUF       a GGUF file of the same model
LANNER_TEST_LLAMA_CPP_VOCABS  the folder models/ of llama.cpp's source, with ggml-vocab-*.gguf, .inp and .out; its test
                       runs only when asked for: python -m pytest tests/text -m peer
"""

import random
import time

import pytest
import tokenizers

import gguf_vocabulary
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
def source(request, tmp_path_factory):
    """The two forms of the same model's tokenizer, as arguments of text_probe."""
    if request.param == "json":
        return ["--tokenizer", text_probe.environment_path("LANNER_TEST_MODEL_DIR") / "tokenizer.json"]
    vocabulary = gguf_vocabulary.read_vocabulary(text_probe.environment_path("LANNER_TEST_GGUF"))
    return ["--bpe", gguf_vocabulary.write_vocabulary(vocabulary, tmp_path_factory.mktemp("gguf") / "vocabulary.json")]


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


def llama_cpp_cases(folder):
    return sorted(path for path in folder.glob("ggml-vocab-*.gguf") if path.with_name(path.name + ".out").exists())


@pytest.mark.peer
def test_llama_cpp_vectors(tmp_path):
    """Every gpt2-kind vocabulary that llama.cpp tests, with its own inputs and expected ids."""
    folder = text_probe.environment_path("LANNER_TEST_LLAMA_CPP_VOCABS")
    compared, wrong, unknown = {}, [], []
    for path in llama_cpp_cases(folder):
        vocabulary = gguf_vocabulary.read_vocabulary(path)
        if vocabulary is None:
            continue
        source = ["--bpe", gguf_vocabulary.write_vocabulary(vocabulary, tmp_path / f"{path.name}.json")]
        inputs = path.with_name(path.name + ".inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
        lines = path.with_name(path.name + ".out").read_text().splitlines()
        expected = [[int(word) for word in line.split()] for line in lines]
        inputs = inputs[: len(expected)]
        try:
            actual = text_probe.encode(source, inputs, "--no-special")
        except text_probe.ProbeError as error:
            unknown.append((path.name, str(error)[:120]))
            continue
        compared[path.name] = len(inputs)
        wrong += [(path.name, *case) for case in differences(expected, actual, inputs)]
    print(compared, unknown)
    assert compared
    assert wrong == []
    assert unknown == []
