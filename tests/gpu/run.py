#!/usr/bin/env python3
"""Runs the CUDA tests and measurements of a GPU bundle (scripts/make_gpu_bundle.sh) and writes what came of them.

    lanner-gpu/run.py --out FOLDER [--model FILE.gguf] [--requests FILE] [--only NAME...] [--skip NAME...] [--seconds 300]

FOLDER gets results.json, one .log a step, and the benchmarks' own .json. Ends with 1 when a step failed. Steps that need the
model run only with --model. Needs Python 3.8; for the test models that are made here also numpy and safetensors.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
SHAPE = HERE / "shapes" / "internlm2_1_8b"
SHAPE_OF_4_BITS = HERE / "shapes" / "internlm2_1_8b_awq"
SANITIZERS = ("compute-sanitizer", "/usr/local/cuda/bin/compute-sanitizer")
SANITIZER_OPTIONS = {
    "memcheck": ["--report-api-errors", "no"],  # one test asks for more memory than there is
    # cuBLAS's kernels for Hopper wait for their copies in a way that racecheck takes for a race.
    "racecheck": ["--kernel-name-exclude", "kernel_substring=nvjet"],
}
SANITIZED_AT_ONCE = 12
TINY_AT_ONCE = 6
TINY_DIFFERENCE = 1e-4  # of the largest logit, in fp32: as tests/model/test_tiny_models.py
NOT_DETERMINISTIC = ("-Independence*:LinearAdd.PartsOfDifferentFormatsAreEachWhatTheyAreAlone:"
                     "Device.RefusesQuantizedShapes*:Device.SaysWhatItIs")
ONLY_CPU = "-Device.RefusesQuantizedShapes*:Device.SaysWhatItIs"
NOT_SANITIZED = f"{NOT_DETERMINISTIC}:Door.*:Reference.*"  # Door's end their process on purpose
OTHER_SCHEDULES = ("-*Determinism*:*HoweverTheyAreComputed:*HiddenStates*:*ShareThePrompt*:*EndsItsRequestAlone:"
                   "*CodesInTheCache.PrefixesAreShared*:*CodesInTheCache.ChoicesReadOnePrompt*")


def test(program, device, *arguments, model=False):
    return {"command": [program, *arguments], "device": device, "model": model}


def benchmark(verb, *arguments, shape=SHAPE):
    return {"command": ["lanner", "benchmark", verb, "--random-weights", str(shape), "--device", "cuda", *arguments], "json": True}


def sanitizer(tool):
    return {"sanitizer": tool}


STEPS = {
    "check_env": {"command": ["lanner", "check_env"]},
    "ops_cuda": test("ops_test", "cuda", f"--gtest_filter={NOT_DETERMINISTIC}"),
    "ops_cuda_deterministic": test("ops_test", "cuda-deterministic", f"--gtest_filter={ONLY_CPU}"),
    "engine_cuda": test("engine_test", "cuda", f"--gtest_filter={OTHER_SCHEDULES}"),
    "engine_cuda_deterministic": test("engine_test", "cuda-deterministic"),
    "device_memory": test("device_memory_test", "cuda"),
    "device_memory_deterministic": test("device_memory_test", "cuda-deterministic"),
    "start_time": {"command": ["start_time.py", "lanner", "WORK/start-time-model"]},
    "tiny_models": {"tiny": "cuda"},
    "tiny_models_deterministic": {"tiny": "cuda-deterministic"},
    "ops_memcheck": sanitizer("memcheck"),
    "ops_racecheck": sanitizer("racecheck"),
    "benchmark_decode": benchmark("generation", "--batch-sizes", "1", "16", "64", "256", "--prompt-tokens", "128", "--output-tokens", "128"),
    "benchmark_prefill": benchmark("generation", "--batch-sizes", "1", "--prompt-tokens", "1024", "4096", "8192", "--output-tokens", "32"),
    "benchmark_w4": benchmark("generation", "--batch-sizes", "1", "2", "4", "8", "16", "64", "256", "--prompt-tokens", "128", "--output-tokens",
                              "128", shape=SHAPE_OF_4_BITS),
    "benchmark_w4_without_copies": benchmark("generation", "--batch-sizes", "1", "16", "--prompt-tokens", "1024", "--output-tokens", "32",
                                             "--w4-prefill-copy", "off", shape=SHAPE_OF_4_BITS),
    "benchmark_deterministic": benchmark("generation", "--batch-sizes", "1", "16", "--prompt-tokens", "128", "--output-tokens",
                                         "64", "--deterministic"),
    "benchmark_throughput": {**benchmark("throughput", "--requests", "REQUESTS", "--concurrency", "1024", "--repetitions", "2"),
                             "requests": True},
    "chat": {"command": ["lanner", "chat", "MODEL", "--device", "cuda", "--greedy"], "model": True,
             "input": "What is the capital of France?\n", "expect": "Paris"},
    "golden_cuda": test("golden_test", "cuda", model=True),
    "golden_cuda_deterministic": test("golden_test", "cuda-deterministic", model=True),
    "determinism_cuda": test("determinism_test", "cuda-deterministic", model=True),
}


def environment(device, arguments):
    env = dict(os.environ)
    env["LD_LIBRARY_PATH"] = f"{HERE}:{env.get('LD_LIBRARY_PATH', '')}"
    env["LANNER_TEST_GOLDENS"] = str(HERE / "golden_smollm2.json")
    if device:
        env["LANNER_TEST_DEVICE"] = device
    if arguments.model:
        env["LANNER_TEST_GGUF"] = arguments.model
    if arguments.model_folder:
        env["LANNER_TEST_MODEL_DIR"] = arguments.model_folder
    return env


def run_program(name, step, arguments):
    """Returns (passed, facts)."""
    files = {"MODEL": arguments.model, "REQUESTS": arguments.requests, "lanner": str(HERE / "lanner")}
    command = [files.get(word, word).replace("WORK", str(arguments.work)) for word in step["command"]]
    command[0] = str(HERE / command[0])
    if name.startswith("golden") and not arguments.model_folder:
        command.append("--gtest_filter=-*Folder*")
    if step.get("json"):
        command += ["--json", str(arguments.out / f"{name}.json")]
    log = arguments.out / f"{name}.log"
    with log.open("w", encoding="utf-8") as output:
        try:
            done = subprocess.run(command, env=environment(step.get("device"), arguments), input=step.get("input", ""),
                                  text=True, stdout=output, stderr=subprocess.STDOUT, timeout=arguments.seconds, check=False)
            status = done.returncode
        except subprocess.TimeoutExpired:
            status = "timeout"
    text = log.read_text(encoding="utf-8", errors="replace")
    failed = [line.split()[3].rstrip(",") for line in text.splitlines() if line.startswith("[  FAILED  ]") and "ms)" in line]
    passed = status == 0 and step.get("expect", "") in text
    findings = [line for line in text.splitlines() if "first difference" in line or "answers identical" in line]
    return passed, {"exit": status, "failed_tests": failed, "findings": findings, "log_tail": text.splitlines()[-6:]}


def run_tiny(name, device, arguments):
    def probe(folder):
        golden = HERE / "python" / "golden_tiny.json"
        done = subprocess.run([str(HERE / "tiny_probe"), str(folder), str(golden), folder.name],
                              env=environment(device, arguments), capture_output=True, text=True, timeout=arguments.seconds,
                              check=False)
        result = json.loads(done.stdout) if done.returncode == 0 else {"error": (done.stderr or str(done.returncode))[-300:]}
        result["passed"] = (done.returncode == 0 and result["same_tokens"] == result["tokens"]
                            and result["largest_difference"] < TINY_DIFFERENCE)
        return folder.name, result

    folders = sorted(made_here(arguments, "tiny", "write_tiny_models.py").iterdir())
    with concurrent.futures.ThreadPoolExecutor(TINY_AT_ONCE) as pool:  # each takes most of its time to start
        results = dict(pool.map(probe, folders))
    (arguments.out / f"{name}.log").write_text(json.dumps(results, indent=1), encoding="utf-8")
    return all(result["passed"] for result in results.values()), {
        "models": len(results), "failed_models": {k: v for k, v in results.items() if not v["passed"]}}


def run_sanitizer(name, tool, arguments):
    """Each test of operations in a process of its own under compute-sanitizer, many at once: most of the time is the host's."""
    program = next((path for path in map(shutil.which, SANITIZERS) if path), None)
    if program is None:
        raise OSError("compute-sanitizer is not installed")
    env = environment("cuda", arguments)
    test_program = str(HERE / "ops_test")
    listed = subprocess.run([test_program, "--gtest_list_tests", f"--gtest_filter={arguments.sanitize}{NOT_SANITIZED}"], env=env, capture_output=True,
                            text=True, check=True).stdout
    tests, suite = [], ""
    for line in listed.splitlines():
        if line.endswith(".") and not line.startswith(" "):
            suite = line.strip()
        elif line.startswith("  "):
            tests.append(suite + line.split("#")[0].strip())

    def check(one):
        command = [program, "--tool", tool, *SANITIZER_OPTIONS[tool], "--error-exitcode", "9", test_program, f"--gtest_filter={one}"]
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=arguments.seconds, check=False)
        except subprocess.TimeoutExpired:
            return one, False, f"not done in {arguments.seconds:.0f} s"
        summary = [line for line in done.stdout.splitlines() if "SUMMARY" in line]
        clean = done.returncode == 0 and bool(summary) and re.search(r"SUMMARY: 0 (errors|hazards)", summary[-1]) is not None
        return one, clean, "" if clean else done.stdout[-3000:] + done.stderr[-500:]

    with concurrent.futures.ThreadPoolExecutor(SANITIZED_AT_ONCE) as pool:
        results = list(pool.map(check, tests))
    failed = {one: said for one, clean, said in results if not clean}
    (arguments.out / f"{name}.log").write_text(json.dumps(failed, indent=1), encoding="utf-8")
    return bool(tests) and not failed, {"tests": len(tests), "failed_tests": sorted(failed)}


def made_here(arguments, what, script, *inputs):
    """A folder that a script of the bundle makes, once, in --work. OSError, with the script's last words, when it cannot."""
    folder = arguments.work / what
    if not folder.exists():
        env = {**os.environ, "PYTHONPATH": f"{HERE / 'python'}:{os.environ.get('PYTHONPATH', '')}"}
        done = subprocess.run([sys.executable, str(HERE / "python" / script), *inputs, str(folder)], env=env,
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"{script}: " + (done.stderr.strip().splitlines() or ["failed"])[-1])
    return folder


def gpu_name():
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return "unknown: no nvidia-smi"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--model", default="", help="the GGUF file that `make chat` fetches")
    parser.add_argument("--model-folder", default="", help="the same weights as a folder (tests/model/make_model_folder.py)")
    parser.add_argument("--requests", default="", help="a list of lengths for benchmark throughput")
    parser.add_argument("--work", type=pathlib.Path, help="where models are made (default: in the bundle)")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--skip", nargs="*", default=[])
    parser.add_argument("--sanitize", default="*", help="which tests of operations compute-sanitizer runs (a pattern of googletest)")
    parser.add_argument("--seconds", type=float, default=300, help="for one step")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.work = (arguments.work or HERE / "work").resolve()
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.model and not arguments.model_folder:
        try:
            arguments.model_folder = str(made_here(arguments, "model-folder", "make_model_folder.py", arguments.model))
        except OSError as error:
            print("no model folder, its tests are left out:", error, flush=True)
    report = {"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "gpu": gpu_name(),
              "host": f"{platform.machine()}, {os.cpu_count()} processors", "steps": {}}
    for name, step in STEPS.items():
        wanted = name in arguments.only if arguments.only else name not in arguments.skip
        if not wanted or (step.get("model") and not arguments.model) or (step.get("requests") and not arguments.requests):
            continue
        began = time.monotonic()
        try:
            if "tiny" in step:
                passed, facts = run_tiny(name, step["tiny"], arguments)
            elif "sanitizer" in step:
                passed, facts = run_sanitizer(name, step["sanitizer"], arguments)
            else:
                passed, facts = run_program(name, step, arguments)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            passed, facts = False, {"error": str(error)}
        report["steps"][name] = {"passed": passed, "seconds": round(time.monotonic() - began, 1), **facts}
        print(f"{'passed' if passed else 'FAILED'}  {time.monotonic() - began:6.1f} s  {name}", flush=True)
        (arguments.out / "results.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if all(step["passed"] for step in report["steps"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
