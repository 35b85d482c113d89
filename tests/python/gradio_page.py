"""What the tests of `lanner serve gradio` share: the program, its page in Chromium, and a server that does as it is told."""

import functools
import http.server
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from server_process import BINARY, BUILD

CHROMIUM = os.environ.get("LANNER_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


@functools.cache
def missing(*, browser):
    """Why the tests cannot run here, or an empty text."""
    package = subprocess.run([sys.executable, "-c", "import lanner"], env=environment(), capture_output=True, text=True, check=False)
    if package.returncode != 0:
        return "DID NOT RUN: the tests of lanner serve gradio need the Python package: " + package.stderr.strip().splitlines()[-1]
    try:
        importlib.metadata.version("gradio")
    except importlib.metadata.PackageNotFoundError:
        return "DID NOT RUN: the tests of lanner serve gradio need Gradio, and there is none (pip install 'gradio>=6.20,<7')"
    if browser and not CHROMIUM:
        return "DID NOT RUN: the tests of Gradio's page need Chromium, and there is none (apt-get install chromium)"
    return ""


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def environment(**more):
    # The package as it was built, unless the caller says where it is.
    path = os.environ.get("PYTHONPATH") or str(BUILD / "python")
    return {**os.environ, "PYTHONPATH": path, "LANNER_PROGRAM": BINARY, **more}


def command(*arguments):
    return [sys.executable, "-m", "lanner", "serve", "gradio", *map(str, arguments)]


def run(*arguments, **more):
    """The command to its end."""
    return subprocess.run(command(*arguments), env=environment(**more), text=True, capture_output=True, timeout=60, check=False)


def children(pid):
    """The processes that a process has started."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(folder.name))
        except (OSError, IndexError):
            continue  # it has ended meanwhile
    return found


def alive(pid):
    """Whether a process is there, be it as a zombie."""
    return pathlib.Path(f"/proc/{pid}").exists()


class Ui:
    """The command over a server or a model, on a port of its own."""

    def __init__(self, *arguments, **more):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command(*arguments, "--server-port", "0"), env=environment(**more), text=True,
                                        stdout=subprocess.PIPE, stderr=self.errors)
        line = self.process.stdout.readline()
        found = re.match(r"server is gonna mount on: (http://\S+:\d+)$", line)
        if not found:
            self.process.kill()
        assert found, line + self.stderr()
        self.url = found[1]

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read()

    def stop(self, how=signal.SIGTERM):
        """The exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.communicate(timeout=30)
        return self.process.returncode


class Visitor:
    """A browser of its own with the page open in it."""

    def __init__(self, context, url):
        self.page = context.new_page()
        self.page.set_default_timeout(20_000)
        self.complaints = []  # of the browser: errors of scripts, and what the policy forbade
        self.requests = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda line: self.complaints.append(line.text) if line.type == "error" else None)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)
        self.page.wait_for_selector("#instruction textarea")

    def send(self, text):
        self.page.fill("#instruction textarea", text)
        self.page.press("#instruction textarea", "Enter")
        # (Playwright's own waiting would need what the page's policy forbids.)
        wait_for(lambda: self.page.input_value("#instruction textarea") == "")

    def set(self, slider, value):
        self.page.get_by_label(f"number input for {slider}").fill(str(value))
        self.page.keyboard.press("Tab")

    def idle(self):
        return self.page.is_disabled("#cancel")

    def ask(self, text):
        count = len(self.answers())
        self.send(text)
        wait_for(lambda: len(self.answers()) > count and self.idle())

    def questions(self):
        return self.page.locator("[data-testid=user]").all_inner_texts()

    def answers(self):
        return self.page.locator("[data-testid=bot]").all_inner_texts()

    def answer(self):
        return (self.answers() or [""])[-1]


class Scripted(http.server.ThreadingHTTPServer):
    """A server of OpenAI's protocol. A question is the name of what it does, or it is answered with "Echo: …"."""

    daemon_threads = True

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.asked = []  # the bodies
        self.headers = []
        self.left = 0  # clients that went away amid an answer
        self.say = {}  # answers to questions
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.gate = threading.Event()  # what a question "wait" waits for
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def end(self):
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.headers.append(dict(self.headers))
        self.reply(200, {"data": [{"id": "org/model <b>1</b> ${1+1}"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        question = body["messages"][-1]["content"]
        if question == "busy":
            self.reply(429, {"message": "Too many requests.", "error": {"message": "Too many requests."}})
        elif question == "long":
            text = "The prompt has 9000 tokens,\nmore than 8192."
            self.reply(400, {"error": {"message": text, "code": "context_length_exceeded"}})
        elif question == "garbage":
            self.reply(500, b"\xff<html>")
        else:
            self.stream(question)

    def stream(self, question):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            if question in ("wait", "silent"):
                if question == "wait":
                    self.event("begun")
                self.server.gate.wait(20)
                self.event(" ended")
            elif question == "fail":
                self.event("before")
                self.wfile.write(b'data: {"error": {"message": "The engine <b>failed</b>."}}\n\ndata: [DONE]\n\n')
                return
            elif question == "break":
                self.event("before")
                return
            elif question == "think":
                self.delta({"reasoning_content": "Hm, <i>so</i>"})
                self.event("Well")
            elif question == "endless":
                while True:
                    self.event("on ")
                    time.sleep(0.02)
            else:
                for letter in self.server.say.get(question, "Echo: " + question):
                    self.event(letter)
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.server.left += 1

    def event(self, text):
        self.delta({"content": text})

    def delta(self, delta):
        event = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        self.wfile.write(b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n")

    def reply(self, status, body):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass
