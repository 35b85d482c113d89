"""A server that a test starts: the scripted one (PROBE) or the program (BINARY)."""
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import urllib.error
import urllib.request

import openai

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("LANNER_BUILD_DIR", str(REPOSITORY / "build")))
PROBE = os.environ.get("LANNER_SERVER_PROBE", str(BUILD / "src" / "server" / "server_probe"))
BINARY = os.environ.get("LANNER_BINARY", str(BUILD / "lanner"))


class Server:
    """A server that was started for a test, on a port of its own."""

    def __init__(self, command, environment=None, folder=None):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        env=environment, cwd=folder)
        self.output = ""
        self.port = None
        too_late = threading.Timer(60, self.process.kill)  # which ends the loop below
        too_late.start()
        for line in self.process.stdout:
            self.output += line
            found = re.search(r"^port (\d+)$|running on https?://\S+:(\d+)", line)
            if found:
                self.port = int(found[1] or found[2])
                break
        too_late.cancel()
        assert self.port, self.output
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self, how=signal.SIGTERM):
        """The exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.output += self.process.communicate(timeout=60)[0] or ""
        return self.process.returncode

    def client(self, key="none", **more):
        return openai.OpenAI(base_url=self.url + "/v1", api_key=key, max_retries=0, timeout=60, **more)

    def ask(self, path, body=None, headers=None, method=None, timeout=60):
        """(status, headers, body) of a request; `body` may be bytes or what becomes JSON."""
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method,
                                         headers={"Content-Type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                return reply.status, reply.headers, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()
