#!/usr/bin/env python3
"""Fetches the JSON-Schema-Test-Suite once and prints the path of its folder tests/.

It lies in the source package of jsonschema on PyPI (MIT), 350 KB, which is fetched with pip, so that pip's own settings
hold. The npm package of that name stops at draft 4. Only tests want the folder (`make test` fetches it); nothing of it
becomes a part of this project.

    export LANNER_TEST_JSON_SCHEMAS=$(scripts/fetch_json_schema_tests.py)
    .venv/bin/python -m pytest tests/server/test_json_schemas.py
    scripts/fetch_json_schema_tests.py --offline    # fails where it has not been fetched
"""

import sys

from fetch_from_package import Package, main

SUITE = Package(requirement="jsonschema==4.25.1",
                sha256="e4a9655ce0da0c0b67a085847e00a3a51449e1157f4f75e9fb5aa545e122eb85",
                inside="/json/tests/", folder="json-schema-tests", what="the JSON-Schema-Test-Suite", size="350 KB")

if __name__ == "__main__":
    sys.exit(main(SUITE, __doc__))
