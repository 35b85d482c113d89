#!/usr/bin/env python3
"""Makes tests/model/golden_smollm2.json: what Transformers computes in fp32 for 32 prompts.

    LANNER_TEST_MODEL_DIR=FOLDER python tests/model/make_decoder_golden.py [--out FILE]

FOLDER is SmolLM2-135M-Instruct's shipped Q4_1 GGUF, widened to fp32 safetensors (tokenizer.json beside them): an engine
that runs the GGUF in fp32 arithmetic has the same weights, bit for bit. Needs scripts/requirements-golden.txt.

The file: "prompts", a list of
  name            what it stands for
  prompt          token ids, without any added by a tokenizer
  greedy          64 tokens by argmax (the lowest id among equals); generation does not stop at the end of the answer
  margins         of each greedy token: its logit minus that of the runner-up; below 1e-3 another order of additions may
                  decide otherwise, and what follows then differs rightly
  logit_ids, logits, log_sum_exp
                  of the last prompt position: the 32 best ids, best first, then 32 random others
  positions       on four prompts: for every prompt position its argmax, margin and log_sum_exp
  outputs         on the same: the prompt's mean cross-entropy, and its hidden states after the final norm, that of the
                  last token and the mean over all
Logits carry six significant digits.
"""

import argparse
import json
import os
import pathlib
import random

import tokenizers
import torch
import transformers

GREEDY_TOKENS = 64
BEST_IDS = 32
RANDOM_IDS = 32
SEED = 20240607
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
WITH_POSITIONS = {"english_story", "chinese", "code_python", "long_700"}


def chat(user, system=None):
    turns = [("system", system)] if system else []
    turns.append(("user", user))
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    return text + "<|im_start|>assistant\n"


def texts():
    wikitext = (REPOSITORY / "data" / "wikitext2" / "test.txt").read_text(encoding="utf-8")
    return {
        "english_story": "Once upon a time, in a village at the foot of the mountains, there lived a clockmaker who",
        "english_fact": "The capital of France is",
        "english_recipe": "To bake a loaf of bread you need flour, water, salt and yeast. First,",
        "english_science": "Photosynthesis is the process by which plants",
        "english_question": "Q: Why is the sky blue?\nA:",
        "english_list": "Three reasons to walk every day:\n1.",
        "english_quote": '"It was the best of times, it was the worst of times,',
        "english_upper": "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG AND THEN",
        "chinese": "人工智能是计算机科学的一个分支，它",
        "chinese_question": "请用一句话介绍北京。",
        "japanese": "吾輩は猫である。名前は",
        "german": "Der Falke ist ein schneller Vogel, der",
        "french": "Les droits de l'homme sont",
        "russian": "Москва является столицей",
        "code_python": "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
        "code_cpp": "#include <vector>\n\nint sum(const std::vector<int>& values) {\n",
        "code_html": "<!DOCTYPE html>\n<html>\n<head>\n  <title>",
        "code_json": '{"name": "Ada", "born": 1815, "known_for": [',
        "code_shell": "#!/bin/sh\nset -e\nfor file in *.txt; do\n",
        "emoji": "I love 🍕 and 🎉! My favourite emoji are 😀 😂 🚀 and",
        "numbers_count": "1, 2, 3, 4, 5, 6, 7,",
        "numbers_arithmetic": "12 + 30 = 42\n17 + 25 =",
        "numbers_pi": "3.14159265358979",
        "chat_hello": chat("Hello! Who are you?"),
        "chat_system": chat("What is gravity?", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
        "chat_code": chat("Write a Python function that reverses a string."),
        "chat_chinese": chat("你好，请介绍一下你自己。"),
        "spaces": "   \n\n\t  The",
        "repeat": "tick tock " * 40,
        "one_token": "The",
        "medium_250": first_tokens(wikitext, 1_200, 250),
        "long_700": first_tokens(wikitext, 40_000, 700),
    }


def first_tokens(text, start, count):
    """The slice that is later cut to `count` tokens: a long prompt without typing it."""
    return (text[start : start + 12 * count], count)


def significant(value):
    return float(f"{value:.6g}")


def best_and_margin(logits):
    """(rows, vocab) to the argmax of each row, lowest id first among equals, and its lead over the runner-up."""
    top = torch.topk(logits, 2, dim=-1).values
    return logits.argmax(dim=-1).tolist(), [significant(lead) for lead in (top[:, 0] - top[:, 1]).tolist()]


def greedy_tokens(prompts, model):
    """GREEDY_TOKENS ids for each prompt, all prompts as one batch with padding on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.no_grad():
        output = model.generate(
            ids, attention_mask=mask, max_new_tokens=GREEDY_TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0
        )
    return output[:, longest:].tolist()


def golden(name, prompt, greedy, model, choose):
    """One forward pass over prompt and answer, alone: the logits, the margins, and proof that the answer is greedy."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + greedy[:-1]])).logits[0].float()  # (positions, vocab)
    last = logits[len(prompt) - 1]
    best = torch.topk(last, BEST_IDS).indices.tolist()
    others = choose.sample(sorted(set(range(last.numel())) - set(best)), RANDOM_IDS)
    argmax, margins = best_and_margin(logits)
    answer = argmax[len(prompt) - 1 :]
    for step, (token, alone) in enumerate(zip(greedy, answer, strict=True)):
        # In a batch sums come out in another order; a difference is right only where two tokens are as good as equal.
        if token != alone:
            raise SystemExit(f"{name}: step {step}: {token} in the batch, {alone} alone; choose another prompt")
    entry = {
        "name": name,
        "prompt": prompt,
        "greedy": greedy,
        "margins": margins[len(prompt) - 1 :],
        "logit_ids": best + others,
        "logits": [significant(last[i].item()) for i in best + others],
        "log_sum_exp": significant(torch.logsumexp(last.double(), dim=-1).item()),
    }
    if name in WITH_POSITIONS:
        sums = torch.logsumexp(logits[: len(prompt)].double(), dim=-1).tolist()
        entry["positions"] = {
            "argmax": argmax[: len(prompt)],
            "margins": margins[: len(prompt)],
            "log_sum_exp": [significant(value) for value in sums],
        }
        entry["outputs"] = prompt_outputs(prompt, model)
    return entry


def prompt_outputs(prompt, model):
    ids = torch.tensor([prompt])
    with torch.no_grad():
        loss = model(ids, labels=ids).loss.item()
        states = model.model(ids).last_hidden_state[0].float()  # (tokens, hidden)
    return {
        "cross_entropy": significant(loss),
        "hidden_last": [significant(value) for value in states[-1].tolist()],
        "hidden_mean": [significant(value) for value in states.mean(dim=0).tolist()],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(pathlib.Path(__file__).with_name("golden_smollm2.json")))
    arguments = parser.parse_args()
    folder = os.environ["LANNER_TEST_MODEL_DIR"]

    tokenizer = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    choose = random.Random(SEED)
    ids = {}
    for name, text in texts().items():
        text, count = text if isinstance(text, tuple) else (text, None)
        ids[name] = tokenizer.encode(text, add_special_tokens=False).ids[:count]
    # Prompts of like length share a batch: padding costs time.
    names = sorted(ids, key=lambda name: len(ids[name]))
    batches = [names[:29], names[29:]]
    greedy = {}
    for batch in batches:
        greedy.update(zip(batch, greedy_tokens([ids[name] for name in batch], model), strict=True))
    prompts = []
    for name, prompt in ids.items():
        prompts.append(golden(name, prompt, greedy[name], model, choose))
        print(f"{name}: {len(prompt)} tokens -> {tokenizer.decode(greedy[name][:16])!r}", flush=True)

    document = {
        "about": "made by tests/model/make_decoder_golden.py; do not edit",
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "dtype": "float32",
        "vocab_size": model.config.vocab_size,
        "prompts": prompts,
    }
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in document.pop("prompts"))
    head = json.dumps(document)[:-1]
    pathlib.Path(arguments.out).write_text(f'{head}, "prompts": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
