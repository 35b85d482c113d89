"""lanner.Tokenizer beside the pipeline's own, and Hugging Face's where the model is a folder."""

import os

import pytest
from tokenizers import Tokenizer as Reference

from lanner import DetokenizeState, Tokenizer

TEXTS = ["Hello, world", "naïve café", "上海是一座城市", "🙂🙃 tabs\tand\nlines", "", "  two  blanks "]


@pytest.fixture(scope="module")
def folder():
    return os.environ["LANNER_TEST_MODEL_DIR"]


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_hugging_face(tokenizer, folder, text):
    expected = Reference.from_file(f"{folder}/tokenizer.json").encode(text).ids
    assert tokenizer.encode(text) == expected
    assert tokenizer(text).input_ids == expected
    assert tokenizer.decode(expected) == text


def test_a_list_of_texts(tokenizer):
    assert tokenizer(TEXTS).input_ids == [tokenizer.encode(text) for text in TEXTS]


def test_vocabulary(tokenizer):
    vocabulary = tokenizer.get_vocab()
    assert len(vocabulary) <= tokenizer.vocab_size
    assert vocabulary["<|im_end|>"] == tokenizer.eos_token_id
    assert tokenizer.bos_token_id in vocabulary.values()
    ids = tokenizer.indexes_containing_token("Hello")
    assert tokenizer.encode("Hello")[0] in ids
    assert all("Hello" in tokenizer.decode([one]) for one in ids)
    assert tokenizer.indexes_containing_token("") == []


def test_text_grows_by_whole_characters(tokenizer):
    text = "".join(TEXTS)
    ids = tokenizer.encode(text)
    state, grown = DetokenizeState(), ""
    for end in range(1, len(ids) + 1):
        new, state = tokenizer.detokenize_incrementally(ids[:end], state)
        assert "\N{REPLACEMENT CHARACTER}" not in new
        grown += new
    assert grown == text


def test_offset_and_special_tokens(tokenizer):
    ids = tokenizer.encode("<|im_start|>user")
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<|im_start|>user"
    assert tokenizer.decode(ids) == "user"
    assert tokenizer.decode(ids, offset=1) == "user"


def test_bos_can_be_left_out(tokenizer, monkeypatch):
    first = tokenizer.encode("<|im_start|>user")
    assert first[0] == tokenizer.bos_token_id
    assert tokenizer.encode("<|im_start|>user", add_bos=False) == first[1:]


def test_no_such_model():
    with pytest.raises(FileNotFoundError):
        Tokenizer("/nowhere/at/all")
