#!/usr/bin/env python3
"""Trains a small Llama in full precision on WikiText-2's valid text, to judge quantizers on weights that nothing has rounded.

    bench/train_tiny.py OUT [--text data/wikitext2/valid.txt] [--test data/wikitext2/test.txt] [--device cuda]

OUT becomes a Hugging Face folder: fp32 safetensors, config.json, and a tokenizer of byte-level BPE that is trained on the same text.
The last twentieth of the text is held out: training ends with the weights of the check that predicted it best, so that --steps is a
limit and not the amount. The text is small (about a megabyte) and the model sees it many times. What keeps it from being learned by
heart: each step cuts the text into tokens anew, leaving out some merges at random (BPE-dropout, arXiv 1910.13267), weight decay, and
an end while the learning rate is still high: it falls as for --schedule-steps. Weights are from a seed, and steps, not the clock, are
the default's limit: the same machine and versions give the same bytes. Other machines add in another order, and --minutes, for those
that are slow, ends where the clock says; the weights are then others.

Gains of the layers' norms begin unlike each other (--gain-spread): in large models channels differ as much, and without it there is
little that AWQ's scales could win.

The defaults reached, on an H200 in three minutes: 7,344,384 parameters, perplexity 75.42 on what was held out and 70.22 on the test
text; plain rounding adds 1.82 % in groups of 64 and 0.75 % in groups of 32. With --gain-spread 0 they are 58.52, 55.15, 0.396 % and
0.209 %; wider (15 million parameters) and deeper (12 layers) models of that kind reached 48.2 to 50.7, and plain rounding added 0.18 to
0.37 %. With 0.5 and 1.0 plain rounding added 0.40 and 0.85 to 0.96 % in groups of 64.

OUT/training.json says what was done, the held-out and the test perplexity (the test text as one piece in windows of the model's
context, as `lanner eval perplexity` cuts it), and what plain rounding to 4 bits costs, computed here by torch.

Needs torch, tokenizers, safetensors, numpy.
"""

import argparse
import copy
import json
import math
import os
import pathlib
import random
import sys
import time

import numpy as np
import tokenizers
import torch
from model_folders import made_beside, new_folder_argument
from safetensors.numpy import save_file
from torch.nn import functional

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
HELD_OUT = 0.05  # of the text, at its end
ROUNDED_IN = (64, 32)  # columns of a group


class Layer(torch.nn.Module):
    """By the names of Hugging Face's."""

    def __init__(self, config):
        super().__init__()
        hidden, mlp = config["hidden_size"], config["intermediate_size"]
        self.heads = config["num_attention_heads"]
        self.dropout = config["dropout"]
        self.eps = config["rms_norm_eps"]

        def linear(inputs, outputs):
            return torch.nn.Linear(inputs, outputs, bias=False)

        self.input_layernorm = torch.nn.RMSNorm(hidden, eps=self.eps)
        self.post_attention_layernorm = torch.nn.RMSNorm(hidden, eps=self.eps)
        self.self_attn = torch.nn.ModuleDict({f"{name}_proj": linear(hidden, hidden) for name in "qkvo"})
        self.mlp = torch.nn.ModuleDict({"gate_proj": linear(hidden, mlp), "up_proj": linear(hidden, mlp),
                                        "down_proj": linear(mlp, hidden)})

    def drop(self, x):
        return functional.dropout(x, self.dropout, self.training)

    def forward(self, x, cos, sin):
        batch, length, hidden = x.shape

        def heads(values):
            return values.view(batch, length, self.heads, -1).transpose(1, 2)

        def rotate(values):
            a, b = values.chunk(2, dim=-1)
            return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)

        a = self.input_layernorm(x)
        q, k, v = (heads(self.self_attn[f"{name}_proj"](a)) for name in "qkv")
        q, k = rotate(q), rotate(k)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, length, hidden)
        x = x + self.drop(self.self_attn["o_proj"](attended))
        m = self.post_attention_layernorm(x)
        gated = functional.silu(self.mlp["gate_proj"](m)) * self.mlp["up_proj"](m)
        return x + self.drop(self.mlp["down_proj"](gated))


class Llama(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed_tokens = torch.nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.layers = torch.nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))
        self.norm = torch.nn.RMSNorm(config["hidden_size"], eps=config["rms_norm_eps"])
        for layer in self.layers:
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                torch.nn.init.normal_(norm.weight, std=config["gain_spread"])
                norm.weight.data.exp_()
        into_stream = 0.02 / math.sqrt(2 * config["num_hidden_layers"])
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=into_stream if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02)

    def forward(self, tokens):
        length, half = tokens.shape[1], self.config["head_dim"] // 2
        steps = torch.arange(half, device=tokens.device, dtype=torch.float32)
        angles = torch.arange(length, device=tokens.device)[:, None] * self.config["rope_theta"] ** (-steps / half)
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, angles.cos(), angles.sin())
        return functional.linear(self.norm(x), self.embed_tokens.weight)

    def loss(self, tokens):
        """Mean negative log-likelihood of tokens 1.. of each row, in nats."""
        logits = self(tokens)[:, :-1]
        return functional.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), tokens[:, 1:].reshape(-1))


def train_tokenizer(text, vocabulary):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=["<s>", "</s>"], show_progress=False,
                                             initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer


class Words:
    """The text as words, each of which has been cut into tokens in several ways."""

    WAYS = 16

    def __init__(self, tokenizer, text, dropout):
        """`dropout`: the share of merges that are left out at random."""
        pieces = [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        kinds = sorted(set(pieces))
        place = {kind: index for index, kind in enumerate(kinds)}
        self.sequence = [place[piece] for piece in pieces]
        state = json.loads(tokenizer.to_str())
        vocabulary = state["model"]["vocab"]
        rank = {tuple(merge if isinstance(merge, list) else merge.split(" ")): index
                for index, merge in enumerate(state["model"]["merges"])}
        chance = random.Random(1)
        self.ways = [[cut_word(kind, vocabulary, rank, dropout if way else 0, chance) for way in range(self.WAYS if dropout else 1)]
                     for kind in kinds]

    def tokens(self, chance):
        """All of the text, each word in a way by chance."""
        ids = []
        for word in self.sequence:
            ways = self.ways[word]
            ids += ways[int(chance.random() * len(ways))]
        return ids


def cut_word(word, vocabulary, rank, dropout, chance):
    parts = list(word)
    while len(parts) > 1:
        found = [(rank[pair], place) for place, pair in enumerate(zip(parts, parts[1:]))
                 if pair in rank and (not dropout or chance.random() >= dropout)]
        if not found:
            break
        _, place = min(found)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return [vocabulary[part] for part in parts]


def windows_of(ids, seqlen, device):
    count = len(ids) // seqlen
    return torch.tensor(ids[: count * seqlen], device=device).view(count, seqlen)


@torch.no_grad()
def measured_loss(model, windows, batch):
    model.eval()
    total = sum(model.loss(windows[first : first + batch]).item() * len(windows[first : first + batch])
                for first in range(0, len(windows), batch))
    model.train()
    return total / len(windows)


def rounded_plainly(matrix, group):
    grouped = matrix.reshape(matrix.shape[0], -1, group)
    smallest, largest = grouped.amin(2, keepdim=True).clamp(max=0), grouped.amax(2, keepdim=True).clamp(min=0)
    scale = ((largest - smallest).clamp(min=1e-5) / 15).half().float()
    zero = (-(smallest / scale).round()).clamp(0, 15)
    return ((((grouped / scale).round() + zero).clamp(0, 15) - zero) * scale).reshape(matrix.shape)


def loss_when_rounded(model, windows, batch, group):
    """With the layers' matrices rounded plainly."""
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in rounded.named_parameters():
            if name.startswith("layers.") and parameter.ndim == 2:
                parameter.copy_(rounded_plainly(parameter, group))
    return measured_loss(rounded, windows, batch)


def batches(words, seqlen, batch, device, chance):
    """Endless: the text in windows that begin anywhere, in an order by chance, cut into tokens anew each time."""
    while True:
        ids = words.tokens(chance)
        shift = chance.randrange(seqlen)
        windows = windows_of(ids[shift:], seqlen, device)
        order = list(range(len(windows)))
        chance.shuffle(order)
        for first in range(0, len(order) - batch + 1, batch):
            yield windows[order[first : first + batch]]


def learning_rate(step, arguments):
    """Rises, then falls by a cosine to a twentieth."""
    warm = min(200, arguments.schedule_steps // 10)
    if step < warm:
        return arguments.learning_rate * (step + 1) / warm
    share = min(1.0, (step - warm) / max(1, arguments.schedule_steps - warm))
    return arguments.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share)))


def train(model, words, held_out, arguments):
    """The history of checks; leaves the model with the weights of the best one."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": arguments.weight_decay}, {"params": others, "weight_decay": 0.0}],
                                  betas=(0.9, 0.95))
    source = batches(words, arguments.seqlen, arguments.batch, arguments.device, random.Random(arguments.seed))
    begin, best, kept, history = time.monotonic(), math.inf, None, []
    for step in range(arguments.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, arguments)
        loss = model.loss(next(source))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        minutes = (time.monotonic() - begin) / 60
        over = bool(arguments.minutes) and minutes > arguments.minutes
        if (step + 1) % arguments.check_every and step + 1 != arguments.steps and not over:
            continue
        check = {"step": step + 1, "training_loss": loss.item(), "held_out_loss": measured_loss(model, held_out, arguments.batch)}
        history.append({name: round(value, 5) for name, value in check.items()})
        print(f"step {step + 1}: training {check['training_loss']:.4f}, held out {check['held_out_loss']:.4f}, {minutes:.1f} min",
              file=sys.stderr, flush=True)
        if check["held_out_loss"] < best:
            best, kept = check["held_out_loss"], copy.deepcopy(model.state_dict())
        if over:
            break
    model.load_state_dict(kept)
    return history


def write_folder(out, model, tokenizer, report):
    with made_beside(out) as part:
        save_file({f"model.{name}": np.ascontiguousarray(value.cpu().numpy()) for name, value in model.state_dict().items()},
                  part / "model.safetensors", metadata={"format": "pt"})
        config = {name: value for name, value in model.config.items() if name not in ("dropout", "gain_spread")}
        (part / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        ids = {"bos_token_id": 0, "eos_token_id": 1}
        (part / "generation_config.json").write_text(json.dumps(ids) + "\n", encoding="utf-8")
        tokenizer.save(str(part / "tokenizer.json"))
        (part / "tokenizer_config.json").write_text(json.dumps({
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "clean_up_tokenization_spaces": False,
            "model_max_length": model.config["max_position_embeddings"]}, indent=1) + "\n", encoding="utf-8")
        (part / "training.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=new_folder_argument)
    parser.add_argument("--text", type=pathlib.Path, default=REPOSITORY / "data/wikitext2/valid.txt")
    parser.add_argument("--test", type=pathlib.Path, default=REPOSITORY / "data/wikitext2/test.txt")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=0, help="end the training after so many; 0: no limit")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--schedule-steps", type=int, default=2400, help="in which the learning rate would fall to its least")
    parser.add_argument("--check-every", type=int, default=50)
    parser.add_argument("--batch", type=int, default=16, help="windows of a step")
    parser.add_argument("--seqlen", type=int, default=1024, help="tokens of a window")
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--mlp", type=int, default=768)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--weight-decay", type=float, default=1.0)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--gain-spread", type=float, default=1.5,
                        help="standard deviation of the logarithm of the norms' gains before training")
    parser.add_argument("--bpe-dropout", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(arguments.seed)
    torch.backends.cuda.matmul.allow_tf32 = True  # in training; what is measured here, too
    text = arguments.text.read_text(encoding="utf-8")
    border = text.rindex("\n", 0, int(len(text) * (1 - HELD_OUT))) + 1
    tokenizer = train_tokenizer(text[:border], arguments.vocabulary)
    held_out = windows_of(tokenizer.encode(text[border:]).ids, arguments.seqlen, arguments.device)
    test = windows_of(tokenizer.encode(arguments.test.read_text(encoding="utf-8")).ids, arguments.seqlen, arguments.device)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": arguments.hidden, "intermediate_size": arguments.mlp, "num_hidden_layers": arguments.layers,
        "num_attention_heads": arguments.heads, "num_key_value_heads": arguments.heads,
        "head_dim": arguments.hidden // arguments.heads, "max_position_embeddings": arguments.seqlen, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True,
        "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float32", "dropout": arguments.dropout,
        "gain_spread": arguments.gain_spread}
    model = Llama(config).to(arguments.device)
    words = Words(tokenizer, text[:border], arguments.bpe_dropout)
    count = sum(p.numel() for p in model.parameters())
    print(f"{count:,} parameters; {len(words.tokens(random.Random(0))):,} tokens to train with, {held_out.numel():,} held out",
          file=sys.stderr, flush=True)
    history = train(model, words, held_out, arguments)
    torch.backends.cuda.matmul.allow_tf32 = False
    best = min(history, key=lambda check: check["held_out_loss"])
    test_loss = measured_loss(model, test, arguments.batch)
    rises = {group: math.exp(loss_when_rounded(model, test, arguments.batch, group) - test_loss) - 1 for group in ROUNDED_IN}
    report = {"kind": "training", "parameters": count, "tokens": len(words.tokens(random.Random(0))),
              "settings": {name: str(value) if isinstance(value, pathlib.Path) else value for name, value in vars(arguments).items() if name not in ("out", "text", "test")},
              "torch": torch.__version__, "best_step": best["step"], "training_loss": best["training_loss"],
              "held_out_perplexity": math.exp(best["held_out_loss"]),
              "test_perplexity": math.exp(test_loss), "test_windows": len(test),
              "plain_rounding_rise": {str(group): rise for group, rise in rises.items()},
              "history": history}
    write_folder(arguments.out, model, tokenizer, report)
    costs = ", ".join(f"{100 * rise:+.3f} % in groups of {group}" for group, rise in rises.items())
    print(f"{arguments.out}: held-out perplexity {report['held_out_perplexity']:.2f}, test {report['test_perplexity']:.2f}; "
          f"plain rounding costs {costs}", file=sys.stderr)


if __name__ == "__main__":
    main()
