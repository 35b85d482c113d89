"""Whole downloads from a hub on loopback, and everything that may go wrong on the way."""

import hashlib
import json
import os
import resource
import signal
import time

import pytest

from fake_hub import FakeHub, git_blob_sha1, random_bytes, sha256
from tiny_model import SMALL, WANTED, WEIGHTS, assert_whole


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_whole_download(hub, repo, probe, store):
    done = probe("find", "org/tiny")
    assert done.returncode == 0, done.stderr
    folder = assert_whole(store, repo)
    assert done.stdout == f"{folder}\n"
    assert (store / "refs" / "main").read_text() == repo.commit()
    total = sum(len(repo.files[name]) for name in WANTED)
    assert f"progress {total} {total} 0 1.000\n" in done.stderr
    assert f"note: downloading org/tiny from {hub.url}" in done.stderr and "5 files, 3.0 MB" in done.stderr
    assert not any("README" in path or ".py" in path or ".bin" in path for path in hub.paths())
    assert all(headers["User-Agent"].startswith("lanner/") for _, _, headers in hub.requests)
    # Weights come last, so that a folder with weights has the rest.
    assert hub.paths()[-1].endswith("/model.safetensors")


def test_the_second_time_nobody_is_asked(hub, repo, probe):
    first = probe("find", "org/tiny")
    count = len(hub.requests)
    hub.stop()
    second = probe("find", "org/tiny")
    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert len(hub.requests) == count


def test_a_local_path_wins(hub, repo, probe, tmp_path):
    (tmp_path / "org" / "tiny").mkdir(parents=True)
    done = probe("find", "org/tiny", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "org/tiny\n")
    assert not hub.requests


def test_sharded_weights_and_pages(hub, probe, cache):
    shards = {f"model-0000{i}-of-00003.safetensors": random_bytes(50_000, i) for i in (1, 2, 3)}
    index = json.dumps({"weight_map": {f"t{i}": name for i, name in enumerate(shards)}}).encode()
    repo = hub.add("org/large", {**SMALL, "model.safetensors.index.json": index, "folder/x.json": b"{}"},
                   {**shards, "consolidated.safetensors": b"the same again", "model-left-over.safetensors": b"x"})
    hub.page_size = 2
    done = probe("find", "org/large")
    assert done.returncode == 0, done.stderr
    wanted = WANTED - {"model.safetensors"} | {"model.safetensors.index.json"} | set(shards)
    assert_whole(cache / "models--org--large", repo, wanted)
    assert sum("/tree/" in path for path in hub.paths()) == (len(repo.files) + 1 + 1) // 2
    # A shard that goes missing is noticed, and is all that is fetched.
    (cache / "models--org--large" / "blobs" / repo.etag("model-00002-of-00003.safetensors")).unlink()
    hub.cdn_requests.clear()
    assert probe("find", "org/large").returncode == 0
    assert len(hub.cdn_requests) == 1
    assert_whole(cache / "models--org--large", repo, wanted)


def test_pytorch_weights_where_there_is_nothing_else(hub, probe, cache):
    repo = hub.add("org/old", {name: SMALL[name] for name in ("config.json", "tokenizer.json")},
                   {"pytorch_model.bin": random_bytes(1000, 3)})
    assert probe("find", "org/old").returncode == 0
    assert_whole(cache / "models--org--old", repo, {"config.json", "tokenizer.json", "pytorch_model.bin"})


def test_an_empty_file(hub, probe, cache):
    repo = hub.add("org/empty", {**SMALL, "merges.txt": b""}, {"model.safetensors": WEIGHTS})
    assert probe("find", "org/empty").returncode == 0
    assert_whole(cache / "models--org--empty", repo, WANTED | {"merges.txt"})


# Revisions.

def test_a_branch_a_tag_and_a_commit(hub, repo, probe, store):
    old = repo.commit()
    repo.large["model.safetensors"] = random_bytes(1000, 5)
    new = repo.move("v2/test")
    done = probe("find", "org/tiny", "v2/test")
    assert done.stdout.strip().endswith(new), done.stderr
    assert (store / "refs" / "v2" / "test").read_text() == new
    assert (store / "snapshots" / new / "model.safetensors").read_bytes() == random_bytes(1000, 5)
    count = len(hub.requests)
    assert probe("find", "org/tiny", new).stdout == done.stdout
    assert len(hub.requests) == count  # a commit that is here needs no hub
    assert probe("find", "org/tiny", old).returncode == 0
    assert not (store / "refs" / old).exists()
    missing = probe("find", "org/tiny", "nightly")
    assert missing.returncode == 1
    assert missing.stderr.endswith("error not_found: org/tiny: has no revision 'nightly'\n")
    assert "error invalid_argument" in probe("find", "org/tiny", "../../x").stderr


def test_another_folder(hub, repo, probe, tmp_path, cache):
    done = probe("find", "org/tiny", "main", tmp_path / "elsewhere")
    assert done.stdout.startswith(str(tmp_path / "elsewhere" / "models--org--tiny"))
    assert not cache.exists()


# Broken connections.

def test_resumes_after_the_connection_breaks(hub, repo, probe, store):
    hub.fault("/cdn/", break_after=1_000_000, times=2)
    done = probe("find", "org/tiny")
    assert done.returncode == 0, done.stderr
    assert_whole(store, repo)
    ranges = [headers.get("Range") for _, _, headers in hub.cdn_requests]
    assert ranges == [None, "bytes=1000000-", "bytes=2000000-"]
    assert done.stderr.count("the connection broke off; trying again") == 2


def test_resumes_in_the_next_start(hub, repo, probe, store, environment):
    environment["LANNER_HUB_RETRIES"] = "0"
    hub.fault("/cdn/", break_after=1_234_567, times=1)
    done = probe("find", "org/tiny")
    assert done.returncode == 1
    assert "error io: model.safetensors: localhost:" in done.stderr and "the connection broke off" in done.stderr
    partial = store / "blobs" / f"{sha256(WEIGHTS)}.incomplete"
    assert partial.read_bytes() == WEIGHTS[:1_234_567]
    assert not (store / "refs" / "main").exists()
    again = probe("find", "org/tiny")
    assert again.returncode == 0, again.stderr
    assert_whole(store, repo)
    assert hub.cdn_requests[-1][2]["Range"] == "bytes=1234567-"
    assert "1.2 MB already here" in again.stderr
    assert f"progress {len(WEIGHTS)} {len(WEIGHTS)} 1234567 1.000" in again.stderr


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_download_goes_on(hub, repo, probe, start_probe, store, kill):
    hub.fault("/cdn/", stall_after=2_000_000, times=1)
    process = start_probe("find", "org/tiny")
    assert hub.stalled.wait(20)
    partial = store / "blobs" / f"{sha256(WEIGHTS)}.incomplete"
    until = time.monotonic() + 10
    while not (partial.exists() and partial.stat().st_size == 2_000_000):
        assert time.monotonic() < until
        time.sleep(0.02)
    begin = time.monotonic()
    process.send_signal(kill)
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - begin < 10
    assert process.returncode == (-signal.SIGKILL if kill == signal.SIGKILL else 1)
    if kill == signal.SIGINT:
        assert "error cancelled: model.safetensors: stopped on request" in errors
    assert partial.stat().st_size == 2_000_000
    assert probe("find", "org/tiny").returncode == 0
    assert_whole(store, repo)
    assert hub.cdn_requests[-1][2]["Range"] == "bytes=2000000-"


def test_a_server_that_ignores_ranges(hub, repo, probe, store):
    hub.fault("/cdn/", break_after=1_000_000, times=1)
    hub.fault("/cdn/", ignore_range=True)
    done = probe("find", "org/tiny")
    assert done.returncode == 0, done.stderr
    assert_whole(store, repo)
    assert f"progress {len(WEIGHTS)}" in done.stderr.replace(str(sum(len(repo.files[n]) for n in WANTED)), str(len(WEIGHTS)))


def test_a_server_that_sends_another_range(hub, repo, probe, store):
    hub.fault("/cdn/", break_after=1_000_000, times=1)
    hub.fault("/cdn/", shift=7, times=1)
    assert probe("find", "org/tiny").returncode == 0
    assert_whole(store, repo)
    assert [headers.get("Range") for _, _, headers in hub.cdn_requests] == [None, "bytes=1000000-", None]


def test_a_partial_file_that_is_wrong(hub, repo, probe, store):
    partial = store / "blobs" / f"{sha256(WEIGHTS)}.incomplete"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"rubbish" * 1000)
    assert probe("find", "org/tiny").returncode == 0
    assert_whole(store, repo)
    # Longer than the file: nothing of it can be right.
    (store / "blobs" / sha256(WEIGHTS)).unlink()
    partial.write_bytes(WEIGHTS + b"more")
    assert probe("find", "org/tiny").returncode == 0
    assert_whole(store, repo)


def test_a_partial_file_that_is_a_link(hub, repo, probe, store, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"keep me")
    partial = store / "blobs" / f"{sha256(WEIGHTS)}.incomplete"
    partial.parent.mkdir(parents=True)
    partial.symlink_to(victim)
    assert probe("find", "org/tiny").returncode == 1
    assert victim.read_bytes() == b"keep me"


def test_a_file_that_changes_while_it_is_fetched(hub, repo, probe, store, environment):
    environment["LANNER_HUB_RETRIES"] = "0"
    hub.fault("/cdn/", break_after=1_000_000, times=1)
    assert probe("find", "org/tiny").returncode == 1
    repo.large["model.safetensors"] = random_bytes(2_500_000, 9)
    repo.move("main")
    done = probe("find", "org/tiny")
    assert done.returncode == 0, done.stderr
    folder = store / "snapshots" / repo.commit()
    assert (folder / "model.safetensors").read_bytes() == random_bytes(2_500_000, 9)
    assert "Range" not in hub.cdn_requests[-1][2]


def test_an_etag_that_is_not_the_listed_one(hub, repo, probe, store, environment):
    environment["LANNER_HUB_RETRIES"] = "0"
    hub.fault("/cdn/", break_after=1_000_000, times=1)
    assert probe("find", "org/tiny").returncode == 1
    hub.fault("/resolve/", etag="0" * 64, times=1)
    done = probe("find", "org/tiny")
    assert done.returncode == 1
    assert "error corrupt: model.safetensors: has changed on the hub since it was listed; start again" in done.stderr
    assert not list((store / "blobs").glob("*.incomplete"))
    assert probe("find", "org/tiny").returncode == 0
    assert_whole(store, repo)


# Disks.

def test_a_disk_that_is_too_small(hub, repo, probe, cache):
    def grow(entries):
        return [{**entry, "lfs": {**entry["lfs"], "size": 2**43}} if "lfs" in entry else entry for entry in entries]

    repo.listing_patch = grow
    done = probe("find", "org/tiny")
    assert done.returncode == 1 and "error resource_exhausted: " in done.stderr and "the download needs 8796.1 GB" in done.stderr
    assert not hub.cdn_requests and not cache.exists()


def test_a_disk_that_fills_up(hub, repo, probe, store):
    """A limit on the size of files stands for the full disk, since it holds for root as well: write() fails with EFBIG, as it
    would with ENOSPC, once the signal that comes with it is ignored."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    done = probe("find", "org/tiny", preexec_fn=limit)
    assert done.returncode == 1
    assert "error resource_exhausted: " in done.stderr and "make room and start again" in done.stderr
    partial = store / "blobs" / f"{sha256(WEIGHTS)}.incomplete"
    assert partial.read_bytes() == WEIGHTS[:2_000_000]
    assert probe("find", "org/tiny").returncode == 0
    assert_whole(store, repo)
    assert hub.cdn_requests[-1][2]["Range"] == "bytes=2000000-"


# Company.

def test_two_processes_at_once(hub, repo, start_probe, store):
    hub.fault("/cdn/", delay=0.5)
    processes = [start_probe("find", "org/tiny") for _ in range(3)]
    answers = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], answers
    assert len({stdout for stdout, _ in answers}) == 1
    assert_whole(store, repo)
    assert len(hub.cdn_requests) == 1
    assert any("waiting for another process that downloads" in stderr for _, stderr in answers)


def test_offline(hub, repo, probe, environment, store):
    environment["HF_HUB_OFFLINE"] = "1"
    done = probe("find", "org/tiny")
    assert done.returncode == 1 and "error not_found: org/tiny: is neither a local path nor in the cache" in done.stderr
    environment["HF_HUB_OFFLINE"] = "0"
    assert probe("find", "org/tiny").returncode == 0
    del environment["HF_HUB_OFFLINE"]
    environment["TRANSFORMERS_OFFLINE"] = "True"
    count = len(hub.requests)
    assert probe("find", "org/tiny").returncode == 0
    (store / "blobs" / repo.etag("model.safetensors")).unlink()
    lacking = probe("find", "org/tiny")
    assert lacking.returncode == 1 and "org/tiny: lacks weights in the cache" in lacking.stderr
    assert len(hub.requests) == count


@pytest.mark.parametrize("name", ["tiny", "./org/tiny", "a/b/c", "/no/such", "org/..", "~/x"])
def test_what_is_no_id(hub, probe, name):
    done = probe("find", name)
    assert done.returncode == 1 and f"error not_found: {name}: is no local path, and no model of a hub" in done.stderr
    assert not hub.requests


# GGUF.

def test_gguf_repositories(hub, probe, cache):
    files = {f"tiny-{kind}.gguf": random_bytes(10_000, i) for i, kind in enumerate(("Q4_0", "Q4_K_M", "Q8_0"))}
    repo = hub.add("org/tiny-GGUF", {"README.md": b"x", "config.json": b"{}"}, {**files, "BF16/tiny-BF16.gguf": b"bf16"})
    unclear = probe("find", "org/tiny-GGUF")
    assert unclear.returncode == 1
    assert "say which, as in org/tiny-GGUF:Q4_K_M" in unclear.stderr and "tiny-Q8_0.gguf" in unclear.stderr
    assert not cache.exists()
    for selector, name in (("q4_k_m", "tiny-Q4_K_M.gguf"), ("tiny-Q4_0.gguf", "tiny-Q4_0.gguf"), ("BF16", "BF16/tiny-BF16.gguf")):
        done = probe("find", f"org/tiny-GGUF:{selector}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(cache / "models--org--tiny-GGUF" / "snapshots" / repo.commit() / name)
        with open(done.stdout.strip(), "rb") as file:
            assert file.read() == repo.files[name]
    count = len(hub.requests)
    assert probe("find", "org/tiny-GGUF:Q4_0").returncode == 0
    assert len(hub.requests) == count
    assert probe("find", "org/tiny-GGUF:Q3_K").returncode == 1
    hub.add("org/single", {}, {"one.gguf": b"1"})
    assert probe("find", "org/single").stdout.strip().endswith("/one.gguf")


# ModelScope.

def test_modelscope(hub, probe, environment, tmp_path):
    repo = hub.add("org/tiny-1.8b", SMALL, {"model.safetensors": WEIGHTS})
    environment.update(LMDEPLOY_USE_MODELSCOPE="True", MODELSCOPE_DOMAIN=hub.url, MODELSCOPE_CACHE=str(tmp_path / "ms"))
    hub.fault("FilePath=model.safetensors", break_after=1_000_000, times=1)
    done = probe("find", "org/tiny-1.8b")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "ms" / "models" / "org" / "tiny-1___8b"
    assert done.stdout == f"{folder}\n"
    assert files_of(folder) == {name: repo.files[name] for name in WANTED}
    assert hub.requests[-1][2]["Range"] == "bytes=1000000-"
    assert "/api/v1/models/org/tiny-1.8b/repo/files?Revision=master&Recursive=true" in hub.paths()
    count = len(hub.requests)
    assert probe("find", "org/tiny-1.8b").stdout == done.stdout
    assert len(hub.requests) == count
    # A file with the right size and other content is not the listed one.
    (folder / "model.safetensors").unlink()
    (folder / "tokenizer.json").write_bytes(b"x" * len(SMALL["tokenizer.json"]))
    assert probe("find", "org/tiny-1.8b").returncode == 0
    assert files_of(folder) == {name: repo.files[name] for name in WANTED}
    assert "has no such model" in probe("find", "org/none").stderr


def test_modelscope_checks_what_comes(hub, probe, environment, tmp_path):
    hub.add("org/tiny", SMALL, {"model.safetensors": WEIGHTS})
    environment.update(LMDEPLOY_USE_MODELSCOPE="1", MODELSCOPE_DOMAIN=hub.url, MODELSCOPE_CACHE=str(tmp_path / "ms"))
    hub.fault("FilePath=model.safetensors", lie=1)
    assert "the hub announces" in probe("find", "org/tiny").stderr
    assert not (tmp_path / "ms/models/org/tiny/model.safetensors").exists()


def test_modelscope_files_without_a_checksum(hub, probe, environment, tmp_path):
    repo = hub.add("org/tiny", SMALL, {"model.safetensors": WEIGHTS})
    environment.update(LMDEPLOY_USE_MODELSCOPE="1", MODELSCOPE_DOMAIN=hub.url, MODELSCOPE_CACHE=str(tmp_path / "ms"))
    repo.modelscope_checksums = {"README.md": "", "config.json": ""}
    done = probe("find", "org/tiny")
    assert done.stderr.endswith("error corrupt: org/tiny: config.json: has no checksum in the list of its hub\n")
    repo.modelscope_checksums = {"README.md": ""}
    assert probe("find", "org/tiny").returncode == 0
    assert "with revision 'v9' (code 10010205002)" in probe("find", "org/tiny", "v9").stderr


def test_environment_variables_are_checked(hub, repo, probe, environment):
    for name, value in (("HF_ENDPOINT", "ftp://x"), ("HF_ENDPOINT", "http://x/?a"), ("HF_HUB_ETAG_TIMEOUT", "soon"),
                        ("HF_TOKEN", "a\x01b"), ("LANNER_HUB_RETRIES", "-1")):
        before = dict(environment)
        environment[name] = value
        done = probe("find", "org/tiny")
        assert done.returncode == 1 and "error invalid_argument: " in done.stderr, name
        environment.clear()
        environment.update(before)
    assert not hub.requests


def test_connections_are_kept(hub, repo, probe):
    connections = set()
    original = hub.record
    handlers = []

    def record(handler, is_cdn):
        handlers.append((is_cdn, handler.client_address))
        original(handler, is_cdn)

    hub.record = record
    assert probe("find", "org/tiny").returncode == 0
    connections = {address for is_cdn, address in handlers if not is_cdn}
    assert len(hub.requests) == 7 and len(connections) == 1


def test_posting(hub, probe):
    done = probe("post", hub.url + "/x", "some text")
    assert done.stdout.startswith("200 ") and done.stdout.endswith("posted some text")


def test_checksums_of_the_fake_hub():
    """The fake hub computes what git and sha256sum do."""
    assert git_blob_sha1(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert sha256(b"abc") == hashlib.sha256(b"abc").hexdigest()
    assert FakeHub
