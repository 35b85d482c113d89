"""Bodies that schemathesis makes from /openapi.json, half to fit it and half not to: each is answered as the document says, and
what does not fit is refused. 448 of them; 50,000 where LANNER_TEST_THOROUGH is set, which takes some 20 minutes.

LANNER_SERVER_PROBE may name a program that was built with sanitizers, as `make asan` has it.
"""

import collections
import concurrent.futures
import functools
import http.client
import json
import multiprocessing
import os

import hypothesis
import jsonschema
import schemathesis

from api_description import Description

KEY = {"Authorization": "Bearer secret"}
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
NEVER = ("429", "500", "503")  # documented, but nothing of the kind happens here
MOST_AT_ONCE = 500  # bodies; each lot begins with simple ones


@functools.cache
def schema_of(document):
    return schemathesis.openapi.from_dict(json.loads(document))


def make_bodies(document, path, mode, count, seed):
    """That many, or fewer where there are no more."""
    bodies = []

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=count, deadline=None, database=None, phases=[hypothesis.Phase.generate],
                         suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(case=schema_of(document)[path]["POST"].as_strategy(generation_mode=mode))
    def make(case):
        bodies.append(case.body)

    make()
    return bodies[:count]


def to_bytes(body):
    return body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")


def send_lot(port, document, path, mode, count, seed):
    """How often each status came to what fits (True) and what does not; and what was wrong."""
    description = Description(json.loads(document))
    operation = description.document["paths"][path]["post"]
    fits = jsonschema.Draft202012Validator({**operation["requestBody"]["content"]["application/json"]["schema"],
                                            "components": description.document["components"]})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    counts = collections.Counter()
    wrong = []
    for body in make_bodies(document, path, mode, count, seed):
        text = to_bytes(body)
        connection.request("POST", path, text, {"Content-Type": "application/json", **KEY})
        reply = connection.getresponse()
        answer = reply.read()
        good = not isinstance(body, bytes) and fits.is_valid(body)
        try:
            assert str(reply.status) not in NEVER
            description.check(operation, reply.status, reply.headers, answer)
            assert good or reply.status != 200, "this does not fit the schema"
        except Exception as failure:
            wrong.append(f"{str(failure)[:500]}: {path} answers {reply.status} {answer[:1000]!r} to {text[:3000]!r}")
        counts[good, reply.status] += 1
    return counts, wrong


def test_bodies_made_from_the_document(start_probe, thorough):
    server = start_probe("--key", "secret", "--tools", "hermes", "--thoughts", "1")
    description = Description.of(server, KEY)
    paths = [path for method, path, operation in description.operations() if "requestBody" in operation]
    document = json.dumps(description.document)
    each = 50_000 // len(paths) // len(MODES) + 1 if thorough else 16
    lots = [(server.port, document, path, mode, min(MOST_AT_ONCE, each - begin), 1000 + begin)
            for begin in range(0, each, MOST_AT_ONCE) for path in paths for mode in MODES]
    counts = collections.Counter()
    failures = []
    with concurrent.futures.ProcessPoolExecutor(min(4, os.cpu_count()), multiprocessing.get_context("fork")) as pool:
        for lot in [pool.submit(send_lot, *lot) for lot in lots]:
            answered, wrong = lot.result()
            counts.update(answered)
            failures += wrong
    print(f"\n{counts.total()} bodies to {len(paths)} routes:", dict(counts.most_common()))
    assert not failures, "\n".join(failures[:20])
    assert server.ask("/health")[0] == 200
    assert server.stop() == 0, server.output  # with all that it held given back, where a sanitizer looks
    assert len(paths) >= 14 and counts.total() >= each * len(paths) * len(MODES) * 0.99
    assert counts[True, 200] > counts.total() * 0.1 and counts[False, 400] > counts.total() * 0.2
