"""Templates that want too much end in one line, within 2 seconds of processor time and 256 MiB."""

import json
import os
import resource
import struct
import subprocess

import pytest

import text_probe
from hostile_templates import HOSTILE

MAX_SECONDS = 2
MAX_EXTRA_BYTES = 256 << 20
RECORD = json.dumps({"messages": [{"role": "user", "content": "Hallo"}]}).encode()


def limit_the_child():
    # For a template that gets away: the machine must not suffer.
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


def run(source, tmp_path):
    """The exit status, the answer, and what the process took."""
    path = tmp_path / "template.jinja"
    path.write_text(source)
    command = [text_probe.find_probe(), "render", "--template", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          preexec_fn=limit_the_child) as child:
        child.stdin.write(struct.pack("<I", len(RECORD)) + RECORD)
        child.stdin.close()
        answer = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, answer, usage


@pytest.fixture(scope="module")
def usual_bytes(tmp_path_factory):
    _, _, usage = run("{{ messages[0].content }}", tmp_path_factory.mktemp("usual"))
    return usage.ru_maxrss * 1024


@pytest.mark.parametrize("name", HOSTILE)
def test_ends_soon_and_in_little_memory(name, tmp_path, usual_bytes):
    status, answer, usage = run(HOSTILE[name], tmp_path)
    assert status == 0
    assert usage.ru_utime + usage.ru_stime < MAX_SECONDS
    assert usage.ru_maxrss * 1024 - usual_bytes < MAX_EXTRA_BYTES
    (size,) = struct.unpack_from("<I", answer)
    assert size == text_probe.ERROR_MARK, answer[:200]
    text = answer[8:].decode()
    assert text.startswith(("resource_exhausted: ", "invalid_argument: ", "unsupported: "))
    assert "\n" not in text and len(text) < 1000
