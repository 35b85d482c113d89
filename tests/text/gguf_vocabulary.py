"""Reads the vocabulary of a GGUF file and writes it as JSON for text_probe --bpe.

A reader of its own: only the key/value part of the file is wanted, and this takes a second where a general one takes half a minute.
"""

import json
import mmap
import struct

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
KEYS = {
    "pre_tokenizer": "tokenizer.ggml.pre",
    "add_bos": "tokenizer.ggml.add_bos_token",
    "add_eos": "tokenizer.ggml.add_eos_token",
    "bos_id": "tokenizer.ggml.bos_token_id",
    "eos_id": "tokenizer.ggml.eos_token_id",
    "add_prefix_space": "tokenizer.ggml.add_space_prefix",
    "tokens": "tokenizer.ggml.tokens",
    "merges": "tokenizer.ggml.merges",
    "token_types": "tokenizer.ggml.token_type",
}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def scalars(self, form, count=1):
        values = struct.unpack_from(f"<{count}{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{count}{form}")
        return values

    def string(self):
        (size,) = self.scalars("Q")
        self.at += size
        return self.data[self.at - size : self.at].decode()

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.scalars(SCALARS[kind])[0]
        (item_kind,), (count,) = self.scalars("I"), self.scalars("Q")
        if item_kind in SCALARS:
            return list(self.scalars(SCALARS[item_kind], count))
        return [self.value(item_kind) for _ in range(count)]


def read_vocabulary(path):
    """The members of BpeVocabulary as a dict, or None when the file's tokenizer is of another kind."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = Reader(data)
        magic, version, _, count = reader.scalars("I") + reader.scalars("I") + reader.scalars("Q") + reader.scalars("Q")
        assert magic == 0x46554747 and version in (2, 3)
        fields = {}
        for _ in range(count):
            key = reader.string()
            fields[key] = reader.value(reader.scalars("I")[0])
    if fields["tokenizer.ggml.model"] != "gpt2":
        return None
    return {name: fields[key] for name, key in KEYS.items() if key in fields}


def write_vocabulary(vocabulary, path):
    path.write_text(json.dumps(vocabulary))
    return path
