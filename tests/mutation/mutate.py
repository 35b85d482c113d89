#!/usr/bin/env python3
"""Proves that the tests of the operations can fail: breaks the code in one place at a time and runs them.

    tests/mutation/mutate.py                    # all of them: minutes
    tests/mutation/mutate.py --only rope mask   # those whose name contains a word
    tests/mutation/mutate.py --table            # also prints the rows of docs/mutation-tests.md

The sources are copied to a temporary folder; the working tree is never touched. All mutations are compiled into one
program, each as `(lanner_mutant == 7 ? (broken) : (as it is))`, and the variable LANNER_MUTANT picks one for a run.
A mutation names the text that it replaces. Where that does not occur exactly once, the list no longer fits the code,
and the script says so instead of passing. Exit status: 0 when every mutation was caught, 1 when one survived, 2 when
the list does not fit, or the tests fail without any mutation.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutations import MUTATIONS

ROOT = Path(__file__).resolve().parents[2]
# The fastest first. "tiles": products in tiles of bf16, without the test that does not hold for them.
BODIES = {name: {"LANNER_CPU_ISA": name} for name in ("avx512", "avx2", "generic")} | {
    "tiles": {"LANNER_TEST_DEVICE": "cpu-tiles"}}
NOT_OF_TILES = "-LinearAdd.PartsOfDifferentFormatsAreEachWhatTheyAreAlone"
SKIPPED = 77  # the processor lacks this body

CMAKE = """\
cmake_minimum_required(VERSION 3.25)
project(mutants LANGUAGES CXX)
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(LANNER_BUILD_TESTS ON)
add_compile_options(-include ${CMAKE_SOURCE_DIR}/mutant.h)
include(cmake/LannerRoom.cmake)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(GTest REQUIRED)
enable_testing()
add_subdirectory(src/core)
add_subdirectory(src/ops)
"""
MUTANT = """
#include <cstdlib>
int lanner_mutant = std::getenv("LANNER_MUTANT") == nullptr ? -1 : std::atoi(std::getenv("LANNER_MUTANT"));
"""


def copy_sources(tree: Path) -> None:
    for part in ("src/core", "src/ops", "include", "cmake"):
        shutil.copytree(ROOT / part, tree / part)
    (tree / "tests").mkdir()
    shutil.copy(ROOT / "tests/isa_main.cpp", tree / "tests")
    (tree / "CMakeLists.txt").write_text(CMAKE)
    (tree / "mutant.h").write_text("extern int lanner_mutant;\n")
    with (tree / "src/core/check.cpp").open("a") as check:
        check.write(MUTANT)


def plant_mutations(tree: Path) -> list[str]:
    """Writes all mutations into the sources; returns a line for each that does not fit."""
    unfit = []
    places = dict.fromkeys((m.file, m.search) for m in MUTATIONS)
    for file, search in places:
        text = (tree / file).read_text()
        if text.count(search) != 1:
            unfit.append(f"{file}: occurs {text.count(search)} times: {search}")
            continue
        chain = f"({search})"
        for number, mutation in enumerate(MUTATIONS):
            if (mutation.file, mutation.search) == (file, search):
                chain = f"(lanner_mutant == {number} ? ({mutation.replace}) : {chain})"
        (tree / file).write_text(text.replace(search, chain))
    return unfit


def build(tree: Path, jobs: int) -> str:
    """The compiler's complaint, or nothing."""
    launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
    for command in (["cmake", "-S", tree, "-B", tree / "build", "-G", "Ninja", "-DCMAKE_CXX_FLAGS=-O2 -w", *launcher],
                    ["cmake", "--build", tree / "build", "-j", str(jobs), "--target", "ops_test"]):
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            return done.stdout[-4000:] + done.stderr[-2000:]
    return ""


def first_failure(tree: Path, mutant: int, tests: str) -> str:
    """The first body of kernels that fails and its test that does; nothing when all pass."""
    for body, environment in BODIES.items():
        skipped = NOT_OF_TILES if body == "tiles" else ""
        try:
            done = subprocess.run([tree / "build/src/ops/ops_test", f"--gtest_filter={tests}{skipped}", "--gtest_fail_fast"],
                                  capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=1200,
                                  env=os.environ | environment | {"LANNER_MUTANT": str(mutant)})
        except subprocess.TimeoutExpired:
            return f"{body}: does not end"
        if done.returncode in (0, SKIPPED):
            continue
        failed = re.findall(r"^\[  FAILED  \] (?:\w+/)?(\w+\.\w+)", done.stdout, re.MULTILINE)
        started = re.findall(r"^\[ RUN      \] (?:\w+/)?(\w+\.\w+)", done.stdout, re.MULTILINE)
        if failed:
            return f"{body}: {failed[0]}"
        return f"{body}: {started[-1] if started else 'at its start'} (the program ends with {done.returncode})"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD", help="mutations whose name contains one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", action="store_true", help="print the rows of docs/mutation-tests.md")
    options = parser.parse_args()
    chosen = [number for number, mutation in enumerate(MUTATIONS)
              if not options.only or any(word in mutation.name for word in options.only)]
    with tempfile.TemporaryDirectory(prefix="lanner-mutants-") as folder:
        tree = Path(folder)
        copy_sources(tree)
        complaint = "\n".join(plant_mutations(tree)) or build(tree, options.jobs) or first_failure(tree, -1, "*")
        if complaint:
            print(f"nothing to learn before this is mended:\n{complaint}")
            return 2
        rows = []
        survivors = 0
        with ThreadPoolExecutor(options.jobs) as pool:
            results = pool.map(lambda number: first_failure(tree, number, MUTATIONS[number].tests), chosen)
            for number, failure in zip(chosen, results):
                mutation = MUTATIONS[number]
                print(f"{'killed  ' if failure else 'SURVIVED'} {mutation.name}: {failure}", flush=True)
                file = mutation.file.removeprefix("src/ops/")
                rows.append(f"| {mutation.name} | `{file}` | {failure or '**none: it survived**'} |")
                survivors += not failure
    if options.table:
        print("\n".join(rows))
    print(f"{len(chosen) - survivors} killed, {survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
