"""The JSON-Schema-Test-Suite through structured output, with the real 135M model; jsonschema judges.

Each schema of drafts 2020-12, 7, 2019-09, 6 and 4 is refused with 400 (docs/structured-output.md says what is not supported) or
gives an answer that fits. Only with -m peer; takes some minutes:

    export LANNER_TEST_JSON_SCHEMAS=$(scripts/fetch_json_schema_tests.py) LANNER_TEST_GGUF=…
    .venv/bin/python -m pytest tests/server/test_json_schemas.py -m peer -s
"""

import collections
import concurrent.futures
import json
import os
import pathlib
import re

import jsonschema
import pytest

DRAFTS = {
    "draft2020-12": jsonschema.Draft202012Validator, "draft7": jsonschema.Draft7Validator,
    "draft2019-09": jsonschema.Draft201909Validator, "draft6": jsonschema.Draft6Validator, "draft4": jsonschema.Draft4Validator,
}
LEAST_ANSWERS = 400  # of schemas that are followed to their end, of 756 that are taken


def schemas():
    """(draft, file, description, schema), each schema of a draft once; what speaks of other documents is left out."""
    root = pathlib.Path(os.environ["LANNER_TEST_JSON_SCHEMAS"])
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


def judge(draft, schema, text):
    validator = DRAFTS[draft](schema, format_checker=DRAFTS[draft].FORMAT_CHECKER)
    return [error.message for error in validator.iter_errors(json.loads(text))]


@pytest.mark.peer
def test_every_answer_fits(real):
    def ask(item):
        draft, file, description, schema = item
        body = {"messages": [{"role": "user", "content": f"Write some JSON: {description}."}], "max_tokens": 160, "seed": 1,
                "temperature": 1, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
        status, _, reply = real.ask("/v1/chat/completions", body, timeout=300)
        reply = json.loads(reply)
        if status == 200:
            reply = [choice for choice in reply["choices"] if choice["finish_reason"] != "length"]
        return item, status, reply

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(ask, schemas()))
    counts = collections.Counter()
    reasons = collections.Counter()
    wrong = []
    for (draft, file, description, schema), status, reply in replies:
        if status == 400:
            counts[draft, "refused"] += 1
            reasons[re.sub(r'"[^"]*"|\d+|[{\[].*', "…", reply["message"])[:90] + f" ({file})"] += 1
            continue
        if status != 200:
            wrong.append((draft, file, description, status, reply))
            continue
        counts[draft, "answered" if reply else "cut"] += 1
        for choice in reply:
            text = choice["message"]["content"]
            errors = judge(draft, schema, text) if choice["finish_reason"] == "stop" else [choice["finish_reason"]]
            counts["judged"] += 1
            if errors:
                wrong.append((draft, file, description, schema, text, errors))
    for draft in DRAFTS:
        print(f"{draft}: " + ", ".join(f"{counts[draft, what]} {what}" for what in ("answered", "cut", "refused")))
    print(f"{counts.pop('judged', 0)} answers judged")
    for reason, count in reasons.most_common():
        print(f"{count:4} {reason}")
    for one in wrong:
        print("WRONG", one)
    assert not wrong
    assert sum(count for (_, what), count in counts.items() if what == "answered") >= LEAST_ANSWERS
