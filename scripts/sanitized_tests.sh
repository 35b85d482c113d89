#!/usr/bin/env bash
# Runs the unit tests of some rooms from a build folder that was built with sanitizers; and, where LANNER_PYTHON names a Python
# that has scripts/requirements-test.txt, for the room `server` the tests that send its server_probe hostile requests.
#
#   scripts/sanitized_tests.sh BUILD_FOLDER ROOM...
set -euo pipefail
build=$1
shift
pattern="^($(IFS='|'; echo "$*"))(_.*)?\$"  # some rooms' tests run once for each body of kernels or kind of device

# Every finding ends the program that has it; nothing is only printed.
export ASAN_OPTIONS=${ASAN_OPTIONS:-strict_string_checks=1:detect_stack_use_after_return=1:check_initialization_order=1}
export LSAN_OPTIONS=${LSAN_OPTIONS:-suppressions=$PWD/tests/lsan.supp:print_suppressions=0}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1:second_deadlock_stack=1}

ctest --test-dir "$build" --output-on-failure --no-tests=error --label-regex unit --tests-regex "$pattern" </dev/null

if [[ -n ${LANNER_PYTHON:-} && " $* " == *" server "* ]]; then
  LANNER_SERVER_PROBE=$PWD/$build/src/server/server_probe PYTHONDONTWRITEBYTECODE=1 \
    "$LANNER_PYTHON" -m pytest -q -s -p no:cacheprovider \
    tests/server/test_{mutations,raw_requests,generated_requests,keys}.py </dev/null
fi
