"""The story of a user: `lanner chat org/tiny` downloads, talks, and needs no network the second time; so does convert.

Needs LANNER_TEST_GGUF, a real model; `make test` sets it.
"""

import os
import pathlib
import pty
import signal
import subprocess
import time

import pytest

from tiny_model import BINARY


@pytest.fixture
def gguf(model):
    return pathlib.Path(model).read_bytes()


@pytest.fixture
def lanner(environment):
    def run(*arguments, stdin=b"What is the capital of France?\n", **more):
        return subprocess.run([BINARY, *arguments], input=stdin, stdout=subprocess.PIPE, env=environment, timeout=300, check=False,
                              **{"stderr": subprocess.PIPE, **more})

    return run


CHAT = ["--greedy", "--session-len", "512", "--max-new-tokens", "16"]


def test_a_chat_with_a_model_of_the_hub(hub, lanner, gguf):
    hub.add("org/tiny", {"README.md": b"x"}, {"tiny-Q4_1.gguf": gguf})
    hub.fault("/cdn/", break_after=30_000_000, times=1)
    first = lanner("chat", "org/tiny", *CHAT)
    assert first.returncode == 0, first.stderr
    assert b"Paris" in first.stdout
    notes = first.stderr.decode()
    assert f"lanner: note: downloading org/tiny from {hub.url}" in notes and "trying again" in notes
    assert hub.cdn_requests[-1][2]["Range"] == "bytes=30000000-"
    hub.stop()
    second = lanner("chat", "org/tiny", *CHAT)
    assert second.returncode == 0 and second.stdout == first.stdout
    assert second.stderr == b""


def test_the_progress_bar(hub, lanner, gguf):
    hub.add("org/tiny", {}, {"tiny-Q4_1.gguf": gguf})
    master, slave = pty.openpty()
    done = lanner("chat", "org/tiny:q4_1", *CHAT, stderr=slave)
    os.close(slave)
    shown = b""
    try:
        while data := os.read(master, 65536):
            shown += data
    except OSError:  # the end of a terminal
        pass
    os.close(master)
    assert done.returncode == 0
    assert b"\rdownloading [" in shown and b" % " in shown
    assert b"tiny-Q4_1.gguf, LlamaForCausalLM" in shown or b"tiny-Q4_1.gguf, " in shown


def test_a_folder_is_called_by_its_name(hub, lanner, cache):
    """What is there of it cannot be opened, but that is found out after the download."""
    hub.add("org/my-model", {"config.json": b"{}", "tokenizer.json": b"{}"}, {"model.safetensors": b"12345678"})
    done = lanner("chat", "org/my-model", *CHAT)
    assert done.returncode == 1
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith("lanner: error: ") and "models--org--my-model/snapshots/" in last
    assert list(cache.glob("models--org--my-model/snapshots/*/model.safetensors"))


def test_ctrl_c(hub, environment, gguf, cache):
    hub.add("org/tiny", {}, {"tiny-Q4_1.gguf": gguf})
    hub.fault("/cdn/", stall_after=10_000_000, times=1)
    process = subprocess.Popen([BINARY, "chat", "org/tiny"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    assert hub.stalled.wait(30)
    (partial,) = cache.glob("models--org--tiny/blobs/*.incomplete")
    until = time.monotonic() + 10
    while partial.stat().st_size < 10_000_000 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
    assert errors.decode().endswith("lanner: note: stopped; what has come is kept, and the next start goes on from there\n")
    assert partial.stat().st_size == 10_000_000


def test_errors_are_one_line(hub, lanner, environment):
    done = lanner("chat", "org/none")
    assert done.returncode == 1
    assert done.stderr.decode() == (f"lanner: error: org/none: is no local path, and {hub.url} has no such public model; "
                                    "a private one needs a token (HF_TOKEN)\n")
    environment["HF_HUB_OFFLINE"] = "1"
    done = lanner("eval", "perplexity", "org/none")
    assert done.returncode == 1 and b"forbids a download" in done.stderr
    assert len(hub.requests) == 1


def test_the_flags_for_hubs(hub, lanner, tmp_path):
    repo = hub.add("org/my-model", {"config.json": b"{}", "tokenizer.json": b"{}"}, {"model.safetensors": b"12345678"})
    commit = repo.move("v2")
    lanner("chat", "org/my-model", "--revision", "v2", "--download-dir", str(tmp_path / "models"))
    assert (tmp_path / "models/models--org--my-model/snapshots" / commit / "config.json").exists()
    assert "/api/models/org/my-model/revision/v2" in hub.paths()


def test_convert_takes_a_model_of_the_hub(hub, lanner, gguf, tmp_path):
    repo = hub.add("org/tiny", {}, {"tiny-Q4_1.gguf": gguf})
    commit = repo.move("v2")
    arguments = ["convert", "llama", "org/tiny", "--revision", "v2", "--download-dir", str(tmp_path / "models"), "--dst-path"]
    first = lanner(*arguments, str(tmp_path / "first"))
    assert first.returncode == 0, first.stderr
    assert f"lanner: note: downloading org/tiny from {hub.url}" in first.stderr.decode()
    assert "/api/models/org/tiny/revision/v2" in hub.paths()
    assert (tmp_path / "models/models--org--tiny/snapshots" / commit / "tiny-Q4_1.gguf").exists()
    hub.stop()
    second = lanner(*arguments, str(tmp_path / "second"))
    assert second.returncode == 0 and b"downloading" not in second.stderr
    assert b"Paris" in lanner("chat", str(tmp_path / "second"), *CHAT).stdout
