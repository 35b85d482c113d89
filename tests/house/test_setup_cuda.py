"""scripts/setup_cuda.sh: which compiler it takes. It runs in a tree of its own, with fakes of nvcc and of Python."""

import pathlib
import shutil
import subprocess

import pytest

SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"
PLAIN_TOOLS = ["bash", "sh", "cat", "chmod", "dirname", "env", "grep", "head", "ln", "mkdir", "mktemp", "mv", "rm", "sed", "sort"]

# python3 -m venv FOLDER makes a python, which is this again; pip install --target FOLDER makes an nvcc.
PYTHON = """#!/bin/sh
echo "$*" >>"$LOG"
if [ "$2" = venv ]; then
  mkdir -p "$3/bin" && cat "$0" >"$3/bin/python" && chmod +x "$3/bin/python"
  exit
fi
[ ! -e "$LOG.no_network" ] || exit 1
while [ $# -gt 0 ]; do [ "$1" != --target ] || target=$2; shift; done
mkdir -p "$target/nvidia/cu13/bin" "$target/nvidia/cu13/lib"
printf '#!/bin/sh\\necho "Cuda compilation tools, release 13.0, V13.0.88"\\n' >"$target/nvidia/cu13/bin/nvcc"
chmod +x "$target/nvidia/cu13/bin/nvcc"
"""


class Tree:
    def __init__(self, root):
        self.root = root
        self.tools = root / "tools"
        self.log = root / "log"
        self.log.touch()
        (root / "scripts").mkdir()
        self.tools.mkdir()
        for name in ("setup_cuda.sh", "requirements-cuda.txt"):
            shutil.copy(SCRIPTS / name, root / "scripts" / name)
        script = root / "scripts" / "setup_cuda.sh"
        script.write_text(script.read_text().replace("/usr/local/cuda", str(root / "usr-local-cuda")))  # this machine's own
        for tool in PLAIN_TOOLS:
            (self.tools / tool).symlink_to(shutil.which(tool))
        self.write(self.tools / "python3", PYTHON)
        self.own = root / ".cuda-toolkit" / "nvidia" / "cu13" / "bin" / "nvcc"

    @staticmethod
    def write(path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def nvcc(self, folder, release):
        path = self.root / folder / "nvcc"
        self.write(path, f'#!/bin/sh\necho "Cuda compilation tools, release {release}, V{release}.1"\n')
        return path

    def run(self, path="", **environment):
        return subprocess.run([self.root / "scripts" / "setup_cuda.sh"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False, env={"PATH": f"{path}:{self.tools}", "LOG": str(self.log), **environment})


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def test_an_installed_compiler_that_is_new_enough_is_taken(tree):
    nvcc = tree.nvcc("toolkit/bin", "12.8")
    assert tree.run(path=nvcc.parent).stdout == f"{nvcc}\n"
    assert tree.run(CUDA_HOME=str(nvcc.parent.parent)).stdout == f"{nvcc}\n"
    other = tree.nvcc("other", "13.1")
    assert tree.run(path=nvcc.parent, CUDACXX=str(other)).stdout == f"{other}\n"
    assert tree.log.read_text() == ""  # nothing was installed


def test_an_old_one_is_passed_over_and_the_wheels_are_installed_once(tree):
    old = tree.nvcc("toolkit/bin", "11.8")
    first = tree.run(path=old.parent)
    assert first.returncode == 0 and first.stdout == f"{tree.own}\n"
    assert f"{old} is left alone" in first.stderr
    calls = tree.log.read_text().splitlines()
    assert [call.split()[1] for call in calls] == ["venv", "pip"]
    assert (tree.own.parents[1] / "lib64").is_symlink()
    again = tree.run()
    assert again.stdout == f"{tree.own}\n" and again.stderr == ""
    assert tree.log.read_text().splitlines() == calls
    assert [path.name for path in tree.root.glob(".cuda-toolkit*")] == [".cuda-toolkit"]  # no leftovers


def test_other_pinned_versions_are_installed_anew(tree):
    tree.run()
    requirements = tree.root / "scripts" / "requirements-cuda.txt"
    requirements.write_text(requirements.read_text().replace("13.0.88", "13.0.99"))
    assert "installing one from PyPI" in tree.run().stderr


def test_wheels_can_be_asked_for_beside_an_installed_one(tree):
    nvcc = tree.nvcc("toolkit/bin", "13.0")
    assert tree.run(path=nvcc.parent, LANNER_CUDA_TOOLKIT="wheels").stdout == f"{tree.own}\n"


def test_a_failed_download_says_so_and_leaves_nothing(tree):
    (tree.root / "log.no_network").touch()
    done = tree.run()
    assert done.returncode == 1 and done.stdout == ""
    assert "pip could not install the wheels" in done.stderr
    assert not list(tree.root.glob(".cuda-toolkit*"))
