#!/usr/bin/env python3
"""What `lanner.pipeline` costs over the native program: the same requests through both, in turns.

    PYTHONPATH=build/python .venv/bin/python bench/python_overhead.py MODEL [--program build/lanner] [--requests 64]

Prompts are texts without template; the program gets as many random tokens. Both generate the same number of tokens,
whatever the model would end with. Prints seconds of each round, and the ratio of the medians.
"""

import argparse
import json
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

from lanner import GenerationConfig, TurbomindEngineConfig, pipeline

WORDS = "the of and a in to was is for on as with by he at from his an were are which this also be had or has first".split()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--program", default="build/lanner")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()

    rng = random.Random(0)
    prompts = [" ".join(rng.choices(WORDS, k=rng.randint(16, 96))) for _ in range(asked.requests)]
    config = TurbomindEngineConfig(session_len=512, max_batch_size=64, enable_prefix_caching=False)
    wanted = GenerationConfig(max_new_tokens=asked.new_tokens, ignore_eos=True)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        requests, figures = pathlib.Path(folder, "requests.json"), pathlib.Path(folder, "figures.json")
        for turn in range(asked.rounds):
            with pipeline(asked.model, config) as pipe:
                sizes = [[len(pipe.tokenizer.encode(prompt)), asked.new_tokens] for prompt in prompts]
                pipe(prompts[:4], gen_config=wanted, do_preprocess=False)
                begin = time.perf_counter()
                answers = pipe(prompts, gen_config=wanted, do_preprocess=False)
                ours.append(time.perf_counter() - begin)
                assert all(answer.generate_token_len == asked.new_tokens for answer in answers)
            requests.write_text(json.dumps(sizes))
            command = [asked.program, "benchmark", "throughput", asked.model, "--requests", requests]
            flags = ["--concurrency", str(64), "--session-len", "512", "--json", figures]
            subprocess.run([*command, *flags], check=True, capture_output=True)
            theirs.append(json.loads(figures.read_text())["seconds"])
            print(f"round {turn + 1}: pipeline {ours[-1]:.2f} s, program {theirs[-1]:.2f} s", flush=True)
    tokens = asked.requests * asked.new_tokens
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"median: pipeline {tokens / a:.0f} tok/s, program {tokens / b:.0f} tok/s, ratio {b / a:.3f}")


if __name__ == "__main__":
    main()
