"""Thousands of bodies that are nearly right: each is answered, in the documented shape, and none harms the server."""

import copy
import http.client
import json
import random

from api_description import EXAMPLES, USER, Description

NOT_HERE = {"/abort_request"}  # it is refused without a flag and a key
VALID = [(path, body) for path, body in EXAMPLES.items() if path not in NOT_HERE]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[a-z]+$"}, "b": {"$ref": "#/$defs/b"},
                                           "c": {"type": "array", "items": {"enum": [1, "x", None]}, "maxItems": 3}},
          "required": ["a"], "$defs": {"b": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}}}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}},
         {"type": "function", "function": {"name": "g"}}]
WITH_GRAMMARS = [
    {"messages": [USER], "max_tokens": 3,
     "response_format": {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}},
    {"messages": [USER], "max_tokens": 3, "response_format": {"type": "regex_schema", "regex_schema": "[a-c]{1,4}(x|y)*"}},
    {"messages": [USER], "max_tokens": 3,
     "response_format": {"type": "grammar", "syntax": "regex", "definition": "a+"}},
    {"messages": [USER], "max_tokens": 3, "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": True},
    {"messages": [USER], "max_tokens": 3, "tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}},
    {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "y"}], "max_tokens": 3, "tools": TOOLS, "tool_choice": "auto"},
]
HOSTILE = [None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, 2**31, 2**53, 2**63, 2**64, -2**63, 10**30, "", "a", "\0", "\ud7ff\uffff",
           "x" * 5000, [], {}, [[]], [{}], [None], {"": ""}, {"type": "text"}, [1] * 100, "-1", "NaN", ["a"] * 50, {"a": {"a": {}}}]


def places(value, path=()):
    """Every place in a value, its members' and elements' too."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def mutated(body, random):
    body = copy.deepcopy(body)
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        path = random.choice([path for path in places(body) if path])
        parent = body
        for key in path[:-1]:
            parent = parent[key]
        action = random.randrange(4)
        if action == 0 and isinstance(parent, dict):
            del parent[path[-1]]
        elif action == 1 and isinstance(parent, dict):
            parent[random.choice(["", "x" * 300, "é", "n", "model", "content"])] = copy.deepcopy(random.choice(HOSTILE))
        else:
            parent[path[-1]] = copy.deepcopy(random.choice(HOSTILE))
        if not body:
            break
    return body


def send_mutations(probe, count, bodies, seed):
    """How often each status came."""
    source = random.Random(seed)
    description = Description.of(probe)
    operations = {path: operation for method, path, operation in description.operations() if method == "POST"}
    connection = http.client.HTTPConnection("127.0.0.1", probe.port, timeout=60)
    statuses = {}
    for _ in range(count):
        path, valid = source.choice(bodies)
        body = mutated(valid, source)
        text = json.dumps(body, ensure_ascii=source.random() < 0.5).encode("utf-8", "surrogatepass")
        if source.random() < 0.1:  # and some that are no JSON any more
            at = source.randrange(len(text) + 1)
            text = text[:at] + source.randbytes(source.randrange(4)) + text[at + source.randrange(3):]
        connection.request("POST", path, text, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        answer = reply.read()
        statuses[reply.status] = statuses.get(reply.status, 0) + 1
        assert reply.status in (200, 400, 404, 409), (path, text, answer)
        description.check(operations[path], reply.status, reply.headers, answer)
    assert probe.ask("/health")[0] == 200
    return statuses


def test_bodies_that_are_nearly_right(probe):
    statuses = send_mutations(probe, 4000, VALID, 7)
    assert statuses[200] > 500 and statuses[400] > 500, statuses


def test_tools_and_schemas_that_are_nearly_right(start_probe):
    probe = start_probe("--tools", "hermes", "--thoughts", "1")
    bodies = [("/v1/chat/completions", body) for body in WITH_GRAMMARS]
    for path, body in bodies:
        assert probe.ask(path, body)[0] == 200, body
    statuses = send_mutations(probe, 2000, bodies, 8)
    assert statuses[200] > 200 and statuses[400] > 500, statuses


def test_valid_ones_are_answered(probe):
    for path, body in VALID:
        assert probe.ask(path, body)[0] == 200, path
