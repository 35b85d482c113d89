"""What the tests of this folder ask of checkpoint_probe, and how they compare numbers."""

import json
import os
import pathlib
import subprocess

import numpy as np
import pytest


def required(variable):
    value = os.environ.get(variable)
    if not value:
        pytest.fail(f"set {variable}: this test reads a real model and does not pass without it")
    if not pathlib.Path(value).exists():
        pytest.fail(f"{variable}={value}: no such file or folder")
    return value


class Probe:
    """The answers of checkpoint_probe about one checkpoint."""

    def __init__(self, path, model_format=""):
        self.path = str(path)
        self.program = required("LANNER_CHECKPOINT_PROBE")
        self.process = subprocess.Popen(
            [self.program, self.path, "values", model_format],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        assert self.process.wait() == 0
        self.process.stdout.close()
        self.process.stderr.close()

    def ask(self, line):
        self.process.stdin.write((line + "\n").encode())
        self.process.stdin.flush()
        answer = self.process.stdout.readline().decode()
        assert answer.startswith("ok "), f"{line}: {answer}"
        _, count, kind = answer.split()
        data = self.process.stdout.read(4 * int(count))
        return np.frombuffer(data, dtype="<f4"), kind

    def tensor(self, name, shape, heads=0):
        if len(shape) == 1:
            values, kind = self.ask(f"vector {name} {shape[0]} {heads}")
        else:
            values, kind = self.ask(f"matrix {name} {shape[0]} {shape[1]} {heads}")
        return values.reshape(shape), kind


def probe_refusal(path, model_format=""):
    """The one line with which a checkpoint is refused."""
    done = subprocess.run(
        [required("LANNER_CHECKPOINT_PROBE"), str(path), "values", model_format],
        input="",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, f"accepted: {path}"
    assert done.stderr.startswith("error ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


def probe_spec(path):
    done = subprocess.run(
        [required("LANNER_CHECKPOINT_PROBE"), str(path), "spec"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ulp_distance(a, b):
    """The largest number of fp32 values between two arrays' elements."""
    a = np.ascontiguousarray(a, dtype=np.float32)
    b = np.ascontiguousarray(b, dtype=np.float32)
    assert a.shape == b.shape
    assert np.isfinite(a).all() and np.isfinite(b).all()

    def ordered(x):
        bits = x.view(np.int32).astype(np.int64)
        return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)

    return int(np.abs(ordered(a) - ordered(b)).max()) if a.size else 0
