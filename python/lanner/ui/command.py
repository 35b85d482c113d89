"""The verb ``lanner serve gradio``: a page to chat on, over a server or over a model that it serves itself."""

from __future__ import annotations

import argparse
import errno
import importlib.metadata
import os
import re
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

from lanner._arguments import split_arguments
from lanner._program import program_path
from lanner.errors import LannerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lanner.ui.native_server import NativeServer
    from lanner.ui.page import Page, Place

_HELP = """\
URL is a server's (http://localhost:23333); MODEL is what `lanner serve api_server` takes, and is served with whatever
flags of the engine stand beside it, until this program ends."""
# Older ones have no page for passwords that shows itself, or ask others for scripts.
_GRADIO_FROM, _GRADIO_BELOW = (6, 20), (7, 0)
_POLL_SECONDS = 0.1
_FIRST_SECONDS = 0.3


class _Stopped(Exception):
    """A signal has come."""


class _Signals:
    """Ctrl-C, SIGTERM and SIGHUP as a fact that is looked at, not as an interruption anywhere."""

    def __init__(self) -> None:
        self._come = False
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, self._note)

    def _note(self, *_: object) -> None:
        self._come = True

    def check(self) -> None:
        """Raises _Stopped once a signal has come."""
        if self._come:
            raise _Stopped


def _error(message: str) -> None:
    print(f"lanner: error: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lanner serve gradio",
        usage="lanner serve gradio [options] URL|MODEL",
        description="Serve a page to chat on",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--server-name",
        default="127.0.0.1",
        metavar="TEXT",
        help="Address to listen on; 0.0.0.0 is all of this machine's (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--server-port", type=int, default=6006, metavar="INT", help="Port; 0 takes any that is free (default: 6006)"
    )
    parser.add_argument("--share", action="store_true", help="Also reachable from everywhere, through Gradio's tunnel")
    parser.add_argument(
        "--auth", action="append", default=[], metavar="USER:PASSWORD", help="Who may come; may be given again"
    )
    parser.add_argument(
        "--api-key", default="", metavar="TEXT", help="The key of the server at URL (default: LANNER_API_KEY)"
    )
    return parser


def _url_among(words: list[str]) -> str:
    """The word that is a server's address, and not the value of a flag of the engine; or an empty one."""
    for before, word in zip(["", *words], words, strict=False):
        if re.match("https?:", word) and not before.startswith("--"):
            return word
    return ""


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, str, list[str]]:
    """The flags of this verb, the server's address if there is one, and all else."""
    parser = _parser()
    words, behind = split_arguments(arguments)
    flags, others = parser.parse_known_args(words)
    others += behind
    url = _url_among(others)
    if url and len(others) > 1:
        others.remove(url)
        parser.error(f"{others[0]}: no flag of this page's; the server at {url} has its own")
    if flags.api_key and not url:
        parser.error("--api-key: only a server at a URL needs it, the one of a MODEL has its own")
    for pair in flags.auth:
        user, _, password = pair.partition(":")
        if not user or not password:
            parser.error("--auth: USER:PASSWORD is what it takes")
    if not 0 <= flags.server_port <= 65535:
        parser.error("--server-port: a port is 0 to 65535")
    return flags, url, others


def _check_gradio() -> None:
    """Raises LannerError where Gradio is not there, or not a version that the page is made for."""
    try:
        version = importlib.metadata.version("gradio")
    except importlib.metadata.PackageNotFoundError:
        raise LannerError("this page needs Gradio: pip install 'lanner[ui]'") from None
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if not _GRADIO_FROM <= number < _GRADIO_BELOW:
        raise LannerError(f"this page needs another Gradio than {version}: pip install 'lanner[ui]'")


def _port(host: str, port: int) -> int:
    """``port``, or one that is free for 0.

    Raises:
        LannerError: it cannot be had, which is said before a model is loaded for nothing.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except (OSError, UnicodeError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = "in use" if taken else getattr(error, "strerror", None) or str(error)
        raise LannerError(f"{host}:{port}: {reason}") from None


def _show(page: Page, place: Place, signals: _Signals, server: NativeServer | None) -> int:
    """Shows the page until a signal comes, or the model's server ends."""
    try:
        shared = page.open(place)
        print(f"server is gonna mount on: http://{place.host}:{place.port}", flush=True)
        if place.share:
            print(f"shared as: {shared or 'nothing, since there is no tunnel'}", flush=True)
        while server is None or server.status() is None:
            signals.check()
            time.sleep(_POLL_SECONDS)
        _error("the model's server has ended")
        return server.status() or 1
    finally:
        if server is not None:
            server.hurry()
        page.close()


def _await(server: NativeServer, done: Callable[[], bool], signals: _Signals) -> int:
    """Waits until ``done``, and returns 0, or the status with which the server has ended meanwhile."""
    while not done():
        signals.check()
        status = server.status()
        if status is not None:
            return status or 1
        time.sleep(_POLL_SECONDS)
    signals.check()
    return 0


def _serve_model(arguments: list[str], place: Place, signals: _Signals) -> int:
    """Starts the server of a model, shows the page over it, and ends it."""
    from lanner.ui import page
    from lanner.ui.chat_client import ChatClient
    from lanner.ui.native_server import NativeServer

    server = NativeServer(program_path(), arguments)
    try:
        # What is wrong with the arguments shows at once. Gradio takes seconds, in which the model is loaded.
        begin = time.monotonic()
        status = _await(server, lambda: time.monotonic() - begin > _FIRST_SECONDS, signals)
        if status:
            return status
        page.load_gradio()
        status = _await(server, lambda: server.url != "", signals)
        if status:
            return status
        client = ChatClient(server.url, server.api_key)
        return _await(server, client.ready, signals) or _show(page.Page(client, client.model()), place, signals, server)
    finally:
        server.stop()


def _run(flags: argparse.Namespace, url: str, others: list[str], signals: _Signals) -> int:
    """The verb, after its command line was read."""
    _check_gradio()
    from lanner.ui.chat_client import ChatClient, is_loopback
    from lanner.ui.page import Page, Place

    users = [(user, password) for user, _, password in (pair.partition(":") for pair in flags.auth)]
    place = Place(flags.server_name, _port(flags.server_name, flags.server_port), flags.share, users)
    if not users and (place.share or not is_loopback(place.host)):
        print(
            "lanner: warning: whoever reaches this page may use the model; --auth USER:PASSWORD asks for a password",
            file=sys.stderr,
        )
    if not url:
        return _serve_model(others, place, signals)
    client = ChatClient(url, flags.api_key or os.environ.get("LANNER_API_KEY", ""))
    return _show(Page(client, client.model()), place, signals, None)


def main(arguments: list[str]) -> int:
    """Runs ``lanner serve gradio`` with the words behind it, and returns the exit status. For the main thread alone.

    >>> main(["http://localhost:23333", "--auth", "nobody"])
    2
    """
    try:
        flags, url, others = _parse(arguments)
    except SystemExit as end:  # after --help, or what is wrong
        return end.code if isinstance(end.code, int) else 2
    signals = _Signals()
    try:
        return _run(flags, url, others, signals)
    except _Stopped:
        return 0
    except LannerError as error:
        _error(str(error))
        return 1
