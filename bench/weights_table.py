#!/usr/bin/env python3
"""What weights of 4 bits cost a model, by method and group size: perplexities on WikiText-2's test split, as JSON and a table.

    bench/weights_table.py --lanner build/lanner --model FOLDER --out OUT [--data data] [--groups 64 32] [--max-windows 0]

FOLDER is a Hugging Face folder of a Llama. Measured are, each by `lanner eval perplexity` on the same windows, in fp32 unless --dtype
says otherwise:

- the model as it is;
- `lite auto_awq` with --calib-samples 0 (plain rounding), with its defaults, and with --search-scale; `lite auto_gptq`;
- the defaults' formulas run by bench/reference_awq.py, which shares no code with `lite`;
- Q4_0 as llama.cpp rounds: gguf.quants, the rounding in Python that its authors publish, of the layers' matrices.

Everywhere the layers' matrices alone are rounded; embedding, head and norms stay whole (in fp16, or fp32 where Python wrote the
folder). OUT gets table.json and table.md, rewritten after each measurement, and a log for each program; the folders are made
in OUT/work and removed when they have been measured, unless --keep. What is independent runs side by side, each with --threads.

Columns: rise is of perplexity over the model as it is, with the standard error of its mean over the windows; "of plain's" is
that rise as a share of plain rounding's with the same groups; "beside the formulas" is perplexity against the run of
bench/reference_awq.py. Needs what that script needs, and gguf for Q4_0.
"""

import argparse
import concurrent.futures
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
from model_folders import folder_argument, layer_matrices, read_config, read_tensors, write_folder

HERE = pathlib.Path(__file__).resolve().parent
FULL, PLAIN, DEFAULT, SEARCHED, GPTQ, FORMULAS, Q4_0 = (
    "as it is", "plain rounding", "auto_awq", "auto_awq --search-scale", "auto_gptq", "the formulas in Python", "Q4_0")
ORDER = (FULL, PLAIN, FORMULAS, DEFAULT, SEARCHED, GPTQ, Q4_0)
SLOWEST_FIRST = (SEARCHED, GPTQ, DEFAULT, FORMULAS, Q4_0, PLAIN, FULL)


class Failed(Exception):
    pass


def run_program(command, log, environment):
    """Its seconds. Raises Failed with the last line that it said."""
    begin = time.monotonic()
    with log.open("a", encoding="utf-8") as output:
        output.write(f"$ {' '.join(map(str, command))}\n")
        output.flush()
        done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                              env=environment, check=False)
    if done.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise Failed(f"{log.name}: exit code {done.returncode}: {lines[-1] if lines else ''}")
    return time.monotonic() - begin


def write_q4_0(source, destination):
    from gguf import GGMLQuantizationType, quants

    tensors = read_tensors(source)
    for name in layer_matrices(tensors):
        codes = quants.quantize(np.ascontiguousarray(tensors[name]), GGMLQuantizationType.Q4_0)
        tensors[name] = quants.dequantize(codes, GGMLQuantizationType.Q4_0).reshape(tensors[name].shape)
    write_folder(source, destination, tensors)


class Table:
    """Makes the folders, measures them, and keeps what was measured on the disk."""

    def __init__(self, arguments):
        self.a = arguments
        self.lock = threading.Lock()
        self.rows = []
        self.failures = []
        self.head = {}
        self.work = arguments.out / "work"
        self.work.mkdir(parents=True, exist_ok=True)
        self.environment = {**os.environ, "LANNER_DATA_DIR": str(arguments.data.resolve())}
        self.environment |= {name: str(arguments.threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        self.seqlen = min(arguments.seqlen, read_config(arguments.model)["max_position_embeddings"])

    def make(self, variant, group, folder, log):
        """Seconds that it took."""
        a = self.a
        calibration = ["--calib-samples", a.calib_samples, "--calib-seqlen", a.calib_seqlen]
        lite = ["--w-group-size", group, "--work-dir", folder, "--no-report", "--threads", a.threads]
        commands = {
            PLAIN: [a.lanner, "lite", "auto_awq", a.model, "--calib-samples", 0, *lite],
            DEFAULT: [a.lanner, "lite", "auto_awq", a.model, *calibration, *lite],
            SEARCHED: [a.lanner, "lite", "auto_awq", a.model, *calibration, "--search-scale", *lite],
            GPTQ: [a.lanner, "lite", "auto_gptq", a.model, *calibration, *lite],
            FORMULAS: [sys.executable, HERE / "reference_awq.py", a.model, a.data / "wikitext2" / "valid.txt", folder,
                       "--group-size", group, "--samples", a.calib_samples, "--seqlen", min(a.calib_seqlen, self.seqlen),
                       "--threads", a.threads, *(["--device", a.reference_device] if a.reference_device else [])],
        }
        if variant == Q4_0:
            begin = time.monotonic()
            write_q4_0(a.model, folder)
            return time.monotonic() - begin
        return run_program(commands[variant], log, self.environment)

    def perplexity(self, folder, log):
        report = log.with_suffix(".eval.json")
        seconds = run_program([self.a.eval_lanner, "eval", "perplexity", folder, "--dtype", self.a.dtype, "--device", self.a.device,
                               "--threads", self.a.threads, "--seqlen", self.seqlen, "--max-windows", self.a.max_windows,
                               "--json", report], log, self.environment)
        return json.loads(report.read_text(encoding="utf-8")), seconds

    def measure(self, variant, group):
        name = f"{variant} {group or ''}".strip().replace(" ", "-").replace("--", "-")
        log, folder = self.a.out / f"{name}.log", self.a.model
        made = 0.0
        try:
            if variant != FULL:
                folder = self.work / name
                shutil.rmtree(folder, ignore_errors=True)
                made = self.make(variant, group, folder, log)
            report, measured = self.perplexity(folder, log)
            row = {"variant": variant, "group": group, "perplexity": report["perplexity"], "mean_nll": report["mean_nll"],
                   "windows": report["windows"], "window_nll": report["window_nll"], "seconds_to_make": round(made, 1),
                   "seconds_to_measure": round(measured, 1)}
            self.keep(row, report)
        except (Failed, OSError, ImportError, KeyError, ValueError) as error:
            with self.lock:
                self.failures.append(f"{name}: {error}")
                print(f"{name}: {error}", file=sys.stderr, flush=True)
        finally:
            if variant != FULL and not self.a.keep:
                shutil.rmtree(folder, ignore_errors=True)

    def keep(self, row, report):
        with self.lock:
            self.rows.append(row)
            self.rows.sort(key=lambda one: (-(one["group"] or 1000), ORDER.index(one["variant"])))
            print(f"{row['variant']} {row['group'] or ''}: {row['perplexity']:.4f}", file=sys.stderr, flush=True)
            add_comparisons(self.rows)
            self.head = {"kind": "weights", "note": self.a.note, "model": str(self.a.model.name), "parameters": parameters(self.a.model),
                        "dataset": "wikitext2 test", "seqlen": self.seqlen, "windows": row["windows"], "dtype": self.a.dtype,
                        "device": self.a.device, "calib_samples": self.a.calib_samples, "calib_seqlen": self.a.calib_seqlen,
                        "lanner": report.get("lanner"), "machine": report.get("machine")}
            self.write()

    def write(self):
        document = {**self.head, "rows": self.rows, "failures": self.failures}
        write_text(self.a.out / "table.json", json.dumps(document, indent=1) + "\n")
        write_text(self.a.out / "table.md", markdown(document))


def write_text(path, text):
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.rename(path)


def parameters(folder):
    """Numbers of the model, by the headers of its files."""
    count = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        count += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return count


def rise_error(row, full):
    """The standard error of the mean difference of the windows' losses, which is that of the rise where both are small."""
    differences = np.subtract(row["window_nll"], full["window_nll"])
    return float(differences.std(ddof=1) / math.sqrt(len(differences))) if len(differences) > 1 else None


def add_comparisons(rows):
    by_kind = {(row["variant"], row["group"]): row for row in rows}
    full = by_kind.get((FULL, None))
    if full is None:
        return
    for row in rows:
        row["rise"] = row["perplexity"] / full["perplexity"] - 1
        row["rise_standard_error"] = rise_error(row, full)
    for row in rows:
        plain, formulas = by_kind.get((PLAIN, row["group"])), by_kind.get((FORMULAS, row["group"]))
        if plain is not None and plain["rise"] != 0:
            row["of_plains_rise"] = row["rise"] / plain["rise"]
        if formulas is not None and row["variant"] == DEFAULT:
            row["perplexity_beside_formulas"] = row["perplexity"] / formulas["perplexity"] - 1
            row["rise_beside_formulas"] = row["rise"] / formulas["rise"] - 1 if formulas["rise"] != 0 else None


def markdown(document):
    lines = [f"{document['model']}, {document['windows']} windows of {document['seqlen']} tokens"
             + (f". {document['note']}" if document["note"] else "") + "\n",
             "| groups of | weights | perplexity | rise | of plain's | beside the formulas |", "|---|---|---|---|---|---|"]
    for row in document["rows"]:
        rise = "" if "rise" not in row or row["variant"] == FULL else f"{100 * row['rise']:+.3f} %"
        if rise and row["rise_standard_error"] is not None:
            rise += f" ± {100 * row['rise_standard_error']:.3f}"
        share = f"{row['of_plains_rise']:.3f}" if "of_plains_rise" in row else ""
        beside = f"{100 * row['perplexity_beside_formulas']:+.3f} %" if "perplexity_beside_formulas" in row else ""
        lines.append(f"| {row['group'] or ''} | {row['variant']} | {row['perplexity']:.4f} | {rise} | {share} | {beside} |")
    return "\n".join([*lines, *[f"\nfailed: {failure}" for failure in document["failures"]]]) + "\n"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lanner", type=pathlib.Path, required=True, help="the program")
    parser.add_argument("--eval-lanner", type=pathlib.Path, help="another build of it that measures, such as one with CUDA")
    parser.add_argument("--model", type=folder_argument, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, default=HERE.parent / "data", help="has wikitext2/valid.txt and test.txt")
    parser.add_argument("--groups", type=int, nargs="+", default=[64, 32])
    parser.add_argument("--calib-samples", type=int, default=128)
    parser.add_argument("--calib-seqlen", type=int, default=1024)
    parser.add_argument("--seqlen", type=int, default=1024)
    parser.add_argument("--max-windows", type=int, default=0, help="0: the whole text")
    parser.add_argument("--variants", nargs="+", choices=ORDER, default=ORDER)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="of lanner eval; lite runs on the CPU")
    parser.add_argument("--dtype", default="float32", help="of lanner eval")
    parser.add_argument("--reference-device", help="of bench/reference_awq.py; default: a GPU where torch finds one")
    parser.add_argument("--threads", type=int, default=2, help="of each program")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--keep", action="store_true", help="the folders")
    parser.add_argument("--note", default="", help="about the model, for the table")
    arguments = parser.parse_args()
    arguments.lanner = arguments.lanner.resolve()
    arguments.eval_lanner = (arguments.eval_lanner or arguments.lanner).resolve()
    return arguments


def main():
    arguments = parse_arguments()
    table = Table(arguments)
    wanted = {*arguments.variants, FULL}
    runs = [(variant, group) for variant in SLOWEST_FIRST if variant in wanted and variant not in (FULL, Q4_0)
            for group in sorted(arguments.groups)]
    runs += [(Q4_0, 32)] if Q4_0 in wanted else []
    with concurrent.futures.ThreadPoolExecutor(max(1, arguments.cores // arguments.threads)) as pool:
        list(pool.map(lambda run: table.measure(*run), [*runs[:1], (FULL, None), *runs[1:]]))
    if table.rows:
        table.write()
        print((arguments.out / "table.md").read_text(encoding="utf-8"))
    if not arguments.keep:
        shutil.rmtree(table.work, ignore_errors=True)
    return 1 if table.failures else 0


if __name__ == "__main__":
    sys.exit(main())
