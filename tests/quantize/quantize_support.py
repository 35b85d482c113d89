"""The program, the text that tests calibrate with, and a tokenizer that needs no training."""

import os
import pathlib

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("LANNER_BINARY", str(REPOSITORY / "build" / "lanner"))
TEXT = (REPOSITORY / "data/wikitext2/valid.txt").read_bytes()[:20_000].decode("utf-8", "ignore")


def byte_letters():
    """The letter that stands for each byte in byte-level vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


def write_tokenizer(folder):
    """One whose token ids are the bytes of the text."""
    tokenizer = Tokenizer(models.BPE({letter: byte for byte, letter in byte_letters().items()}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
