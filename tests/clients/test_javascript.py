"""The JavaScript client of OpenAI: openai_js.mjs has the cases."""
import os
import pathlib
import subprocess

CASES = pathlib.Path(__file__).resolve().parent / "openai_js.mjs"


def run(server, kind, key="none"):
    clients = pathlib.Path(os.environ["LANNER_CLIENTS"]).resolve()
    environment = {**os.environ, "LANNER_URL": server.url, "LANNER_KIND": kind, "LANNER_KEY": key,
                   "LANNER_OPENAI": str(clients / "node_modules" / "openai" / "index.mjs")}
    done = subprocess.run(["node", "--test", "--test-reporter=spec", CASES], env=environment, capture_output=True, text=True,
                          timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_with_the_scripted_server(probe):
    assert "pass 24" in run(probe, "scripted")


def test_tools(tool_probe):
    assert "pass 5" in run(tool_probe, "tools")


def test_with_a_key(start_probe):
    assert "pass 2" in run(start_probe("--key", "secret"), "key", "secret")


def test_with_the_real_model(real):
    assert "pass 7" in run(real, "real")
