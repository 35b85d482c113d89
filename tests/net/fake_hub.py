"""A hub on 127.0.0.1 for the tests: the parts of the Hugging Face hub's and of ModelScope's HTTP API that clients use to
download, with every misbehaviour that a test asks for.

    hub = FakeHub(); hub.start()
    repo = hub.add("org/tiny", {"config.json": b"{}"}, large={"model.safetensors": b"…"})
    hub.fault("/resolve/", break_after=1000, times=1)
    hub.requests     # what came: (method, path, headers)
    hub.stop()

Large files are redirected to a second server (`hub.cdn`), another origin, as the real hub does.
"""

import hashlib
import http.server
import json
import random
import socket
import ssl
import threading
import time
import urllib.parse


def git_blob_sha1(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class Repository:
    def __init__(self, name, small, large):
        self.name = name
        self.small = dict(small)
        self.large = dict(large)
        self.revisions = {}
        self.gated = False
        self.private_token = None
        self.modelscope_checksums = {}  # in place of the true ones
        self.listing_patch = None  # changes the list of tree entries before it is sent
        self.move("main")

    @property
    def files(self):
        return {**self.small, **self.large}

    def move(self, revision):
        """The revision is at a new commit now, which has today's files."""
        text = repr((self.name, revision, len(self.revisions), sorted(self.files.items())))
        self.revisions[revision] = hashlib.sha1(text.encode()).hexdigest()
        return self.revisions[revision]

    def commit(self, revision="main"):
        return self.revisions[revision]

    def etag(self, path):
        return sha256(self.large[path]) if path in self.large else git_blob_sha1(self.small[path])

    def tree(self):
        entries = [{"type": "directory", "path": "folder", "size": 0, "oid": "0" * 40}]
        for path, content in self.small.items():
            entries.append({"type": "file", "path": path, "size": len(content), "oid": git_blob_sha1(content)})
        for path, content in self.large.items():
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(content)}\nsize {len(content)}\n"
            entries.append({"type": "file", "path": path, "size": len(content), "oid": git_blob_sha1(pointer.encode()),
                            "lfs": {"oid": sha256(content), "size": len(content), "pointerSize": len(pointer)}})
        return self.listing_patch(entries) if self.listing_patch else entries


class Fault:
    """What goes wrong with requests whose path holds `part`: the first `times` of them, after `skip`."""

    def __init__(self, part, times=10**9, skip=0, method=None, **what):
        self.part, self.times, self.skip, self.method, self.what = part, times, skip, method, what

    def take(self, method, path):
        if self.part not in path or (self.method and self.method != method) or self.times <= 0:
            return None
        if self.skip > 0:
            self.skip -= 1
            return None
        self.times -= 1
        return self.what


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub = None
    is_cdn = False

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send(200, b"posted " + body)

    def answer(self):
        self.hub.record(self, self.is_cdn)
        fault = self.hub.fault_for(self.command, self.path) or {}
        if "delay" in fault:
            time.sleep(fault["delay"])
        if "raw" in fault:
            self.wfile.write(fault["raw"])
            self.close_connection = True
            return None
        if "drip" in fault:
            return self.drip(fault["drip"])
        if "status" in fault:
            return self.send(fault["status"], fault.get("body", b"no"), fault.get("headers", {}))
        path, _, query = self.path.partition("?")
        query = {name: values[0] for name, values in urllib.parse.parse_qs(query).items()}
        if path.startswith("/api/v1/models/"):
            return self.modelscope(path.removeprefix("/api/v1/models/"), query, fault)
        if path.startswith("/api/models/"):
            return self.api(path.removeprefix("/api/models/"), query, fault)
        if path.startswith("/cdn/"):
            return self.content(self.hub.blobs[path.removeprefix("/cdn/")], {}, fault)
        if path.startswith("/loop"):
            return self.send(302, b"", {"Location": "/loop"})
        if "/resolve/" in path:
            return self.resolve(path, fault)
        return self.send(404, b"nothing here")

    def drip(self, pause):
        """A byte now and then, for as long as the client bears it."""
        self.close_connection = True
        try:
            for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 10_000:
                self.wfile.write(bytes([byte]))
                time.sleep(pause)
        except OSError:
            pass

    def access(self, name):
        """The repository, when it is there and the token is right; else the refusal has been sent."""
        repo = self.hub.repositories.get(name)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if repo is None or (repo.private_token and repo.private_token != token):
            self.send(404 if token and repo is None else 401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return None
        if repo.gated:
            self.send(403 if token else 401, b"{}", {"X-Error-Code": "GatedRepo"})
            return None
        return repo

    def api(self, path, query, fault):
        parts = [urllib.parse.unquote(part) for part in path.split("/")]  # a branch may hold a slash
        repo = self.access("/".join(parts[:2]))
        if repo is None:
            return None
        kind = parts[2] if len(parts) > 2 else "revision"
        revision = parts[3] if len(parts) > 3 else "main"
        commit = repo.revisions.get(revision, revision if revision in repo.revisions.values() else None)
        if commit is None:
            return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if kind == "revision":
            facts = {"id": repo.name, "sha": commit, "siblings": [{"rfilename": path} for path in repo.files],
                     "private": False, "tags": [], "downloads": 0, "likes": 0}
            return self.send(200, fault.get("body", json.dumps(facts).encode()))
        entries = repo.tree()
        headers = {}
        size = self.hub.page_size
        if size:
            begin = int(query.get("cursor", 0))
            if begin + size < len(entries):
                origin = fault.get("next_origin", self.hub.url)
                headers["Link"] = f'<{origin}/api/models/{path}?recursive=true&cursor={begin + size}>; rel="next"'
            entries = entries[begin:begin + size]
        return self.send(200, fault.get("body", json.dumps(entries).encode()), headers)

    def resolve(self, path, fault):
        name, _, rest = path.lstrip("/").partition("/resolve/")
        revision, _, file = (urllib.parse.unquote(part) for part in rest.partition("/"))
        repo = self.access(name)
        if repo is None:
            return None
        if file not in repo.files:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        commit = repo.revisions.get(revision, revision)
        content = repo.files[file]
        etag = fault.get("etag", repo.etag(file))
        if file in repo.small:
            return self.content(fault.get("content", content), {"ETag": f'"{etag}"', "X-Repo-Commit": commit}, fault)
        self.hub.blobs[sha256(content)] = fault.get("content", content)
        location = fault.get("location", f"{self.hub.cdn_url}/cdn/{sha256(content)}?signature=secret")
        return self.send(302, b"moved", {"Location": location, "X-Linked-Etag": f'"{etag}"',
                                         "X-Linked-Size": str(len(content)), "X-Repo-Commit": commit,
                                         "ETag": '"0123"'})

    def modelscope(self, path, query, fault):
        parts = path.split("/")
        repo = self.hub.repositories.get("/".join(parts[:2]))
        if repo is None:
            return self.send(404, b'{"Code": 10010205001, "Message": "not found"}')
        if parts[2:] == ["repo", "files"] and query["Revision"] != "master":
            return self.send(200, b'{"Code": 10010205002, "Message": "no such revision", "Success": false}')
        if parts[2:] == ["repo", "files"]:
            files = [{"Name": path.split("/")[-1], "Path": path, "Type": "blob", "Size": len(content),
                      "Sha256": repo.modelscope_checksums.get(path, sha256(content))} for path, content in repo.files.items()]
            files.append({"Name": "folder", "Path": "folder", "Type": "tree", "Size": 0, "Sha256": ""})
            return self.send(200, json.dumps({"Code": 200, "Data": {"Files": files}, "Success": True}).encode())
        return self.content(repo.files[query["FilePath"]], {}, fault)

    def content(self, content, headers, fault):
        """A file, or the part of it that Range asks for, with what `fault` spoils."""
        status, begin = 200, 0
        wanted = self.headers.get("Range")
        if wanted and not fault.get("ignore_range"):
            begin = int(wanted.removeprefix("bytes=").partition("-")[0])
            if begin >= len(content):
                return self.send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            status = 206
            headers = {**headers, "Content-Range": f"bytes {begin + fault.get('shift', 0)}-{len(content) - 1}/{len(content)}"}
        body = content[begin:]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if not fault.get("no_length"):
            self.send_header("Content-Length", str(len(body) + fault.get("lie", 0)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return None
        if "break_after" in fault:
            self.wfile.write(body[:fault["break_after"]])
            self.wfile.flush()
            self.close_connection = True
            return None
        if "stall_after" in fault:
            self.wfile.write(body[:fault["stall_after"]])
            self.wfile.flush()
            self.hub.stalled.set()
            self.hub.go_on.wait(fault.get("stall_for", 60))
            self.close_connection = True
            return None
        if "trickle" in fault:  # bytes, one each so many seconds
            self.close_connection = True
            try:
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    time.sleep(fault["trickle"])
            except OSError:
                pass
            return None
        self.wfile.write(body)
        if fault.get("no_length"):
            self.close_connection = True
        return None

    def send(self, status, body, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    # A closed client is no news.
    def handle_error(self, request, client_address):
        pass


class FakeHub:
    def __init__(self, certificate=None):
        self.repositories = {}
        self.blobs = {}
        self.faults = []
        self.requests = []
        self.cdn_requests = []
        self.page_size = 0
        self.stalled = threading.Event()
        self.go_on = threading.Event()
        self.lock = threading.Lock()
        self.servers = []
        scheme = "https" if certificate else "http"
        for is_cdn in (False, True):
            handler = type("BoundHandler", (Handler,), {"hub": self, "is_cdn": is_cdn})
            server = Server(("127.0.0.1", 0), handler)
            if certificate:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*certificate)
                server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            self.servers.append(server)
        self.port = self.servers[0].server_address[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        # Another host by name, too: Python's client takes two ports of one host for one.
        self.cdn_url = f"{scheme}://localhost:{self.servers[1].server_address[1]}"

    def start(self):
        for server in self.servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        self.go_on.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def add(self, name, small, large=None):
        self.repositories[name] = Repository(name, small, large or {})
        return self.repositories[name]

    def fault(self, part, **what):
        self.faults.append(Fault(part, **what))

    def fault_for(self, method, path):
        with self.lock:
            for fault in self.faults:
                what = fault.take(method, path)
                if what is not None:
                    return what
        return None

    def record(self, handler, is_cdn):
        with self.lock:
            (self.cdn_requests if is_cdn else self.requests).append(
                (handler.command, handler.path, dict(handler.headers.items())))

    def paths(self):
        return [path for _, path, _ in self.requests]


def random_bytes(count, seed):
    return random.Random(seed).randbytes(count)


def unused_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
