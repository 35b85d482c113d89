"""The verb ``lanner deploy``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from lanner._arguments import split_arguments
from lanner.deploy.check import check_folder
from lanner.deploy.folder import HOST_PORT, TARGETS, Plan, write_folder
from lanner.errors import LannerError

_USAGE = "lanner deploy --target TARGET DIR --model MODEL [options] [-- FLAGS]"
_EPILOG = """\
FLAGS are flags of `lanner serve gradio`, such as --session-len 2048 or --quant-policy 8, with which the page starts.

  lanner deploy --target hf-space chat --model HuggingFaceTB/SmolLM2-135M-Instruct --check
  lanner deploy --target docker chat --model model.gguf --copy-model -- --session-len 2048"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lanner deploy",
        usage=_USAGE,
        description="Write a folder that a host of demos takes as it is, with a page to chat on",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="Where to write it")
    parser.add_argument("--target", required=True, choices=TARGETS, help="Who is to run it")
    parser.add_argument("--model", required=True, metavar="MODEL", help="ORGANIZATION/NAME on a hub, or a local model")
    parser.add_argument("--copy-model", action="store_true", help="Put the local model into the folder")
    parser.add_argument(
        "--hub",
        choices=("huggingface", "modelscope"),
        help="Where the model is downloaded from (default: modelscope for the target of that name, else huggingface)",
    )
    parser.add_argument(
        "--title", default="", metavar="TEXT", help="Of the page's README (default: by the model's name)"
    )
    parser.add_argument(
        "--package",
        default="",
        metavar="TEXT",
        help="What pip installs there: 'lanner[ui] @ https://HOST/lanner-….whl' (default: this version from PyPI)",
    )
    parser.add_argument("--port", type=int, default=HOST_PORT, metavar="INT", help="Of docker alone (default: 7860)")
    parser.add_argument("--force", action="store_true", help="Replace this verb's files in a folder that is not empty")
    parser.add_argument("--check", action="store_true", help="Start the page here in the end, and ask it a question")
    parser.add_argument(
        "--check-timeout",
        type=float,
        default=1800.0,
        metavar="FLOAT",
        help="Seconds until it must answer (default: 1800)",
    )
    return parser


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, Plan]:
    parser = _parser()
    words, behind = split_arguments(arguments)
    asked = parser.parse_args(words)
    if asked.port != HOST_PORT and asked.target != "docker":
        parser.error(f"--port {asked.port}: {asked.target} expects the page on {HOST_PORT}")
    if not 0 < asked.port < 65536:
        parser.error(f"--port {asked.port}: a port is 1 to 65535")
    for name in ("title", "package"):
        if not getattr(asked, name).isprintable():
            parser.error(f"--{name}: is one line of printable characters")
    hub = asked.hub or ("modelscope" if asked.target == "modelscope" else "huggingface")
    return asked, Plan(
        target=asked.target,
        folder=asked.folder,
        model=asked.model,
        copy_model=asked.copy_model,
        hub=hub,
        title=asked.title,
        package=asked.package,
        port=asked.port,
        flags=behind[1:],
        force=asked.force,
    )


def main(arguments: list[str]) -> int:
    """Runs ``lanner deploy`` with the words behind it, and returns the exit status.

    >>> main(["chat", "--target", "docker", "--model", "no model"])
    1
    """
    try:
        asked, plan = _parse(arguments)
    except SystemExit as end:  # after --help, or what is wrong
        return end.code if isinstance(end.code, int) else 2
    try:
        write_folder(plan)
        print(f"{plan.folder}: written for {plan.target}")
        if asked.check:
            began = time.monotonic()
            answer = check_folder(plan.folder, asked.check_timeout)
            print(
                f"{plan.folder}: the page answered after {time.monotonic() - began:.1f} s: {' '.join(answer.split())}"
            )
    except LannerError as error:
        print(f"lanner: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
