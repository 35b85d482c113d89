"""The native server as a child: it is ready when the constructor returns, and never outlives its parent."""

import os
import pathlib
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest

from lanner._child_process import ChildProcess
from lanner._server_process import ServerProcess
from lanner.errors import LannerError

SMALL = ["--session-len", "512", "--cache-max-entry-count", "0.02", "--threads", "1"]
PACKAGE = str(pathlib.Path(sys.modules["lanner"].__path__[0]).parent)

# Starts a server, says its process id, and waits. "thread" starts it on a thread that ends.
PARENT = """
import sys, threading, time
from lanner._server_process import ServerProcess
servers = []
def start():
    servers.append(ServerProcess(sys.argv[1], sys.argv[3:], show_output=False))
if sys.argv[2] == "thread":
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    time.sleep(0.5)
    assert servers[0].returncode is None
else:
    start()
print(servers[0].pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def program(monkeypatch):
    monkeypatch.setenv("LANNER_PROGRAM", os.environ["LANNER_BINARY"])


@pytest.fixture
def fake_program(tmp_path, monkeypatch):
    """fake_program(text) makes a shell script the native program."""

    def make(text):
        path = tmp_path / "lanner"
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("LANNER_PROGRAM", str(path))

    return make


def is_gone(pid):
    """Whether the process has ended; nobody may have fetched its status yet."""
    try:
        with open(f"/proc/{pid}/stat") as state:
            return state.read().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def wait_until_gone(pid, seconds=10):
    until = time.monotonic() + seconds
    while not is_gone(pid):
        assert time.monotonic() < until, f"process {pid} still runs"
        time.sleep(0.02)


def start_parent(model, how="main"):
    environment = {**os.environ, "PYTHONPATH": PACKAGE}
    # Of its own group, which a terminal would send Ctrl-C to; where signals are ignored, as under nohup, they are not for it.
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, model, how, *SMALL],
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    line = parent.stdout.readline()
    assert line, parent.communicate()[1]
    return parent, int(line)


def test_ready_and_closed(model, capfd):
    with ServerProcess(model, SMALL) as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        socket.create_connection(("127.0.0.1", server.port)).close()
        assert server.returncode is None
    assert server.returncode == 0
    server.close()
    assert is_gone(server.pid)
    assert "Application startup complete" in capfd.readouterr().err


def test_quiet(model, capfd):
    with ServerProcess(model, SMALL, show_output=False) as server:
        assert any("Application startup complete" in line for line in server.last_lines)
    assert capfd.readouterr().err == ""


def test_a_given_port_and_all_addresses(model):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with ServerProcess(model, SMALL, host="0.0.0.0", port=port, api_keys=["k"], show_output=False) as server:
        assert server.url == f"http://127.0.0.1:{port}"


def test_keys_are_not_in_the_list_of_processes(model):
    with ServerProcess(model, SMALL, api_keys=["first-key", "second-key"], show_output=False) as server:
        words = pathlib.Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert b"api_server" in words
        assert b"-key\0" not in words and b"first" not in words
        for key, status in (("first-key", 200), ("second-key", 200), ("third-key", 401)):
            answer = subprocess.run(
                [
                    "curl",
                    "-s",
                    "-o",
                    "/dev/null",
                    "-w",
                    "%{http_code}",
                    "-H",
                    f"Authorization: Bearer {key}",
                    server.url + "/v1/models",
                ],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            assert answer.stdout == str(status)


def test_the_servers_own_words_when_it_cannot_start(model):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LannerError, match=rf"^cannot listen on 127.0.0.1:{port}: Address already in use$"):
            ServerProcess(model, SMALL, port=port, show_output=False)
    with pytest.raises(LannerError, match=r"^/no/such/model: is no local path"):
        ServerProcess("/no/such/model", show_output=False)
    with pytest.raises(LannerError, match=r"^unknown flag --no-such-flag"):
        ServerProcess(model, ["--no-such-flag"], show_output=False)


def test_a_program_that_is_not_there(model, monkeypatch):
    monkeypatch.setenv("LANNER_PROGRAM", "/no/such/program")
    with pytest.raises(LannerError, match=r"^/no/such/program: No such file or directory$"):
        ServerProcess(model, show_output=False)


@pytest.mark.parametrize(
    "text, message",
    [
        ("exit 3", r"^the server ended with status 3$"),
        ("echo 'x: error: early' >&2; echo 'x: error: late' >&2; exit 1", r"^late$"),
        ("echo the last words >&2; kill -9 $$", r"^the server was killed by SIGKILL: the last words$"),
    ],
)
def test_a_program_that_ends(fake_program, text, message):
    fake_program(text)
    with pytest.raises(LannerError, match=message):
        ServerProcess("m", show_output=False)


@pytest.mark.parametrize(
    "text",
    [
        "exec sleep 60",
        "exec sleep 60 >&- 2>&-",
        "echo 'INFO: Lanner running on http://127.0.0.1:9' >&2; exec sleep 60",  # where nobody answers
    ],
)
def test_not_ready_in_time(fake_program, tmp_path, text):
    fake_program(f"echo $$ > {tmp_path}/pid; {text}")
    began = time.monotonic()
    with pytest.raises(LannerError, match=r"does not answer after 2 seconds") as caught:
        ServerProcess("m", ready_timeout_s=2, show_output=False)
    assert caught.value.code == "timeout"
    assert time.monotonic() - began < 30
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_a_child_that_hangs_is_killed(fake_program, tmp_path, monkeypatch):
    monkeypatch.setattr("lanner._server_process._LEAVE_S", 0.5)
    fake_program(f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.1; done")
    began = time.monotonic()
    with pytest.raises(LannerError, match="does not answer"):
        ServerProcess("m", ready_timeout_s=2, drain_timeout_s=0.5, show_output=False)
    assert time.monotonic() - began > 3
    assert is_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("how", ["main", "thread"])
@pytest.mark.parametrize("killed_by", [signal.SIGKILL, signal.SIGTERM])
def test_dies_with_a_parent_that_is_killed(model, how, killed_by):
    parent, child = start_parent(model, how)
    assert not is_gone(child)
    parent.send_signal(killed_by)
    parent.wait()
    wait_until_gone(child)


def test_ctrl_c(model):
    """The terminal signals the whole group; the server is not in it and ends because the parent does."""
    parent, child = start_parent(model)
    assert os.getpgid(child) != parent.pid
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.wait(20) == -signal.SIGINT
    assert "KeyboardInterrupt" in parent.stderr.read()
    assert is_gone(child)  # closed before the interpreter ended


def test_a_parent_that_just_ends(model):
    code = PARENT.replace("time.sleep(60)", "")
    done = subprocess.run(
        [sys.executable, "-c", code, model, "main", *SMALL],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": PACKAGE},
    )
    assert is_gone(int(done.stdout))


def test_a_fork_of_the_parent_leaves_the_server_alone(model):
    code = PARENT.replace(
        "time.sleep(60)",
        "import os\nif os.fork() == 0: sys.exit(0)\nos.wait()\n"
        "time.sleep(0.5)\nassert servers[0].returncode is None\nservers[0].close()",
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, model, "main", *SMALL],
        stdout=subprocess.DEVNULL,
        check=True,
        env={**os.environ, "PYTHONPATH": PACKAGE},
    )


def test_a_fork_may_not_end_it_even_while_a_thread_waits_for_it():
    child = ChildProcess(["/bin/sh", "-c", "exec >&- 2>&-; exec sleep 60"], re.compile("never"), show_output=False)
    assert child.announced.wait(10)
    time.sleep(0.2)  # the thread has begun to wait
    forked = os.fork()
    if forked == 0:
        signal.alarm(5)
        child.end(0)
        os._exit(0)
    assert os.waitpid(forked, 0)[1] == 0
    time.sleep(0.2)
    assert child.process.poll() is None
    child.end(5)
    assert child.process.returncode == -signal.SIGTERM


def test_closed_from_another_thread(model):
    server = ServerProcess(model, SMALL, show_output=False)
    threads = [threading.Thread(target=server.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.wait(10) == 0


def test_forgotten(model):
    server = ServerProcess(model, SMALL, show_output=False)
    pid = server.pid
    del server
    assert is_gone(pid)
