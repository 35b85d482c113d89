"""Every public name has a docstring with an example, and the examples hold."""

import asyncio
import doctest
import importlib
import inspect
import pathlib
import pkgutil
import runpy
import subprocess
import sys

import pytest

import lanner

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(lanner.__path__, "lanner.")
    if name not in ("lanner._core", "lanner.__main__")
]


@pytest.fixture(scope="module")
def api(model):
    with lanner.serve(model, server_port=0) as client:
        yield client


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name, model, pipe, api):
    module = importlib.import_module(name)
    names = {"asyncio": asyncio, "pipe": pipe, "api": api, "MODEL": model, **{one: getattr(lanner, one) for one in lanner.__all__}}
    result = doctest.testmod(module, extraglobs=names, verbose=False)
    assert result.failed == 0


SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "make_python_reference.py"
THINGS = dict(runpy.run_path(str(SCRIPT))["public_things"]())


@pytest.mark.parametrize("name", THINGS)
def test_it_is_described_with_an_example(name):
    text = inspect.getdoc(THINGS[name]) or ""
    assert text, f"{name} has no docstring"
    assert ">>>" in text, f"{name} has no example"


def test_the_reference_is_up_to_date():
    subprocess.run([sys.executable, SCRIPT, "--check"], check=True)
