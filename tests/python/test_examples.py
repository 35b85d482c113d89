"""Every public name has a docstring with an example, and the examples hold."""

import asyncio
import doctest
import importlib
import inspect
import pathlib
import pkgutil
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


def public_things():
    for name in lanner.__all__:
        thing = getattr(lanner, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            yield name, thing
        if inspect.isclass(thing):
            for method, value in vars(thing).items():
                if not method.startswith("_") and (inspect.isfunction(value) or isinstance(value, (property, classmethod))):
                    yield f"{name}.{method}", value


THINGS = dict(public_things())


@pytest.mark.parametrize("name", THINGS)
def test_it_is_described_with_an_example(name):
    text = inspect.getdoc(THINGS[name]) or ""
    assert text, f"{name} has no docstring"
    assert ">>>" in text, f"{name} has no example"


def test_the_reference_is_up_to_date():
    script = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "make_python_reference.py"
    subprocess.run([sys.executable, script, "--check"], check=True)
