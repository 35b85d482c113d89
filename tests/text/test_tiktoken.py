"""qwen.tiktoken and glm-4's tokenizer.model against the Python package tiktoken, with ranks that are trained here."""

import json
import random
import unicodedata

import pytest
import tiktoken

import text_probe
import texts
import trained

COUNT = 6_000
SEED = 23
QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205))]
GLM_SPECIAL = ["<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>",
               "<|observation|>"]
# As the published tokenization_qwen.py and tokenization_chatglm.py have them.
QWEN_WORDS = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
GLM_WORDS = QWEN_WORDS.replace(r"\p{N}|", r"\p{N}{1,3}|")


@pytest.fixture(scope="module")
def ranks():
    return trained.byte_ranks(3_000)


@pytest.fixture(scope="module", params=["qwen", "glm4"])
def model(request, ranks, tmp_path_factory):
    """The folder, tiktoken's reading of the same ranks, the ids in front of a text, and what is done to a text first."""
    folder = tmp_path_factory.mktemp(request.param)
    qwen = request.param == "qwen"
    special = {text: len(ranks) + i for i, text in enumerate(QWEN_SPECIAL if qwen else GLM_SPECIAL)}
    reference = tiktoken.Encoding(request.param, pat_str=QWEN_WORDS if qwen else GLM_WORDS, mergeable_ranks=ranks,
                                  special_tokens=special)
    if qwen:
        trained.write_ranks(ranks, folder / "qwen.tiktoken")
        return folder, reference, [], lambda text: unicodedata.normalize("NFC", text)
    trained.write_ranks(ranks, folder / "tokenizer.model")
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "ChatGLM4Tokenizer",
        "added_tokens_decoder": {str(i): {"content": text, "special": True} for text, i in special.items()}}))
    return folder, reference, [special["[gMASK]"], special["<sop>"]], lambda text: text


def inputs_for(reference):
    rng = random.Random(SEED)
    special = sorted(reference.special_tokens_set)[:12]
    inputs = texts.generate(COUNT, SEED, special)
    # Runs whose merges overlap: which of two equal ones goes first shows here.
    alphabets = ("ab", "aa ", "=-", "的了", "\u00e9e", "01")
    inputs += ["".join(rng.choice(rng.choice(alphabets)) for _ in range(rng.randrange(1, 60))) for _ in range(COUNT // 3)]
    return [*inputs, "a" * 20_000, "ab" * 5_000, "\t" * 3_000]


def differences(expected, actual, inputs):
    wrong = [(text[:80], e[:40], a[:40]) for text, e, a in zip(inputs, expected, actual, strict=True) if e != a]
    print(f"{len(inputs)} compared, {len(wrong)} differ")
    return wrong[:5]


def test_encode_equals_tiktoken(model):
    folder, reference, prefix, prepared = model
    inputs = inputs_for(reference)
    expected = [prefix + reference.encode(prepared(text), allowed_special="all") for text in inputs]
    assert differences(expected, text_probe.encode(["--folder", folder], inputs), inputs) == []
    expected = [reference.encode_ordinary(prepared(text)) for text in inputs]
    actual = text_probe.encode(["--folder", folder], inputs, "--literal", "--no-special")
    assert differences(expected, actual, inputs) == []


@pytest.mark.parametrize("mode", ["decode", "stream"])
def test_decode_equals_tiktoken(model, mode):
    folder, reference, _, _ = model
    rng = random.Random(SEED)
    special = set(reference._special_tokens.values())  # pylint: disable=protected-access
    size = reference.max_token_value + 1
    rows = [reference.encode(text, allowed_special="all") for text in inputs_for(reference)[:COUNT:3]]
    rows += [[rng.randrange(rng.choice((256, size))) for _ in range(rng.randrange(40))] for _ in range(COUNT // 3)]
    # A special token ends a character that bytes before it have begun: so each stretch is decoded by itself.
    expected = []
    for row in rows:
        text, stretch = "", []
        for token in [*row, None]:
            if token is None or token in special:
                text += reference.decode(stretch) + ("" if token is None else reference.decode([token]))
                stretch = []
            else:
                stretch.append(token)
        expected.append(text)
    assert differences(expected, text_probe.decode(mode, ["--folder", folder], rows), rows) == []
    plain = [[token for token in row if token not in special] for row in rows]
    expected = [reference.decode(row) for row in plain]
    assert differences(expected, text_probe.decode(mode, ["--folder", folder], rows, "--skip-special"), rows) == []
