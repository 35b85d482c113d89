"""scripts/check_layers.py: a small tree passes; each rule, broken once, is reported with its file and line."""

import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "check_layers.py"

ARCHITECTURE = """# Architecture
## Rooms
```
not the table
```
## Layers
```
3  cli        python/bindings
2  engine     quant
1  comm       text
0  core
```
"""

GOOD_TREE = {
    "ARCHITECTURE.md": ARCHITECTURE,
    "include/lanner/status.h": "#include <string>\n",
    "include/lanner/options.h": '#include "lanner/status.h"\n',
    "include/lanner/engine.h": '#include "lanner/options.h"\n',
    "src/core/check.h": "#include <lanner/status.h>\n",
    "src/core/check.cpp": '#include "core/check.h"\n#include "check.h"\n',
    "src/comm/nccl_comm.cpp": "#include <nccl.h>\n",
    "src/text/tokenizer.h": '#include "core/check.h"\n',
    "src/text/tokenizer.cpp": '#include "text/tokenizer.h"\n#include "lanner_text.h"\n',
    "src/engine/engine.cpp": '#include "lanner/engine.h"\n#include "text/tokenizer.h"\n#include <fmt/core.h>\n',
    "src/core/check_test.cpp": '#include "gtest/gtest.h"\n#include "text/tokenizer.h"\n',  # tests are exempt
    "src/cli/main.cpp": '#include "lanner/engine.h"\n',
    "python/bindings/module.cpp": '#include "lanner/engine.h"\n',
    "scripts/tool.py": "pass\n",
}

# name: (files that break a rule, the violation as it is reported)
BROKEN = {
    "upward": ({"src/core/a.h": '\n#include "engine/b.h"\n', "src/engine/b.h": ""}, "src/core/a.h:2: room core (layer 0) includes engine/b.h of room engine"),
    "sideways": ({"src/text/a.cpp": '#include "comm/b.h"\n', "src/comm/b.h": ""}, "src/text/a.cpp:1: room text (layer 1) includes comm/b.h of room comm"),
    "bindings are a room": ({"src/cli/a.cpp": '#include "../../python/bindings/b.h"\n', "python/bindings/b.h": ""}, "src/cli/a.cpp:1: room cli (layer 3) includes ../../python/bindings/b.h"),
    "bindings beside cli": ({"python/bindings/a.cpp": '#include "cli/b.h"\n', "src/cli/b.h": ""}, "python/bindings/a.cpp:1: room python/bindings (layer 3) includes cli/b.h"),
    "upward, public header": ({"src/text/a.cpp": '#include "lanner/options.h"\n'}, "src/text/a.cpp:1: room text (layer 1) includes lanner/options.h of room engine"),
    "upward, angle brackets": ({"src/core/a.h": "#include <text/tokenizer.h>\n"}, "src/core/a.h:1: room core"),
    "public header without a room": ({"include/lanner/other.h": ""}, "include/lanner/other.h:1: this public header belongs to no room"),
    "unknown room": ({"src/misc/a.h": ""}, "src/misc:1: room misc is not in the layer table"),
    "missing file": ({"src/engine/a.h": '#include "core/gone.h"\n'}, "src/engine/a.h:1: includes core/gone.h, which does not exist"),
    "Rust header": ({"src/engine/a.cpp": '#include "lanner_text.h"\n'}, "src/engine/a.cpp:1: includes lanner_text.h (the Rust crate's header), which only room text may"),
    "CUDA": ({"src/engine/a.cpp": "#include <cuda_runtime_api.h>\n"},
             "src/engine/a.cpp:1: includes cuda_runtime_api.h (CUDA), which only room ops may"),
    "NCCL": ({"src/engine/a.cpp": "#include <nccl.h>\n"}, "src/engine/a.cpp:1: includes nccl.h (NCCL), which only room comm may"),
    "cycle of two": (
        {"src/core/a.h": '#include "core/b.h"\n', "src/core/b.h": '\n\n#include "a.h"\n'},
        "src/core/b.h:3: include cycle: src/core/a.h -> src/core/b.h -> src/core/a.h",
    ),
    "includes itself": ({"src/core/a.h": '#include "core/a.h"\n'}, "src/core/a.h:1: include cycle: src/core/a.h -> src/core/a.h"),
    "long file": ({"src/core/a.cpp": "\n" * 601}, "src/core/a.cpp:601: 601 lines; the limit is 600"),
    "long test": ({"src/core/a_test.cpp": "\n" * 601}, "src/core/a_test.cpp:601: 601 lines"),
    "long script": ({"scripts/a.py": "\n" * 601}, "scripts/a.py:601: 601 lines"),
    "utils": ({"src/core/utils/a.h": ""}, "src/core/utils:1: a folder called utils"),
    "too many rooms": ({f"src/room{i}/a.h": "" for i in range(15)}, "20 rooms; at most 14"),
    "no table": ({"ARCHITECTURE.md": "# Architecture\n"}, "ARCHITECTURE.md:1: no layer table"),
    "room twice": ({"ARCHITECTURE.md": ARCHITECTURE.replace("0  core", "0  core text")}, "ARCHITECTURE.md:11: room text stands in the layer table twice"),
    "odd table line": ({"ARCHITECTURE.md": ARCHITECTURE.replace("0  core", "0  core\nzero")}, "ARCHITECTURE.md:12: a line of the layer table is a number"),
}


def check(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return subprocess.run([sys.executable, SCRIPT, root], capture_output=True, text=True)


def test_good_tree_passes(tmp_path):
    result = check(tmp_path, GOOD_TREE)
    assert (result.returncode, result.stderr) == (0, "")
    assert "no violation" in result.stdout


def test_a_file_of_600_lines_passes(tmp_path):
    assert check(tmp_path, GOOD_TREE | {"src/core/a.cpp": "\n" * 600}).returncode == 0


@pytest.mark.parametrize("name", BROKEN)
def test_broken_rule_is_reported(tmp_path, name):
    files, expected = BROKEN[name]
    result = check(tmp_path, GOOD_TREE | files)
    assert result.returncode == 1
    assert expected in result.stdout
    if name != "too many rooms":  # that one also makes 15 unknown rooms
        assert len(result.stdout.splitlines()) == 1, result.stdout


def test_no_architecture_page_is_an_error(tmp_path):
    result = check(tmp_path, {"src/core/a.h": ""})
    assert result.returncode == 1
    assert "ARCHITECTURE.md:1: cannot be read" in result.stdout
