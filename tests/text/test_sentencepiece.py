"""tokenizer.model and vocabularies of the GGUF kind "llama" against the Python packages sentencepiece and tokenizers.

The models are trained here. Where LANNER_TEST_SENTENCEPIECE or the folder shared/ beside the checkout has a real one, it is
compared as well, over more strings.
"""

import json
import os
import pathlib
import random
import re

import gguf
import pytest
import sentencepiece
from tokenizers import AddedToken

import text_probe
import texts
import trained

COUNT = 4_000
REAL_COUNT = 20_000
SEED = 5
SPECIAL = ["<s>", "</s>", "<unk>", "<sep>", "<tool>", "<0x41>", "▁a", "▁▁"]
TRAINED = {
    # As Llama's: no normalization, digits apart, bytes for what has no piece.
    "llama": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "split_digits": True,
              "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True},
    # As Gemma's: no dummy prefix, user-defined runs of blanks, control symbols.
    "gemma": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "add_dummy_prefix": False,
              "remove_extra_whitespaces": False, "user_defined_symbols": ["▁▁", "▁▁▁", "<tool>"],
              "control_symbols": ["<sep>"]},
    "bpe_nfkc": {"model_type": "bpe", "user_defined_symbols": ["<tool>"]},
    "unigram_nfkc": {"model_type": "unigram", "control_symbols": ["<sep>"], "user_defined_symbols": ["<tool>", "tool"]},
    "unigram_bytes": {"model_type": "unigram", "byte_fallback": True, "normalization_rule_name": "nmt_nfkc_cf"},
    "unigram_suffix": {"model_type": "unigram", "treat_whitespace_as_suffix": True, "byte_fallback": True},
    "characters": {"model_type": "char"},
    "words": {"model_type": "word", "vocab_size": 3000},
}


def real_model():
    """The path of a published model, where there is one."""
    named = os.environ.get("LANNER_TEST_SENTENCEPIECE")
    beside = text_probe.REPOSITORY.parent / "shared/data/tokenizers/internlm_v7_sft.model"
    return named or (str(beside) if beside.exists() else None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sentencepiece")


@pytest.fixture(scope="module", params=[*TRAINED, *(["real"] if real_model() else [])])
def model(request, folder):
    """A model's path, the reference that reads it, and how many strings to compare."""
    if request.param == "real":
        path, count = real_model(), REAL_COUNT
    else:
        path, count = trained.sentencepiece_file(folder, request.param, **TRAINED[request.param]), COUNT
    return path, sentencepiece.SentencePieceProcessor(model_file=str(path)), count


@pytest.fixture(scope="module")
def llama(folder):
    path = trained.sentencepiece_file(folder, "for_classes", **TRAINED["llama"])
    return path, sentencepiece.SentencePieceProcessor(model_file=str(path))


def differences(expected, actual, inputs):
    wrong = [(text, e, a) for text, e, a in zip(inputs, expected, actual, strict=True) if e != a]
    print(f"{len(inputs)} compared, {len(wrong)} differ")
    return wrong


def no_ties(reference, wrong, inputs):
    """Without the rows that say the same in as many points: there a unigram model has no first, and rounding picks one."""

    def score(ids):
        return sum(reference.get_score(i) for i in ids)

    left = [(text, e, a) for text, e, a in wrong
            if abs(score(e) - score(a)) > 1e-4 or reference.decode(e) != reference.decode(a)]
    print(f"{len(wrong) - len(left)} ties")
    assert len(wrong) - len(left) <= len(inputs) // 200
    return left


def random_rows(reference, count):
    """Lists of ids, among them runs of byte pieces, without the unknown piece, which has no text of its own."""
    rng = random.Random(SEED)
    size = reference.get_piece_size()
    byte_ids = [i for i in range(size) if reference.is_byte(i)] or list(range(size))
    rows = [[rng.randrange(size) for _ in range(rng.randrange(40))] for _ in range(count)]
    rows += [[rng.choice(byte_ids) for _ in range(rng.randrange(20))] for _ in range(count)]
    blanks = [i for i in range(size) if reference.id_to_piece(i).startswith("▁")]
    rows += [[rng.choice(blanks) for _ in range(rng.randrange(8))] for _ in range(count // 4)]
    return [[i for i in row if not reference.is_unknown(i)] for row in rows]


def test_encode_equals_sentencepiece(model):
    path, reference, count = model
    inputs = texts.generate(count, SEED, SPECIAL)
    expected = [reference.encode(text) for text in inputs]
    wrong = differences(expected, text_probe.encode(["--sentencepiece", path], inputs), inputs)
    assert (no_ties(reference, wrong, inputs) if "unigram" in str(path) else wrong) == []


@pytest.mark.parametrize("mode", ["decode", "stream"])
def test_decode_equals_sentencepiece(model, mode):
    path, reference, count = model
    rows = [reference.encode(text) for text in texts.generate(count // 2, SEED + 1, SPECIAL)]
    rows = [[i for i in row if not reference.is_unknown(i)] for row in rows] + random_rows(reference, count // 4)
    expected = [reference.decode(row) for row in rows]
    assert differences(expected, text_probe.decode(mode, ["--sentencepiece", path], rows, "--skip-special"), rows) == []


ADDED = [
    AddedToken("<s>", special=True), AddedToken("</s>", special=True), AddedToken("<unk>", special=True),
    AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True, rstrip=True),
    AddedToken("<tool>", special=False, lstrip=True, normalized=False), AddedToken("<toolbox>", special=False, normalized=False),
    AddedToken("WORD", special=False, single_word=True, normalized=False),
]


def write_class_folder(folder, path, processor, settings):
    """A model folder with these settings, and the ids that its added tokens get."""
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.model").write_bytes(path.read_bytes())
    ids, decoder = {}, {}
    for token in ADDED:
        known = processor.piece_to_id(token.content)
        is_known = processor.id_to_piece(known) == token.content
        ids[token.content] = known if is_known else processor.get_piece_size() + len(ids) - 3
        decoder[ids[token.content]] = {"content": token.content, "lstrip": token.lstrip, "rstrip": token.rstrip,
                                       "single_word": token.single_word, "special": token.special, "normalized": False}
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
              "added_tokens_decoder": decoder, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return ids


def class_inputs(count):
    # "words" of other scripts touch no WORD here: where a letter ends is Unicode's matter, which only ASCII is exact in.
    inputs = texts.generate(count, SEED + 2, [token.content for token in ADDED])
    return [text for text in inputs if text and "\x00" not in text and not ("WORD" in text and not text.isascii())]


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("prefix", [True, False])
def test_llama_class_equals_tokenizers(llama, tmp_path, legacy, prefix):
    path, processor = llama
    folder = tmp_path / "model"
    ids = write_class_folder(folder, path, processor, {"legacy": legacy, "add_prefix_space": prefix})
    reference = trained.llama_like(processor, ADDED, legacy, prefix)
    assert {token: reference.token_to_id(token) for token in ids} == ids
    inputs = class_inputs(COUNT)
    bos = processor.bos_id()
    expected = [[bos, *reference.encode(text, add_special_tokens=False).ids] for text in inputs]
    assert differences(expected, text_probe.encode(["--folder", folder], inputs), inputs) == []
    for flags in ([], ["--skip-special"]):
        rows = [[i for i in row if i >= processor.get_piece_size() or not processor.is_byte(i)] if i % 2 else row for i, row in enumerate(expected)]
        texts_of = [reference.decode(row, skip_special_tokens=bool(flags)) for row in rows]
        assert differences(texts_of, text_probe.decode("decode", ["--folder", folder], rows, *flags), rows) == []
        assert differences(texts_of, text_probe.decode("stream", ["--folder", folder], rows, *flags), rows) == []


@pytest.mark.parametrize("name", ["InternLM2Tokenizer", "InternLMTokenizer", "BaichuanTokenizer", "YiTokenizer"])
def test_custom_classes_encode_each_stretch_by_itself(llama, tmp_path, name):
    """What the published code of these classes does: cut at the added tokens, give every stretch to SentencePiece."""
    path, processor = (real_model(), sentencepiece.SentencePieceProcessor(model_file=real_model())) if real_model() else llama
    size = processor.get_piece_size()
    # The last pieces are renamed, as InternLM2 does with its spare ones; then come two new ids.
    added = {"<unk>": 0, "<s>": 1, "</s>": 2, "<|im_start|>": size - 1, "<|im_end|>": size - 2, "<|plugin|>": size, "<eoh>": size + 1}
    (tmp_path / "tokenizer.model").write_bytes(pathlib.Path(path).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": name, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>",
        "added_tokens_decoder": {str(i): {"content": text, "special": True} for text, i in added.items()}}))
    cuts = re.compile("(" + "|".join(map(re.escape, sorted(added, key=len, reverse=True))) + ")")
    inputs = texts.generate(COUNT, SEED + 4, list(added))
    expected, shown = [], []
    for text in inputs:
        ids = [1]
        for stretch in cuts.split(text):
            ids += [added[stretch]] if stretch in added else processor.encode(stretch)
        expected.append(ids)
        # A renamed piece is not its old text.
        shown.append(processor.decode([i for i in ids if i not in added.values()]))
    # Text may spell a renamed piece by its old name; its id then means the new one.
    kept = [i for i, text in enumerate(inputs) if not any(processor.id_to_piece(size - n) in text for n in (1, 2))]
    inputs, expected, shown = ([row[i] for i in kept] for row in (inputs, expected, shown))
    assert len(kept) > COUNT // 2
    source = ["--folder", tmp_path]
    assert differences(expected, text_probe.encode(source, inputs), inputs) == []
    for mode in ("decode", "stream"):
        assert differences(shown, text_probe.decode(mode, source, expected, "--skip-special"), expected) == []


def test_bos_and_eos_follow_the_settings(llama, tmp_path):
    path, processor = llama
    inputs = ["Hello", ""]
    for bos, eos in ((True, True), (False, False), (False, True)):
        folder = tmp_path / f"{bos}{eos}"
        write_class_folder(folder, path, processor, {"add_bos_token": bos, "add_eos_token": eos})
        expected = [[processor.bos_id()] * bos + processor.encode(text) + [processor.eos_id()] * eos for text in inputs]
        assert text_probe.encode(["--folder", folder], inputs) == expected
        assert text_probe.encode(["--folder", folder], inputs, "--no-special") == [processor.encode(t) for t in inputs]


def write_gguf(path, processor, add_space_prefix=True):
    """The vocabulary as llama.cpp's converter writes it."""
    tokens, scores, types = [], [], []
    for i in range(processor.get_piece_size()):
        tokens.append(processor.id_to_piece(i).encode())
        scores.append(processor.get_score(i))
        kinds = ((processor.is_unknown, gguf.TokenType.UNKNOWN), (processor.is_control, gguf.TokenType.CONTROL),
                 (processor.is_byte, gguf.TokenType.BYTE))
        types.append(next((kind for test, kind in kinds if test(i)), gguf.TokenType.NORMAL))
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(processor.bos_id())
    writer.add_eos_token_id(processor.eos_id())
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(add_space_prefix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("name", ["llama", "gemma"])
def test_gguf_vocabulary_equals_sentencepiece(folder, tmp_path, name):
    # User-defined symbols would be added tokens here, each with a dummy prefix behind it, as in llama.cpp.
    settings = {key: value for key, value in TRAINED[name].items() if key != "user_defined_symbols"}
    path = trained.sentencepiece_file(folder, f"gguf_{name}", **settings)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(path))
    written = write_gguf(tmp_path / "vocabulary.gguf", reference, add_space_prefix=name == "llama")
    inputs = texts.generate(COUNT, SEED + 3, SPECIAL)
    expected = [[reference.bos_id(), *reference.encode(text)] for text in inputs]
    assert differences(expected, text_probe.encode(["--gguf", written], inputs, "--literal"), inputs) == []
    rows = [*expected, *random_rows(reference, 1_000)]
    expected_texts = [reference.decode(row) for row in rows]
    for mode in ("decode", "stream"):
        assert differences(expected_texts, text_probe.decode(mode, ["--gguf", written], rows, "--skip-special"), rows) == []
