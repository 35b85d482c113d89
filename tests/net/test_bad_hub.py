"""Hubs that send wrong, refusing, slow, hostile or broken answers."""

import time

import pytest

from tiny_model import WEIGHTS, assert_whole


# Wrong content.

@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_wrong_checksum(hub, repo, probe, store, name):
    content = bytearray(repo.files[name])
    content[len(content) // 2] ^= 1
    hub.fault(f"/resolve/{repo.commit()}/{name}", content=bytes(content))
    if name in repo.large:
        hub.fault("/cdn/", content=bytes(content))
    hub.blobs[repo.etag(name)] = bytes(content)
    done = probe("find", "org/tiny")
    assert done.returncode == 1
    assert done.stderr.endswith(f"error corrupt: {name}: its checksum is wrong; what came has been deleted\n")
    assert not (store / "blobs" / repo.etag(name)).exists()
    assert not list((store / "blobs").glob("*.incomplete"))
    assert not (store / "refs").exists()


@pytest.mark.parametrize("lie", [-5, 5])
def test_a_wrong_length(hub, repo, probe, store, lie):
    hub.fault("/cdn/", lie=lie)
    done = probe("find", "org/tiny")
    assert done.returncode == 1
    assert f"error corrupt: model.safetensors: the hub announces {len(WEIGHTS) + lie} bytes" in done.stderr
    assert len(hub.cdn_requests) == 1


def test_no_length(hub, repo, probe, store):
    hub.fault("/cdn/", no_length=True)
    assert probe("find", "org/tiny").returncode == 0
    assert_whole(store, repo)


def test_no_length_and_cut_off(hub, repo, probe, store):
    hub.fault("/cdn/", no_length=True, break_after=1_000_000, times=1)
    done = probe("find", "org/tiny")
    assert done.returncode == 0, done.stderr
    assert "model.safetensors: the answer ends after 1000000 of 3000000 bytes; trying again" in done.stderr
    assert_whole(store, repo)


def test_more_than_the_list_says(hub, repo, probe, store):
    name = "tokenizer.json"
    hub.fault(f"/{name}", content=repo.small[name] + b"more", no_length=True)
    done = probe("find", "org/tiny")
    assert done.returncode == 1
    assert "tokenizer.json: the hub sends more than the 900 bytes of its list" in done.stderr


# Answers that are no files.

def test_an_unknown_model(hub, repo, probe):
    done = probe("find", "org/none")
    assert done.returncode == 1
    assert done.stderr.endswith(f"error not_found: org/none: is no local path, and {hub.url} has no such public model; "
                                "a private one needs a token (HF_TOKEN)\n")
    assert len(hub.requests) == 1  # asking again would not help


def test_a_private_model(hub, repo, probe, environment, store):
    repo.private_token = "hf_right"
    environment["HF_TOKEN"] = "hf_wrong"
    done = probe("find", "org/tiny")
    assert "does not accept the token" in done.stderr and "hf_wrong" not in done.stderr
    environment["HF_TOKEN"] = "hf_right"
    assert probe("find", "org/tiny").returncode == 0
    assert_whole(store, repo)


def test_a_gated_model(hub, repo, probe, environment):
    repo.gated = True
    for token in ("", "hf_some"):
        environment["HF_TOKEN"] = token
        done = probe("find", "org/tiny")
        assert done.stderr.endswith(f"error unsupported: org/tiny: is gated: accept its terms at {hub.url}/org/tiny and give a "
                                    "token of that account (HF_TOKEN, or `hf auth login`)\n")


@pytest.mark.parametrize("status, code, text", [
    (400, "io", "status 400"), (403, "unsupported", "denies access"), (404, "not_found", "has no such model"),
    (501, "io", "status 501"),
])
def test_a_refusal_is_final(hub, repo, probe, status, code, text):
    hub.fault("/api/", status=status)
    done = probe("find", "org/tiny")
    assert done.returncode == 1 and f"error {code}: org/tiny: " in done.stderr and text in done.stderr
    assert len(hub.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_passing_failure_is_waited_for(hub, repo, probe, store, status):
    hub.fault("/api/", status=status, times=2)
    hub.fault("/resolve/", status=status, times=2)
    hub.fault("/cdn/", status=status, times=2)
    assert probe("find", "org/tiny").returncode == 0
    assert_whole(store, repo)


def test_a_failure_that_does_not_pass(hub, repo, probe, environment):
    environment["LANNER_HUB_RETRIES"] = "2"
    hub.fault("/cdn/", status=503)
    done = probe("find", "org/tiny")
    assert done.returncode == 1 and done.stderr.endswith("error io: model.safetensors: status 503\n")
    assert len(hub.cdn_requests) == 3
    hub.fault("/api/", status=429)
    assert "gets too many requests" in probe("find", "org/tiny").stderr


def test_retry_after(hub, repo, probe):
    hub.fault("/api/", status=429, times=1, headers={"Retry-After": "1"})
    begin = time.monotonic()
    assert probe("find", "org/tiny").returncode == 0
    assert time.monotonic() - begin >= 1
    hub.repositories["org/other"] = repo
    hub.fault("/api/", status=503, times=1, headers={"Retry-After": "3600"})
    begin = time.monotonic()
    assert probe("find", "org/other").returncode == 1
    assert time.monotonic() - begin < 20


def test_a_hub_that_is_not_there(probe, environment):
    environment["HF_ENDPOINT"] = "http://127.0.0.1:1"
    environment["LANNER_HUB_RETRIES"] = "1"
    done = probe("find", "org/tiny")
    assert done.returncode == 1 and "error io: 127.0.0.1:1: Connection refused" in done.stderr


# Redirects.

def test_the_token_stays_with_the_hub(hub, repo, probe, environment):
    environment["HF_TOKEN"] = "hf_secret"
    assert probe("find", "org/tiny").returncode == 0
    assert all(headers.get("Authorization") == "Bearer hf_secret" for _, _, headers in hub.requests)
    assert hub.cdn_requests and not any("Authorization" in headers for _, _, headers in hub.cdn_requests)


def test_the_token_of_the_file(hub, repo, probe, environment, tmp_path):
    home = tmp_path / "hf"
    home.mkdir()
    (home / "token").write_text("hf_of_file\n")
    environment["HF_HOME"] = str(home)
    done = probe("find", "org/tiny")
    assert done.stdout.startswith(str(home / "hub"))
    assert all(headers.get("Authorization") == "Bearer hf_of_file" for _, _, headers in hub.requests)
    environment["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"
    hub.requests.clear()
    assert probe("get", hub.url + "/x").returncode == 0
    assert "Authorization" not in hub.requests[-1][2]


def test_chains_and_loops(hub, repo, probe):
    hub.fault("/chain/0", status=302, headers={"Location": "1?x=1"}, times=1)
    hub.fault("/chain/1", status=307, headers={"Location": f"{hub.cdn_url}/chain/2"}, times=1)
    hub.fault("/chain/2", status=301, headers={"Location": f"{hub.url}/chain/3"}, times=1)
    hub.fault("/chain/3", status=200, body=b"the end")
    done = probe("get", hub.url + "/chain/0", "token")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"200 {hub.url}/chain/3\n") and done.stdout.endswith("the end")
    # Once the token is gone, it stays away, back at the first origin too.
    assert ["Authorization" in headers for _, path, headers in hub.requests if "/chain/" in path] == [True, True, False]
    looped = probe("get", hub.url + "/loop")
    assert looped.returncode == 1 and "error corrupt: " + hub.url + ": more than 10 redirects" in looped.stderr
    assert sum(path == "/loop" for path in hub.paths()) == 11


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://user:pw@127.0.0.1/", "http://a b/"])
def test_redirects_to_nowhere(hub, repo, probe, location):
    hub.fault("/x", status=302, headers={"Location": location})
    done = probe("get", hub.url + "/x")
    assert done.returncode == 1 and "a redirect leads nowhere" in done.stderr


# Slow servers.

def test_a_head_that_drips(hub, repo, probe, environment):
    environment.update(HF_HUB_ETAG_TIMEOUT="0.5", LANNER_HUB_RETRIES="1")
    hub.fault("/api/", drip=0.05)
    begin = time.monotonic()
    done = probe("find", "org/tiny")
    assert done.returncode == 1 and "no answer in time" in done.stderr
    assert time.monotonic() - begin < 5
    assert len(hub.requests) == 2


def test_a_body_that_stops(hub, repo, probe, store, environment):
    environment["HF_HUB_DOWNLOAD_TIMEOUT"] = "0.5"
    hub.fault("/cdn/", stall_after=1_000_000, times=1)
    assert probe("find", "org/tiny").returncode == 0
    assert_whole(store, repo)
    assert hub.cdn_requests[-1][2]["Range"] == "bytes=1000000-"


def test_a_body_that_trickles(hub, repo, probe, store, environment):
    environment["HF_HUB_DOWNLOAD_TIMEOUT"] = "0.4"
    hub.fault("/cdn/", trickle=0.1, times=1)
    done = probe("find", "org/tiny")
    assert done.returncode == 0, done.stderr
    assert "the answer comes too slowly; trying again" in done.stderr
    assert_whole(store, repo)


# Hostile answers.

@pytest.mark.parametrize("path", ["../../../evil", "/etc/evil", "a/../../evil", "a//b", "a\\..\\b", "x\u0000y", "a/./b", "",
                                  "n" * 300, "\u001b[31mred"])
def test_hostile_names(hub, repo, probe, tmp_path, cache, path):
    repo.listing_patch = lambda entries: entries + [{"type": "file", "path": path, "size": 1, "oid": "a" * 40}]
    done = probe("find", "org/tiny")
    assert done.returncode == 1 and "error corrupt: " in done.stderr and "lists a file called" in done.stderr
    assert "\x1b" not in done.stderr and not cache.exists()
    assert done.stderr.count("\n") == 2


@pytest.mark.parametrize("change", [
    {"size": -1}, {"size": 2**63}, {"size": 2**50}, {"size": "1"}, {"size": None}, {"size": 1.5}, {"oid": "../../x"},
    {"oid": "A" * 40}, {"oid": None}, {"oid": "a" * 41}, {"path": None}, {"path": 5}, {"lfs": {"oid": "x", "size": 1}},
    {"lfs": {"size": 1}},
])
def test_hostile_entries(hub, repo, probe, cache, change):
    repo.listing_patch = lambda entries: [{**entry, **change} if entry["path"] == "config.json" else entry for entry in entries]
    done = probe("find", "org/tiny")
    assert done.returncode == 1 and "error corrupt: " in done.stderr
    assert not cache.exists()


@pytest.mark.parametrize("body", [
    b"", b"null", b"3", b'"x"', b"{}", b"[[]]", b"[null]", b"{" * 100, b"[" * 100_000, b'{"a":' * 50 + b"1" + b"}" * 50, b"\xff\xfe",
    b"[" + b"1," * 5_000_000 + b"1]",
])
@pytest.mark.parametrize("part", ["/revision/", "/tree/"])
def test_hostile_json(hub, repo, probe, cache, part, body):
    hub.fault(part, body=body)
    done = probe("find", "org/tiny")
    assert done.returncode == 1 and ("error corrupt: " in done.stderr or body in (b"{}", b"[[]]"))
    assert not cache.exists()


def test_a_huge_answer_is_not_read(hub, repo, probe):
    # It announces 100 GB, or announces nothing and does not end.
    hub.fault("/revision/", raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n[")
    assert "the answer is longer than 16777216 bytes" in probe("find", "org/tiny").stderr
    done = probe("get", hub.url + "/revision/x")
    assert done.returncode == 1 and "the answer is longer than 16777216 bytes" in done.stderr


@pytest.mark.parametrize("raw, text", [
    (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", "not proper HTTP"),
    (b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 5_000 + b"\r\n", "not proper HTTP"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "not proper HTTP"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", "not proper HTTP"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nhello", "not proper HTTP"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nhello\r\n0\r\n\r\n", "not proper HTTP"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello", "not proper HTTP"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "broke off"),
    (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx", "content encoding that nobody asked for"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello", "broke off"),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 20, "too many interim answers"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "not proper HTTP"),
    (b"", "closed the connection without an answer"),
])
def test_broken_http(hub, repo, probe, raw, text):
    hub.fault("/raw", raw=raw)
    done = probe("get", hub.url + "/raw")
    assert done.returncode == 1 and text in done.stderr


def test_interim_answers_are_passed_over(hub, repo, probe):
    hub.fault("/raw", raw=b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    done = probe("get", hub.url + "/raw")
    assert done.stdout.startswith("200 ") and done.stdout.endswith("ok"), done.stderr


def test_a_listing_that_goes_on_nowhere(hub, repo, probe):
    hub.page_size = 2
    hub.fault("/tree/", next_origin="ftp://hub.example")
    done = probe("find", "org/tiny")
    assert done.returncode == 1
    assert f"error corrupt: {hub.url}: the list of files goes on nowhere: 'ftp://hub.example/" in done.stderr


def test_a_listing_that_goes_on_elsewhere(hub, repo, probe, environment):
    environment["HF_TOKEN"] = "hf_secret"
    hub.page_size = 2
    hub.fault("/tree/", next_origin=hub.cdn_url)
    done = probe("find", "org/tiny")
    assert done.returncode == 1 and "the list of files goes on at " + hub.cdn_url in done.stderr
    assert not hub.cdn_requests
