"""Talks to the text_probe program: how the Python tests reach src/text."""

import json
import os
import pathlib
import struct
import subprocess

import pytest

ERROR_MARK = 0xFFFFFFFF
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


class ProbeError(Exception):
    """What the program answered instead of a result: "code: message"."""


def find_probe():
    """The program named by LANNER_TEXT_PROBE, or the newest one in a build directory; fails the test without one."""
    named = os.environ.get("LANNER_TEXT_PROBE")
    found = [pathlib.Path(named)] if named else sorted(
        REPOSITORY.glob("build*/**/text_probe"), key=lambda path: path.stat().st_mtime)
    if not found:
        pytest.fail("text_probe is not built and LANNER_TEXT_PROBE does not name it")
    return str(found[-1])


def environment_path(variable):
    """The path in an environment variable, or a failed test: `make test` sets them all."""
    value = os.environ.get(variable)
    if not value:
        pytest.fail(f"{variable} is not set")
    return pathlib.Path(value)


def run_probe(arguments, records):
    """Sends byte records, returns one answer for each: bytes, or a ProbeError."""
    sent = b"".join(struct.pack("<I", len(record)) + record for record in records)
    done = subprocess.run([find_probe(), *map(str, arguments)], input=sent, capture_output=True, check=False,
                          timeout=600)
    if done.returncode != 0:
        raise ProbeError(f"exit {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
    answers, at = [], 0

    def take():
        nonlocal at
        (size,) = struct.unpack_from("<I", done.stdout, at)
        at += 4
        if size == ERROR_MARK:
            return ProbeError(take().decode())
        at += size
        return done.stdout[at - size : at]

    while at < len(done.stdout):
        answers.append(take())
    assert len(answers) == len(records)
    return answers


def encode(source, texts, *flags):
    """The ids of each text."""
    answers = run_probe(["encode", *source, *flags], [text.encode() for text in texts])
    return [list(struct.unpack(f"<{len(a) // 4}i", a)) if isinstance(a, bytes) else a for a in answers]


def decode(mode, source, id_lists, *flags):
    """The text of each list of ids; mode "decode" (at once) or "stream" (token by token)."""
    answers = run_probe([mode, *source, *flags], [struct.pack(f"<{len(ids)}i", *ids) for ids in id_lists])
    return [a.decode() if isinstance(a, bytes) else a for a in answers]


def render(template, inputs):
    """The prompt, or a ProbeError, for each dict of messages, tools, add_generation_prompt, extra, bos, eos."""
    answers = run_probe(["render", "--template", template], [json.dumps(one).encode() for one in inputs])
    return [a.decode() if isinstance(a, bytes) else a for a in answers]
