#!/usr/bin/env python3
"""Makes tests/eval/golden_perplexity.json: the perplexity that Transformers computes in fp32 on data/wikitext2/test.txt.

    LANNER_TEST_MODEL_DIR=FOLDER python tests/eval/make_perplexity_golden.py [--out FILE] [--first-windows-only]

FOLDER is SmolLM2-135M-Instruct's shipped Q4_1 GGUF, widened to fp32 safetensors, with tokenizer.json: an engine that
runs the GGUF in fp32 arithmetic has the same weights, bit for bit. Needs scripts/requirements-golden.txt; the whole text
takes 10 minutes on two free cores.

The method is that of `lanner eval perplexity` (src/eval/perplexity.h), written down independently: the text as one piece
without special tokens, consecutive windows, no context across windows, seqlen - 1 predictions a window.

The file: "text_sha256"; "tokens" of the whole text; "runs", each with seqlen, windows, mean_nll, perplexity and
window_nll, the mean of each of the first windows.
"""

import argparse
import hashlib
import json
import math
import os
import pathlib
import sys

import tokenizers
import torch
import transformers

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
FIRST_WINDOWS = 4
SHORT_SEQLEN = 256
LONG_SEQLEN = 1024
ROWS_AT_ONCE = 128


def window_nll(model, window):
    """The mean of -log p over tokens 1.. of the window, in nats, in double."""
    with torch.no_grad():
        logits = model(torch.tensor([window], device=model.device), use_cache=False).logits[0]  # (seqlen, vocab)
        total = 0.0
        for first in range(0, len(window) - 1, ROWS_AT_ONCE):
            rows = logits[first : min(first + ROWS_AT_ONCE, len(window) - 1)].double()
            targets = torch.tensor(window[first + 1 : first + 1 + len(rows)], device=rows.device)
            total -= torch.log_softmax(rows, dim=-1).gather(1, targets[:, None]).sum().item()
    return total / (len(window) - 1)


def measure(model, ids, seqlen, max_windows):
    count = len(ids) // seqlen
    if max_windows:
        count = min(count, max_windows)
    losses = []
    for index in range(count):
        losses.append(window_nll(model, ids[index * seqlen : (index + 1) * seqlen]))
        print(f"seqlen {seqlen}: window {index + 1} of {count}: {losses[-1]:.6f}", file=sys.stderr, flush=True)
    mean = sum(losses) / count
    return {
        "seqlen": seqlen,
        "windows": count,
        "mean_nll": round(mean, 7),
        "perplexity": round(math.exp(mean), 5),
        "window_nll": [round(loss, 7) for loss in losses[:FIRST_WINDOWS]],
    }


def write(out, script, content, figures):
    """The golden file: what it was made by and of, and the figures."""
    document = {
        "about": f"made by tests/eval/{script}; do not edit",
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "dtype": "float32",
        "text_sha256": hashlib.sha256(content).hexdigest(),
        **figures,
    }
    pathlib.Path(out).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(pathlib.Path(__file__).with_name("golden_perplexity.json")))
    parser.add_argument("--first-windows-only", action="store_true", help="leave the run over the whole text out")
    arguments = parser.parse_args()
    folder = os.environ["LANNER_TEST_MODEL_DIR"]

    content = (REPOSITORY / "data" / "wikitext2" / "test.txt").read_bytes()
    tokenizer = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    ids = tokenizer.encode(content.decode("utf-8"), add_special_tokens=False).ids
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()

    runs = [measure(model, ids, SHORT_SEQLEN, FIRST_WINDOWS), measure(model, ids, LONG_SEQLEN, FIRST_WINDOWS)]
    if not arguments.first_windows_only:
        runs.append(measure(model, ids, LONG_SEQLEN, None))
    write(arguments.out, "make_perplexity_golden.py", content, {"tokens": len(ids), "runs": runs})


if __name__ == "__main__":
    main()
