#!/usr/bin/env python3
"""How far each body of CPU kernels is from fp32, on a slice of WikiText-2: a table, and the figures as JSON.

    scripts/quality_table.py build/lanner MODEL [--windows 8] [--seqlen 512] [--isas generic avx2] [--json FILE]

For each instruction set that this processor has, `lanner eval compare` compares the default arithmetic with fp32, both
computed by that set's kernels, and then --deterministic's. Ends with 1 where a figure misses its bar. Needs Python 3.8 and
nothing else. On two cores a set takes two minutes, and generic a quarter of an hour.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ISAS = ("generic", "avx2", "avx512", "amx")  # as LANNER_CPU_ISA takes them, each with all that is before it
MOST_KL = 0.004
LEAST_AGREEMENT = 0.96
MOST_PERPLEXITY = 0.006  # by which it may differ, as a share
FIGURES = ("mean_kl", "percentile_99_kl", "top1_agreement", "reference_perplexity", "test_perplexity", "perplexity_ratio")


def compare(arguments, isa, deterministic):
    """The report of one comparison."""
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.json"
        command = [arguments.lanner, "eval", "compare", arguments.model, "--device", "cpu", "--seqlen", str(arguments.seqlen),
                   "--max-windows", str(arguments.windows), "--json", str(report)]
        if deterministic:
            command.append("--deterministic")
        subprocess.run(command, env={**os.environ, "LANNER_CPU_ISA": isa}, stdout=subprocess.DEVNULL, check=True)
        return json.loads(report.read_text(encoding="utf-8"))


def misses(figures):
    """What of the figures is not as good as it has to be."""
    found = []
    if not figures["mean_kl"] <= MOST_KL:
        found.append(f"mean KL over {MOST_KL}")
    if not figures["top1_agreement"] >= LEAST_AGREEMENT:
        found.append(f"top-1 agreement under {100 * LEAST_AGREEMENT:.0f} %")
    if not abs(figures["perplexity_ratio"] - 1) <= MOST_PERPLEXITY:
        found.append(f"perplexity more than {100 * MOST_PERPLEXITY:.1f} % away")
    return found


def measure(arguments, isa, deterministic):
    report = compare(arguments, isa, deterministic)
    figures = {"isa": report["machine"]["isa"], "deterministic": deterministic, **{name: report[name] for name in FIGURES}}
    figures["predictions"] = report["predictions"]
    figures["misses"] = misses(figures)
    return report, figures


def name_of(figures):
    return figures["isa"] + (" --deterministic" if figures["deterministic"] else "")


def row(figures):
    return (f"| {name_of(figures)} | {figures['mean_kl']:.1e} | {figures['percentile_99_kl']:.1e} | "
            f"{100 * figures['top1_agreement']:.2f} % | {figures['test_perplexity']:.4f} ({figures['reference_perplexity']:.4f}) | "
            f"{100 * (figures['perplexity_ratio'] - 1):+.4f} % |")


def write_report(path, head, table):
    kept = {name: head[name] for name in ("date", "lanner", "model", "architecture", "dataset", "windows")}
    report = {"kind": "quality", **kept, "cpu": head["machine"]["cpu"], "threads": head["machine"]["threads"],
              "bars": {"mean_kl": MOST_KL, "top1_agreement": LEAST_AGREEMENT, "perplexity_difference": MOST_PERPLEXITY},
              "bodies": table}
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lanner", help="the program")
    parser.add_argument("model", help="a folder, a GGUF file, or ORG/NAME")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--seqlen", type=int, default=512)
    parser.add_argument("--isas", nargs="+", choices=ISAS, help="default: all that this processor has")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures into this file")
    arguments = parser.parse_args()
    facts = json.loads(subprocess.run([arguments.lanner, "check_env", "--json"], capture_output=True, check=True).stdout)
    had = ISAS[:ISAS.index(facts["instructions available"]) + 1]
    lacking = [isa for isa in arguments.isas or () if isa not in had]
    if lacking:
        parser.error(f"this processor does not have {', '.join(lacking)}")
    print("| body | mean KL | 99th percentile | same best token | perplexity (fp32) | |\n|---|---|---|---|---|---|")
    table = []
    for isa, deterministic in [(isa, mode) for isa in arguments.isas or had for mode in (False, True)]:
        head, figures = measure(arguments, isa, deterministic)
        table.append(figures)
        print(row(figures), flush=True)
        if arguments.json:
            write_report(arguments.json, head, table)  # whoever does not wait for the last one keeps the others
    for figures in table:
        for miss in figures["misses"]:
            print(f"{name_of(figures)}: {miss}", file=sys.stderr)
    return 1 if any(figures["misses"] for figures in table) else 0


if __name__ == "__main__":
    sys.exit(main())
