"""Small vocabularies, trained at test time on the text of this repository, and what is known of them without src/text."""

import base64
import contextlib
import io

import sentencepiece
import tokenizers

import text_probe
import texts

SEED = 19


def sentences():
    """English prose, and strings of many scripts."""
    prose = (text_probe.REPOSITORY / "data/wikitext2/test.txt").read_text()[:400_000].splitlines()
    return [line.strip() for line in prose if line.strip()] + texts.generate(3_000, SEED)


def sentencepiece_file(folder, name, **options):
    """Trains a model; options are the trainer's. The path of the .model file."""
    model = io.BytesIO()
    settings = {"vocab_size": 1200, "character_coverage": 0.99, "max_sentence_length": 20_000, "num_threads": 1,
                "minloglevel": 2, **options}
    with contextlib.redirect_stderr(io.StringIO()):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(text.replace("\x00", "").replace("\n", " ") for text in sentences()), model_writer=model,
            **settings)
    path = folder / f"{name}.model"
    path.write_bytes(model.getvalue())
    return path


def merges_of(processor):
    """Every way to join two pieces of a BPE model to a third, best score first."""
    ids = {processor.id_to_piece(i): i for i in range(processor.get_piece_size())
           if not (processor.is_control(i) or processor.is_unknown(i) or processor.is_byte(i))}
    found = []
    for piece, whole in ids.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in ids and right in ids:
                found.append((-processor.get_score(whole), ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def llama_like(processor, added, legacy, add_prefix_space=True):
    """The tokenizer that Transformers makes of a tokenizer.model for LlamaTokenizer, from the parts of `tokenizers`."""
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    vocabulary = {processor.id_to_piece(i): i for i in range(processor.get_piece_size())}
    made = tokenizers.Tokenizer(models.BPE(vocabulary, merges_of(processor), unk_token="<unk>", fuse_unk=True,
                                           byte_fallback=True))
    blank = normalizers.Replace(" ", "▁")
    if legacy:
        first = [normalizers.Prepend("▁")] if add_prefix_space else []
        made.normalizer = normalizers.Sequence([*first, blank])
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement="▁", prepend_scheme="first" if add_prefix_space else "never", split=False)
    strip = [decoders.Strip(" ", 1, 0)] if add_prefix_space else []
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    for token in added:
        (made.add_special_tokens if token.special else made.add_tokens)([token])
    return made


def byte_ranks(size):
    """A byte-level BPE as tiktoken's table: bytes to rank."""
    from tokenizers import models, pre_tokenizers, trainers

    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.train_from_iterator(sentences(), trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    spelled, others = {}, 0
    for byte in range(256):
        printable = 33 <= byte <= 126 or 161 <= byte <= 172 or byte >= 174
        spelled[chr(byte) if printable else chr(256 + others)] = byte
        others += not printable
    pieces = sorted(made.get_vocab().items(), key=lambda item: item[1])
    tokens = [bytes(spelled[character] for character in piece) for piece, _ in pieces]
    # Bytes first, as in published files.
    tokens.sort(key=lambda token: len(token) > 1)
    return {token: rank for rank, token in enumerate(tokens)}


def write_ranks(ranks, path):
    path.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()))
    return path
