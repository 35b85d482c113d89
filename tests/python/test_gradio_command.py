"""The command `lanner serve gradio` without a browser: its flags, its errors, and the server that it starts."""

import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

from gradio_page import Scripted, Ui, alive, children, command, environment, missing, run, wait_for

if missing(browser=False):
    pytest.skip(missing(browser=False), allow_module_level=True)


@pytest.fixture(scope="module")
def server():
    started = Scripted()
    yield started
    started.end()


def status_of(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


def test_help():
    done = run("--help")
    assert done.returncode == 0 and "--server-port" in done.stdout and "6006" in done.stdout


@pytest.mark.parametrize("arguments, line", [
    (["http://127.0.0.1:1", "--auth", "ann"], "--auth: USER:PASSWORD is what it takes"),
    (["http://127.0.0.1:1", "--auht", "ann:b"], "--auht: no flag of this page's; the server at http://127.0.0.1:1 has its own"),
    (["--tp", "1", "http://127.0.0.1:1"], "--tp: no flag of this page's; the server at http://127.0.0.1:1 has its own"),
    (["model", "--api-key", "x"], "--api-key: only a server at a URL needs it, the one of a MODEL has its own"),
    (["http://127.0.0.1:1", "--server-port", "70000"], "--server-port: a port is 0 to 65535"),
    (["http://127.0.0.1:1", "--server-port", "x"], "argument --server-port: invalid int value: 'x'")])
def test_a_mistake_ends_with_2(arguments, line):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"lanner serve gradio: error: {line}"


@pytest.mark.parametrize("url, reason", [
    ("http://127.0.0.1:1", "the server at 127.0.0.1:1 cannot be reached: connection refused"),
    ("http://", "http:: this is no address of a server"),
    ("http://127.0.0.1:99999", "http://127.0.0.1:99999: this is no address of a server")])
def test_a_wrong_url_is_one_line(url, reason):
    done = run(url, "--server-port", "0")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"lanner: error: {reason}\n")


def test_a_server_without_models():
    server = Scripted()
    handler = type("Handler", (server.RequestHandlerClass,), {"do_GET": lambda self: self.reply(200, b"[" * 100_000)})
    server.RequestHandlerClass = handler
    done = run(server.url)
    server.end()
    assert (done.returncode, done.stderr) == (1, f"lanner: error: the server at {server.url[7:]} lists no model (/v1/models)\n")


def test_the_key_of_the_server(start_probe, open_ui):
    server = start_probe("--key", "secret")
    done = run(server.url, "--api-key", "wrong", "--server-port", "0")
    assert (done.returncode, done.stderr) == (1, "lanner: error: the server wants another key: Unauthorized.\n")
    ui = open_ui(server.url + "/v1/", "--api-key", "secret", LANNER_API_KEY="another")
    assert ui.stop() == 0


def test_a_port_in_use_is_one_line(server):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run(server.url, "--server_port", port)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"lanner: error: 127.0.0.1:{port}: in use\n")


@pytest.mark.parametrize("version, line", [
    (None, "this page needs Gradio: pip install 'lanner[ui]'"),
    ("5.49.1", "this page needs another Gradio than 5.49.1: pip install 'lanner[ui]'"),
    ("7.0.0b1", "this page needs another Gradio than 7.0.0b1: pip install 'lanner[ui]'")])
def test_without_the_right_gradio(tmp_path, version, line):
    (tmp_path / "sitecustomize.py").write_text(
        f"import importlib.metadata as metadata\nfound, told = metadata.version, {version!r}\n"
        "def version(name):\n"
        "    if name != 'gradio': return found(name)\n"
        "    if told is None: raise metadata.PackageNotFoundError(name)\n"
        "    return told\n"
        "metadata.version = version\n")
    path = os.pathsep.join([str(tmp_path), environment()["PYTHONPATH"]])
    done = run("http://127.0.0.1:1", PYTHONPATH=path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"lanner: error: {line}\n")


def test_open_to_others_is_warned_of(server, open_ui):
    ui = open_ui(server.url, "--server-name", "0.0.0.0")
    assert status_of(ui.url.replace("0.0.0.0", "127.0.0.1"), Host="some.name") == 200
    assert ui.stop() == 0
    assert "lanner: warning: whoever reaches this page may use the model" in ui.stderr()
    assert "warning" not in run("http://127.0.0.1:1", "--server-name", "0.0.0.0", "--auth", "ann:b", "--server-port", "0").stderr


def test_what_the_page_does_not_need_is_closed(server, open_ui):
    ui = open_ui(server.url)
    assert status_of(ui.url) == 200
    assert status_of(ui.url, Host="evil.example") == 403
    for path in ["upload", "file=/etc/hostname", "proxy=http://127.0.0.1:1/", "vibe-edit/", "run-history/buckets"]:
        assert status_of(f"{ui.url}/gradio_api/{path}") == 404, path
    assert status_of(ui.url + "/monitoring") >= 400
    with urllib.request.urlopen(ui.url) as reply:
        assert "default-src 'self'" in reply.headers["Content-Security-Policy"]
        assert b"googleapis" not in reply.read()
    assert ui.stop() == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_with_0_and_leaves_nothing(server, how, tmp_path, open_ui):
    ui = open_ui(server.url, TMPDIR=str(tmp_path))
    assert ui.stop(how) == 0
    assert ui.stderr() == ""
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def model_ui(model):
    started = []

    def start(*flags):
        ui = Ui(model, "--session-len", "1024", "--cache-max-entry-count", "0.05", *flags)
        (child,) = children(ui.process.pid)
        started.append((ui, child))
        return ui, child

    yield start
    for ui, child in started:
        ui.stop(signal.SIGKILL)
        if alive(child):
            os.kill(child, signal.SIGKILL)


def test_a_model_is_served_and_its_server_ends_with_the_page(model_ui):
    ui, child = model_ui("--model-name", "small")
    with open(f"/proc/{child}/cmdline", "rb") as words:
        arguments = words.read().decode().split("\0")
    assert arguments[arguments.index("--model-name") + 1] == "small"
    # It is there for the page alone: of this machine, and with a key that nobody sees.
    assert arguments[arguments.index("--server-name") + 1] == "127.0.0.1"
    port = re.search(r" running on http://127\.0\.0\.1:(\d+)", ui.stderr())[1]
    assert status_of(f"http://127.0.0.1:{port}/v1/models") == 401
    assert status_of(ui.url) == 200
    assert ui.stop() == 0
    assert not alive(child)


def test_the_models_server_ends_when_the_page_is_killed(model_ui):
    ui, child = model_ui()
    ui.stop(signal.SIGKILL)
    wait_for(lambda: not alive(child))


def test_the_page_ends_when_the_models_server_does(model_ui):
    ui, child = model_ui()
    os.kill(child, signal.SIGKILL)
    assert ui.process.wait(20) == 137
    assert ui.stderr().splitlines()[-1] == "lanner: error: the model's server has ended"
    assert not alive(child)


def test_a_signal_while_the_model_is_loaded(model):
    process = subprocess.Popen(command(model, "--server-port", "0"), env=environment(), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    wait_for(lambda: children(process.pid))
    (child,) = children(process.pid)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert not alive(child)


def test_a_model_that_is_none():
    done = run("/nowhere/model.gguf", "--server-port", "0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "lanner: error: /nowhere/model.gguf: is no local path, and no model of a hub (those are called ORGANIZATION/NAME)"]


def test_the_engines_flags_are_the_engines_to_refuse(model):
    done = run("--no-such-flag", "1", model, "--server-port", "0")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "lanner serve api_server: error: unknown flag --no-such-flag"
