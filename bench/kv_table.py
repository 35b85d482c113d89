#!/usr/bin/env python3
"""What a KV cache in int8 and int4 costs a model, beside Transformers with keys and values rounded by the same formula.

    bench/kv_table.py --lanner build/lanner --model MODEL --folder FOLDER --out OUT [--max-windows 0] [--device cuda]

MODEL is what the program reads, FOLDER the same weights for Transformers (for the default model's GGUF file:
tests/model/make_model_folder.py). Ours is `lanner eval perplexity --quant-policy` on the CPU; Transformers' figures, in fp32, are
made by tests/eval/make_kv_golden.py, on --device. Both take windows of 1,024 tokens of WikiText-2's test split. OUT gets kv.json and
kv.md: both perplexities, how far ours is from Transformers', and the rise over the cache of 16 bits.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
POLICIES = (0, 8, 4)
NAMES = {0: "16 bits", 8: "int8", 4: "int4"}


def start_transformers(arguments):
    """Beside ours: a GPU has nothing else to do."""
    report = arguments.out / "kv-transformers.json"
    command = [sys.executable, HERE.parent / "tests" / "eval" / "make_kv_golden.py", "--out", report, "--device", arguments.device,
               "--windows", arguments.max_windows, "--bits", *POLICIES]
    with (arguments.out / "kv-transformers.log").open("w", encoding="utf-8") as log:
        return subprocess.Popen(list(map(str, command)), env={**os.environ, "LANNER_TEST_MODEL_DIR": str(arguments.folder)}, stderr=log)


def read_transformers(arguments, process):
    """{bits: perplexity}"""
    if process.wait() != 0:
        raise SystemExit(f"tests/eval/make_kv_golden.py failed: see {arguments.out / 'kv-transformers.log'}")
    runs = json.loads((arguments.out / "kv-transformers.json").read_text(encoding="utf-8"))["runs"]
    return {run["bits"]: run["perplexity"] for run in runs}


def measure_ours(arguments, policy):
    report = arguments.out / f"kv-{policy}.json"
    command = [arguments.lanner, "eval", "perplexity", arguments.model, "--device", "cpu", "--dtype", arguments.dtype, "--quant-policy", policy,
               "--seqlen", 1024, "--max-windows", arguments.max_windows, "--json", report]
    command += ["--threads", arguments.threads] if arguments.threads else []
    with (arguments.out / f"kv-{policy}.log").open("w", encoding="utf-8") as log:
        subprocess.run(list(map(str, command)), stdout=log, stderr=log, check=True,
                       env={**os.environ, "LANNER_DATA_DIR": str(arguments.data.resolve())})
    return json.loads(report.read_text(encoding="utf-8"))


def write(arguments, reports, transformers):
    ours = {policy: report["perplexity"] for policy, report in reports.items()}
    rows = []
    for policy in ours:
        row = {"cache": NAMES[policy], "perplexity": ours[policy], "rise": ours[policy] / ours[0] - 1}
        if policy in transformers:
            row |= {"transformers": transformers[policy], "beside_transformers": ours[policy] / transformers[policy] - 1,
                    "transformers_rise": transformers[policy] / transformers[0] - 1}
        rows.append(row)
    head = next(iter(reports.values()))
    document = {"kind": "kv", "model": head.get("model"), "lanner": head.get("lanner"), "machine": head.get("machine"), "dtype": arguments.dtype,
                "seqlen": 1024, "windows": head["windows"], "rows": rows}
    (arguments.out / "kv.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    lines = [f"{head['windows']} windows of 1,024 tokens\n",
             "| cache | perplexity | rise over 16 bits | Transformers | rise | ours beside it |", "|---|---|---|---|---|---|"]
    for row in rows:
        others = (f"{row['transformers']:.4f} | {100 * row['transformers_rise']:+.3f} % | {100 * row['beside_transformers']:+.3f} %"
                  if "transformers" in row else " | | ")
        lines.append(f"| {row['cache']} | {row['perplexity']:.4f} | {100 * row['rise']:+.3f} % | {others} |")
    (arguments.out / "kv.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lanner", type=pathlib.Path, required=True, help="the program")
    parser.add_argument("--model", required=True)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, default=HERE.parent / "data")
    parser.add_argument("--max-windows", type=int, default=0, help="0: the whole text")
    parser.add_argument("--device", default="cpu", help="of Transformers")
    parser.add_argument("--dtype", default="auto", help="of ours")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--no-transformers", action="store_true")
    arguments = parser.parse_args()
    arguments.lanner = arguments.lanner.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    process = None if arguments.no_transformers else start_transformers(arguments)
    reports = {}
    try:
        for policy in POLICIES:
            reports[policy] = measure_ours(arguments, policy)
            write(arguments, reports, {})
        if process is not None:
            write(arguments, reports, read_transformers(arguments, process))
    finally:
        if process is not None and process.poll() is None:
            process.kill()
    print((arguments.out / "kv.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
