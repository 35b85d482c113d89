"""HTTPS with an authority of the tests' own: who is believed, and who is not; and proxies."""

import socket
import subprocess
import threading

import pytest

from fake_hub import FakeHub
from tiny_model import SMALL, WEIGHTS


def openssl(*arguments, cwd):
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    folder = tmp_path_factory.mktemp("authority")
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
            "-days", "2", "-subj", "/CN=Authority of the tests", cwd=folder)
    return folder


def certificate(authority, name, subject_names, days="2"):
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
            "-subj", f"/CN={name}", cwd=authority)
    (authority / f"{name}.ext").write_text(f"subjectAltName={subject_names}\n")
    openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", days,
            "-out", f"{name}.pem", "-extfile", f"{name}.ext", cwd=authority)
    return str(authority / f"{name}.pem"), str(authority / f"{name}.key")


@pytest.fixture
def secure_hub(authority, environment):
    hubs = []

    def start(name="good", subject_names="IP:127.0.0.1,DNS:localhost", **more):
        hub = FakeHub(certificate(authority, name, subject_names, **more)).start()
        hub.add("org/tiny", SMALL, {"model.safetensors": WEIGHTS})
        hubs.append(hub)
        environment.update(HF_ENDPOINT=hub.url, SSL_CERT_FILE=str(authority / "ca.pem"), LANNER_HUB_RETRIES="0")
        return hub

    yield start
    for hub in hubs:
        hub.stop()


def test_https(secure_hub, probe):
    hub = secure_hub()
    done = probe("find", "org/tiny")
    assert done.returncode == 0, done.stderr
    assert hub.url.startswith("https://") and hub.cdn_requests


def test_https_by_name(secure_hub, probe):
    hub = secure_hub()
    done = probe("twice", f"https://localhost:{hub.port}/api/models/org/tiny/revision/main")
    assert done.returncode == 0 and done.stdout.count("200 https://localhost") == 2, done.stderr


def test_an_unknown_authority(secure_hub, probe, environment):
    hub = secure_hub()
    environment["SSL_CERT_FILE"] = "/dev/null"
    done = probe("find", "org/tiny")
    assert done.returncode == 1
    assert "error corrupt: 127.0.0.1: its certificate is not accepted: unable to get local issuer certificate" in done.stderr
    assert not hub.requests


@pytest.mark.parametrize("subject_names", ["DNS:other.example", "IP:127.0.0.2", "DNS:*.local"])
def test_a_wrong_name(secure_hub, probe, subject_names):
    hub = secure_hub("wrong", subject_names)
    for host, text in (("127.0.0.1", "IP address mismatch"), ("localhost", "hostname mismatch")):
        done = probe("get", f"https://{host}:{hub.port}/x")
        assert done.returncode == 1 and f"error corrupt: {host}: its certificate is not accepted: {text}" in done.stderr
    assert not hub.requests


def test_an_expired_certificate(secure_hub, probe):
    hub = secure_hub("expired", days="-1")
    done = probe("find", "org/tiny")
    assert done.returncode == 1 and "its certificate is not accepted: certificate has expired" in done.stderr
    assert not hub.requests


def test_plain_http_on_the_secure_port(hub, probe, environment):
    environment["LANNER_HUB_RETRIES"] = "0"
    done = probe("get", f"https://127.0.0.1:{hub.port}/x")
    assert done.returncode == 1 and "TLS failed" in done.stderr


def test_https_is_not_left(secure_hub, hub, probe, environment):
    secure = secure_hub()
    environment["HF_TOKEN"] = "hf_secret"
    # On this machine alone it may be, without the token.
    secure.fault("/down", status=302, headers={"Location": hub.url + "/x"})
    done = probe("get", secure.url + "/down", "hf_secret")
    assert done.stdout.startswith(f"404 {hub.url}/x"), done.stderr
    assert "Authorization" not in hub.requests[-1][2]
    secure.fault("/away", status=302, headers={"Location": "http://hub.example/x"})
    done = probe("get", secure.url + "/away")
    assert done.returncode == 1
    assert "a redirect leads from https to http://hub.example, without encryption" in done.stderr


class Proxy(threading.Thread):
    """CONNECT, and whole addresses, to whatever host, which is always 127.0.0.1 in truth; keeps the heads it got."""

    def __init__(self, refuse=False):
        super().__init__(daemon=True)
        self.refuse = refuse
        self.heads = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.start()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(4096)
            if not data:
                return
            head += data
        self.heads.append(head.decode())
        if self.refuse:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            client.close()
            return
        method, target, _ = head.decode().split(" ", 2)
        port = int((target if method == "CONNECT" else target.split("/")[2]).rsplit(":", 1)[1])
        server = socket.create_connection(("127.0.0.1", port))
        if method == "CONNECT":
            client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
        else:
            server.sendall(head.replace(target.encode(), b"/" + target.split("/", 3)[3].encode(), 1))
        threading.Thread(target=self.copy, args=(server, client), daemon=True).start()
        self.copy(client, server)

    @staticmethod
    def copy(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.fixture
def proxy():
    proxy = Proxy()
    yield proxy
    proxy.listener.close()


def test_https_through_a_proxy(authority, secure_hub, probe, proxy, environment):
    # A name that only the proxy can reach: the client must not look it up, and checks the certificate for it.
    hub = secure_hub("named", "DNS:hub.example")
    environment["HTTPS_PROXY"] = f"http://me:p%40ss@{proxy.address}"
    done = probe("get", f"https://hub.example:{hub.port}/api/models/org/tiny/revision/main", "hf_secret")
    assert done.returncode == 0 and done.stdout.startswith("200 "), done.stderr
    assert proxy.heads[0].startswith(f"CONNECT hub.example:{hub.port} HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic bWU6cEBzcw==" in proxy.heads[0]  # me:p@ss
    assert "hf_secret" not in "".join(proxy.heads)
    assert hub.requests[0][2]["Authorization"] == "Bearer hf_secret" and "Proxy-Authorization" not in hub.requests[0][2]


def test_http_through_a_proxy(hub, probe, proxy, environment):
    environment["http_proxy"] = proxy.address
    done = probe("get", f"http://hub.example:{hub.port}/x")
    assert done.stdout.startswith("404 "), done.stderr
    assert proxy.heads[0].startswith(f"GET http://hub.example:{hub.port}/x HTTP/1.1\r\n")


def test_exceptions_from_the_proxy(hub, repo, probe, proxy, environment):
    environment.update(HTTP_PROXY=proxy.address, HTTPS_PROXY=proxy.address)
    assert probe("find", "org/tiny").returncode == 0  # this machine is never asked for through a proxy
    environment["NO_PROXY"] = "hub.example"
    environment["LANNER_HUB_RETRIES"] = "0"
    assert probe("get", "http://hub.example:1/x").returncode == 1
    assert not proxy.heads


def test_a_proxy_that_refuses(secure_hub, probe, environment):
    hub = secure_hub()
    proxy = Proxy(refuse=True)
    environment["HTTPS_PROXY"] = proxy.address
    done = probe("get", f"https://hub.example:{hub.port}/x")
    assert done.returncode == 1
    assert f"the proxy {proxy.address} refuses to connect to hub.example:{hub.port}: status 407" in done.stderr
    proxy.listener.close()
    environment["HTTPS_PROXY"] = "socks5://127.0.0.1:1"
    assert "only http:// proxies can be used" in probe("get", "https://hub.example/x").stderr
