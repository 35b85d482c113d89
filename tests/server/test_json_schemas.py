"""The JSON-Schema-Test-Suite through structured output: each schema is refused with 400 (docs/structured-output.md says what is
not supported) or followed. jsonschema and jsonschema_rs judge, which know nothing of each other nor of what makes the answers.

The scripted engine draws eight texts that a schema allows, among them what no model would write, of every schema; the real
135M model answers a twelfth of them, or all where LANNER_TEST_THOROUGH is set. LANNER_TEST_JSON_SCHEMAS names the suite
(scripts/fetch_json_schema_tests.py); `make test` sets it.
"""

import collections
import concurrent.futures
import json
import os
import pathlib
import re
import time

import jsonschema
import jsonschema_rs
import pytest

DRAFTS = {
    "draft2020-12": (jsonschema.Draft202012Validator, jsonschema_rs.Draft202012Validator),
    "draft7": (jsonschema.Draft7Validator, jsonschema_rs.Draft7Validator),
    "draft2019-09": (jsonschema.Draft201909Validator, jsonschema_rs.Draft201909Validator),
    "draft6": (jsonschema.Draft6Validator, jsonschema_rs.Draft6Validator),
    "draft4": (jsonschema.Draft4Validator, jsonschema_rs.Draft4Validator),
}
TAKEN = 756  # of all schemas; the others are refused
DRAWN = 8    # answers to each by the scripted engine
# What the model is pushed to, since it goes on for ever where anything fits.
CLOSING = ['"', "}", "]", '"}', '"]', "}}", "]}", '""', "{}", "[]"]
ENDS = ["<|im_end|>", "<|endoftext|>"]
REFUSED_WITHIN = 1.0  # seconds


def all_schemas():
    """(draft, file, description, schema), each schema of a draft once; what speaks of other documents is left out."""
    folder = os.environ.get("LANNER_TEST_JSON_SCHEMAS")
    if not folder:
        pytest.fail("LANNER_TEST_JSON_SCHEMAS does not name the suite: `make test` sets it")
    root = pathlib.Path(folder)
    for draft in DRAFTS:
        seen = set()
        for path in sorted((root / draft).glob("*.json")) + sorted((root / draft / "optional" / "format").glob("*.json")):
            if path.stem in ("refRemote", "vocabulary"):
                continue
            for group in json.loads(path.read_text()):
                text = json.dumps(group["schema"])
                if text not in seen and "localhost:1234" not in text:
                    seen.add(text)
                    yield draft, path.stem, group["description"], group["schema"]


def faults(draft, schema, text):
    """What the two judges have against an answer."""
    value = json.loads(text)
    first, second = DRAFTS[draft]
    found = [error.message for error in first(schema, format_checker=first.FORMAT_CHECKER).iter_errors(value)]
    return found + [str(error) for error in second(schema, validate_formats=True).iter_errors(value)]


def ask_all(server, schemas, at_once, **more):
    """(schema's row, status, reply, seconds) of each."""
    def ask(row):
        body = {"messages": [{"role": "user", "content": f"Write some short JSON: {row[2]}."}], "seed": 1, **more,
                "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": row[3]}}}
        begin = time.monotonic()
        status, _, reply = server.ask("/v1/chat/completions", body, timeout=300)
        return row, status, json.loads(reply), time.monotonic() - begin

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(ask, schemas))


def judge_all(answers):
    """How many schemas were refused, followed to the end ("complete") or cut, how many answers were judged; what was wrong."""
    counts = collections.Counter()
    reasons = collections.Counter()
    wrong = []
    for (draft, file, description, schema), status, reply, _ in answers:
        if status == 400:
            counts["refused"] += 1
            counts[draft, "refused"] += 1
            reasons[re.sub(r'"[^"]*"|\d+|[{\[].*', "…", reply["message"])[:90] + f" ({file})"] += 1
            continue
        if status != 200:
            wrong.append((draft, file, description, status, reply))
            continue
        texts = [choice["message"]["content"] for choice in reply["choices"] if choice["finish_reason"] == "stop"]
        wrong += [(draft, file, description, choice) for choice in reply["choices"] if choice["finish_reason"] not in ("stop", "length")]
        counts["complete" if texts else "cut"] += 1
        counts[draft, "complete" if texts else "cut"] += 1
        counts["answers"] += len(texts)
        wrong += [(draft, file, description, schema, text, bad) for text in texts if (bad := faults(draft, schema, text))]
    print()
    for draft in DRAFTS:
        print(f"{draft}: " + ", ".join(f"{counts[draft, what]} {what}" for what in ("complete", "cut", "refused")))
    print(f"{counts['complete']} schemas complete, {counts['cut']} cut, {counts['refused']} refused; {counts['answers']} answers judged")
    return counts, reasons, wrong


def test_texts_drawn_from_every_schema(start_probe):
    answers = ask_all(start_probe("--walk", 1), all_schemas(), 4, n=DRAWN, max_tokens=1500)
    counts, reasons, wrong = judge_all(answers)
    for reason, count in reasons.most_common():
        print(f"{count:4} {reason}")
    assert not wrong
    assert counts["complete"] == TAKEN and counts["answers"] >= TAKEN * DRAWN * 0.99
    assert max(seconds for _, status, _, seconds in answers if status == 400) < REFUSED_WITHIN


def tokens_of(server, texts):
    """Those of the texts that are one token."""
    found = []
    for text in texts:
        ids = json.loads(server.ask("/tokenize", {"prompt": text, "add_special_tokens": False})[2])["tokens"]
        found += ids if len(ids) == 1 else []
    return found


def test_answers_of_the_real_model(real, thorough):
    bias = {token: 6 for token in tokens_of(real, CLOSING)} | {token: 8 for token in tokens_of(real, ENDS)}
    schemas = list(all_schemas())[::1 if thorough else 12]
    counts, _, wrong = judge_all(ask_all(real, schemas, 16, max_tokens=160, temperature=1, logit_bias=bias))
    assert not wrong
    assert counts["complete"] >= (700 if thorough else 50)
