#!/usr/bin/env python3
"""Makes tests/eval/golden_kv_perplexity.json: the perplexity that Transformers computes in fp32 on the first windows of
data/wikitext2/test.txt where keys and values are rounded as a cache of int8 or int4 rounds them.

    LANNER_TEST_MODEL_DIR=FOLDER python tests/eval/make_kv_golden.py [--out FILE] [--device cuda] [--windows 0]

--windows 0 takes the whole text, and --bits 0 leaves keys and values as they are: bench/kv_table.py asks for both.
FOLDER as for make_perplexity_golden.py, whose windows and sums these are. The formula is that of LMDeploy's online
quantization, written down independently of src/ops: of each token and KV head, over the head's numbers, for keys (after
the rotation) and values apart, min = fp16(smallest), scale = fp16((largest - smallest) / (2^bits - 1)), code = round to
nearest even of (x - min) / scale, from 0 to 2^bits - 1, and number = code * scale + min.
"""

import argparse
import os
import pathlib

import make_perplexity_golden as plain
import tokenizers
import torch
import transformers
from transformers.integrations.sdpa_attention import sdpa_attention_forward

SEQLEN, WINDOWS = 1024, 16


def through_codes(numbers, bits):
    smallest = numbers.amin(dim=-1, keepdim=True)
    scale = ((numbers.amax(dim=-1, keepdim=True) - smallest) / (2**bits - 1)).half().float()
    smallest = smallest.half().float()
    assert bool((scale > 0).all())
    codes = torch.round((numbers - smallest) / scale).clamp(0, 2**bits - 1)
    return codes * scale + smallest


def attention_with_codes(bits):
    def attend(module, query, key, value, *others, **named):
        return sdpa_attention_forward(module, query, through_codes(key, bits), through_codes(value, bits), *others, **named)

    return attend


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(pathlib.Path(__file__).with_name("golden_kv_perplexity.json")))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--windows", type=int, default=WINDOWS, help="of the text's first ones; 0: all")
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 4], choices=(0, 8, 4))
    arguments = parser.parse_args()
    folder = os.environ["LANNER_TEST_MODEL_DIR"]

    content = (plain.REPOSITORY / "data" / "wikitext2" / "test.txt").read_bytes()
    tokenizer = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    ids = tokenizer.encode(content.decode("utf-8"), add_special_tokens=False).ids
    runs = []
    for bits in arguments.bits:
        name = f"codes_of_{bits}_bits" if bits else "sdpa"
        if bits:
            transformers.AttentionInterface.register(name, attention_with_codes(bits))
            transformers.AttentionMaskInterface.register(name, transformers.masking_utils.sdpa_mask)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=name)
        runs.append({"bits": bits, **plain.measure(model.to(arguments.device).eval(), ids, SEQLEN, arguments.windows)})
    plain.write(arguments.out, "make_kv_golden.py", content, {"runs": runs})


if __name__ == "__main__":
    main()
