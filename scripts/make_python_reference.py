#!/usr/bin/env python3
"""Writes docs/python-api.md out of the docstrings of the Python package.

    PYTHONPATH=build/python .venv/bin/python scripts/make_python_reference.py [--check]

--check writes nothing and exits with 1 where the page is not what would be written.
"""

import inspect
import pathlib
import sys

import lanner

PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "python-api.md"
HEAD = """# The Python package, name by name

Made from the docstrings by `scripts/make_python_reference.py`. In the examples `pipe` is an open pipeline and `MODEL` the
path of a model. [python.md](python.md) is where to begin.
"""


def signature(name, thing):
    if isinstance(thing, property):
        return name
    try:
        text = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return name
    return name + text.replace("'", "")


def described(thing):
    """The docstring, with its examples as code."""
    lines, code = [], False
    for line in (inspect.getdoc(thing) or "").splitlines():
        begins = line.lstrip().startswith(">>>")
        if begins and not code:
            lines.append("```python")
            code = True
        elif code and not line.strip():
            lines.append("```")
            code = False
        lines.append(line)
    if code:
        lines.append("```")
    return "\n".join(lines)


def public_things():
    """Name and object of all that the package offers: classes and functions, and behind each class its members."""
    for name in lanner.__all__:
        thing = getattr(lanner, name)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        yield name, thing
        for member, value in vars(thing).items() if inspect.isclass(thing) else ():
            value = value.__func__ if isinstance(value, classmethod) else value
            if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                yield f"{name}.{member}", value


def page():
    parts = [HEAD]
    for name, thing in public_things():
        parts.append(f"{'###' if '.' in name else '##'} `{signature(name, thing)}`\n\n{described(thing)}\n")
    return "\n".join(parts)


def main():
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    print("docs/python-api.md is not up to date: run scripts/make_python_reference.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
