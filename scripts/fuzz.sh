#!/usr/bin/env bash
# Builds and runs every fuzzer: the programs whose names begin with fuzz_.
#
#   scripts/fuzz.sh BUILD_FOLDER SECONDS_EACH
#
# Seeds are read from tests/fuzz/NAME/ where that folder is there. New inputs stay in BUILD_FOLDER/corpus/NAME for the
# next run; an input that breaks something is kept in BUILD_FOLDER/findings/NAME, and the run fails.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
build=$1
seconds=$2

mapfile -t programs < <(ninja -C "$build" -t targets all | sed -nE 's/^([^ :]*\bfuzz_[a-z0-9_]+): CXX_EXECUTABLE_LINKER__.*/\1/p' | sort)
if ((${#programs[@]} == 0)); then
  echo "fuzz: $build has no program whose name begins with fuzz_" >&2
  exit 1
fi
scripts/with_cargo.sh ninja -C "$build" "${programs[@]}" </dev/null

run_one() {  # PROGRAM
  local program=$1 name corpus findings log status=0
  name=$(basename "$program")
  corpus=$build/corpus/$name findings=$build/findings/$name log=$build/$name.log
  mkdir -p "$corpus" "$findings"
  local folders=("$corpus")
  [[ -d tests/fuzz/$name ]] && folders+=("tests/fuzz/$name")
  "$build/$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$findings/" "${folders[@]}" >"$log" 2>&1 </dev/null || status=$?
  if ((status)); then
    echo "fuzz: $name FAILED; the input is in $findings:"
    tail -n 60 "$log"
  else
    echo "fuzz: $name passed, $(awk '$1 == "stat::number_of_executed_units:" { print $2 }' "$log") inputs in $seconds s"
  fi
  return "$status"
}
export -f run_one
export build seconds

# As many at a time as there are cores; xargs exits with an error if one of them does.
# shellcheck disable=SC2016  # $0 is for the inner bash
printf '%s\0' "${programs[@]}" | xargs -0 -n 1 -P "$(nproc)" bash -c 'run_one "$0" || exit 1'
