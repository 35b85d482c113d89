"""Every route of /openapi.json with no key, a wrong one and a right one."""

import pytest

from api_description import EXAMPLES, Description

OPEN = {"/health", "/health/live", "/health/ready", "/version", "/chat"}  # as docs/serving.md says
NOT_ALLOWED = {"/abort_request", "/sleep", "/wakeup", "/terminate"}  # without their flags
RIGHT = {"Authorization": "Bearer secret"}
NONE = [{}, {"Authorization": ""}, {"X-Api-Key": ""}]
WRONG = [{"Authorization": "Bearer wrong"}, {"Authorization": "Bearer secre"}, {"Authorization": "Bearer secrett"},
         {"Authorization": "Bearer "}, {"Authorization": "bearer secret"}, {"Authorization": "Basic secret"},
         {"Authorization": "secret"}, {"X-Api-Key": "wrong"}, {"X-Api-Key": "Secret"},
         {"Authorization": "Bearer wrong", "X-Api-Key": "secret"}]  # one of them is what counts


@pytest.fixture(scope="module")
def server(start_probe):
    return start_probe("--key", "secret")


def call(server, method, path, headers):
    body = EXAMPLES.get(path, {}) if method == "POST" and path not in ("/sleep", "/wakeup") else None
    return server.ask(path.replace("{model}", "test"), body, headers, method)


def test_every_route_with_every_key(server):
    description = Description.of(server, RIGHT)
    seen = set()
    for method, path, operation in description.operations():
        seen.add(path)
        guarded = "security" in operation
        assert guarded == (path not in OPEN), path
        for headers in NONE + WRONG:
            status, got, body = call(server, method, path, headers)
            assert status == (401 if guarded else 200), (method, path, headers, body)
            assert got.get("WWW-Authenticate") == ("Bearer" if guarded else None)
            description.check(operation, status, got, body)
        for headers in (RIGHT, {"X-Api-Key": "secret"}):
            status, got, body = call(server, method, path, headers)
            assert status == (403 if path in NOT_ALLOWED else 200), (method, path, body)
            description.check(operation, status, got, body)
    assert seen >= OPEN | NOT_ALLOWED | set(EXAMPLES) and len(seen) >= 29


def test_without_a_key_nothing_is_told_of_other_paths_and_methods(server):
    for method, path in (("GET", "/nope"), ("DELETE", "/v1/models"), ("PUT", "/nope"), ("GET", "/v1/chat/completions")):
        for headers in NONE + WRONG:
            assert server.ask(path, None, headers, method)[0] == 401, (method, path, headers)
    assert server.ask("/nope", None, RIGHT)[0] == 404
    assert server.ask("/v1/models", None, RIGHT, "DELETE")[0] == 405


def test_every_route_of_a_server_without_keys(probe):
    description = Description.of(probe)
    assert "securitySchemes" not in description.document["components"]
    for method, path, operation in description.operations():
        assert "security" not in operation and "401" not in operation["responses"], path
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            status, got, body = call(probe, method, path, headers)
            assert status == (403 if path in NOT_ALLOWED else 200), (method, path, body)
            description.check(operation, status, got, body)
