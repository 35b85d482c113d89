#!/usr/bin/env python3
"""Makes tests/model/golden_tiny.json: what Transformers, or remote_models.py, computes in fp32 with tiny_models.py.

    python tests/model/make_tiny_goldens.py [NAME ...]

Without names all models are made anew, else these replace theirs. Needs scripts/requirements-golden.txt.

The file: "prompts", and for each model "seed" (of its weights) and "runs", a list of {session_len, prompts}, each prompt with
  prompt          its index
  greedy          32 tokens by argmax
  steps, ids, logits
                  before the first and the last of these tokens, the logits of some ids
  largest         and the largest magnitude among all
Dynamic NTK and LongRoPE change with the length of a sequence in Transformers; an engine with a cache fixes them by its
longest session. Their frequencies are Transformers' own for a sequence of session_len tokens.
"""

import json
import pathlib
import sys
import tempfile

import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import remote_models
import tiny_checkpoint
import tiny_models

GOLDEN = pathlib.Path(__file__).parent / "golden_tiny.json"
COLUMNS = 32
# Closer best logits could change places with another order of additions; then the next seed is taken.
LEAST_MARGIN = 2e-5
BY_HAND, BY_TRANSFORMERS = "remote_models.py", f"transformers {transformers.__version__}"


def fix_rope(model, session_len):
    """Frequencies for the session, for good. `dynamic` and `longrope` of one rope per model."""
    kind = (getattr(model.config, "rope_parameters", None) or {}).get("rope_type")
    if kind not in ("dynamic", "longrope"):
        return
    rotary = model.model.rotary_emb
    frequencies, scale = ROPE_INIT_FUNCTIONS[kind](model.config, torch.device("cpu"), seq_len=session_len)
    rotary.inv_freq, rotary.attention_scaling, rotary.rope_type = frequencies, scale, "default"


# Falcon's eager attention adds ALiBi to the scores and to the mask, so twice; its default one adds it once, as it was trained.
ATTENTION = {"falcon_rw": "sdpa"}


class OfTransformers:
    def __init__(self, tiny, session_len):
        with tempfile.TemporaryDirectory() as folder:
            tiny.write_folder(pathlib.Path(folder))
            self.model, info = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, attn_implementation=ATTENTION.get(tiny.name, "eager"),
                output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
        self.model.eval()
        fix_rope(self.model, session_len)

    def logits(self, tokens):
        return self.model(torch.tensor([tokens]), use_cache=False).logits[0]


def reference(tiny, session_len):
    if tiny.name in remote_models.REMOTE:
        tensors = {name: torch.from_numpy(tensor) for name, tensor in tiny.tensors.items()}
        return remote_models.REMOTE[tiny.name](tiny.config, tensors, session_len)
    return OfTransformers(tiny, session_len)


def greedy(model, prompt):
    tokens, answers, margin, steps = list(prompt), [], float("inf"), []
    for step in range(tiny_checkpoint.GREEDY_TOKENS):
        logits = model.logits(tokens)[-1]
        best = logits.topk(2)
        margin = min(margin, float(best.values[0] - best.values[1]) / float(logits.abs().max()))
        if margin < LEAST_MARGIN:
            break
        answers.append(int(best.indices[0]))
        tokens.append(answers[-1])
        if step in (0, tiny_checkpoint.GREEDY_TOKENS - 1):
            ids = sorted({int(i) for i in best.indices} | set(range(0, logits.numel(), logits.numel() // COLUMNS)))
            steps.append({"step": step, "ids": ids, "logits": [float(f"{float(logits[i]):.8g}") for i in ids],
                          "largest": float(logits.abs().max())})
            assert logits.std() >= 0.9, f"logits with a standard deviation of {logits.std():.2f}"
    return {"greedy": answers, "steps": steps}, margin


def try_seed(name, prompts):
    tiny = tiny_models.MODELS[name]()
    runs, least = [], float("inf")
    for session_len, indices in tiny.runs:
        model = reference(tiny, session_len)
        answers = []
        for index in indices:
            answer, margin = greedy(model, prompts[index])
            least = min(least, margin)
            if least < LEAST_MARGIN:
                return None, least
            answers.append({"prompt": index, **answer})
        runs.append({"session_len": session_len, "prompts": answers})
    return runs, least


@torch.no_grad()
def make(name, prompts):
    for seed in range(20):
        tiny_checkpoint.SEEDS[name] = seed
        runs, least = try_seed(name, prompts)
        print(f"{name}: seed {seed}, least margin {least:.1e} of the largest logit", flush=True)
        if runs is not None:
            return {"runs": runs, "seed": seed, "by": BY_HAND if name in remote_models.REMOTE else BY_TRANSFORMERS}
    sys.exit(f"{name}: no seed keeps the two best logits {LEAST_MARGIN} apart")


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    prompts = tiny_checkpoint.prompts()
    golden = json.loads(GOLDEN.read_text()) if sys.argv[1:] and GOLDEN.exists() else {"prompts": prompts, "models": {}}
    for name in sys.argv[1:] or tiny_models.MODELS:
        golden["models"][name] = make(name, prompts)
        lines = [f"{json.dumps(name)}: {json.dumps(model)}" for name, model in sorted(golden["models"].items())]
        GOLDEN.write_text(f'{{"prompts": {json.dumps(prompts)},\n"models": {{\n' + ",\n".join(lines) + "\n}}\n")


if __name__ == "__main__":
    main()
