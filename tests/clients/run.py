"""Runs the tests of one kind of client, python or javascript, with what `scripts/setup_clients.sh FOLDER` has installed;
without that it says that they did not run, and ends with 77, which CTest shows as skipped.

    LANNER_CLIENTS=FOLDER tests/clients/run.py python|javascript
"""
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
SKIPPED = 77


def did_not_run(why):
    print(f"did not run: {why}; `make clients-test` installs what it needs")
    sys.exit(SKIPPED)


def main():
    kind = sys.argv[1]
    clients = pathlib.Path(os.environ["LANNER_CLIENTS"])
    python = clients / "venv" / "bin" / "python"
    if not python.exists():
        did_not_run(f"there is no {python}")
    tests = ["test_langchain.py", "test_litellm.py"]
    if kind == "javascript":
        tests = ["test_javascript.py"]
        if shutil.which("node") is None:
            did_not_run("there is no node")
        if not (clients / "node_modules" / "openai").exists():
            did_not_run(f"there is no {clients / 'node_modules' / 'openai'}")
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *[HERE / test for test in tests]]
    sys.exit(subprocess.run(command, check=False).returncode)


main()
