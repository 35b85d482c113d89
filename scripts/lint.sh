#!/usr/bin/env bash
# Runs clang-tidy 19 (.clang-tidy) over the files that changed.
#
#   scripts/lint.sh BUILD_FOLDER [--all]
#
# Changed means: against the branch point from origin/main; where HEAD is that point, or there is no origin/main, against
# the last commit but one; and what is not committed yet. At most LINT_MAX (25) files, so that it stays a matter of
# minutes; --all takes every file. BUILD_FOLDER must have been configured (it holds compile_commands.json). Sources of
# src/ops/cuda are checked where build-cuda has been configured; kernels (.cu) are nvcc's to warn of.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=$1
all=0
[[ ${2:-} != --all ]] || all=1
limit=${LINT_MAX:-25}

if [[ ! -f $build/compile_commands.json ]]; then
  echo "lint: $build has no compile_commands.json; run make build first" >&2
  exit 1
fi

# Only what the build compiles can be checked; the database names it by absolute path.
compiled_in() {  # BUILD_FOLDER
  sed -nE 's/^ *"file": "(.*)",?$/\1/p' "$1/compile_commands.json" | grep -F "$PWD/" | sed "s|^$PWD/||" | grep -v '\.cu$' | sort -u
}
cuda_build=build-cuda
mapfile -t compiled < <(compiled_in "$build"
  [[ ! -f $cuda_build/compile_commands.json ]] || compiled_in "$cuda_build" | grep '^src/ops/cuda/')

changed_files() {
  local head base
  head=$(git rev-parse --verify --quiet HEAD) || { git ls-files --cached --others --exclude-standard; return; }
  base=$(git merge-base HEAD origin/main 2>/dev/null) || base=
  [[ -n $base && $base != "$head" ]] || base=$(git rev-parse --verify --quiet HEAD~1) || base=$(git hash-object -t tree /dev/null)
  git diff --name-only --diff-filter=d "$base"
  git ls-files --others --exclude-standard
}

# A header is checked through its own .cpp, its test, or else the first file that includes it.
source_of() {  # FILE
  local stem=${1%.*} candidate
  for candidate in "$1" "$stem.cpp" "${stem}_test.cpp" \
    $(grep -lF "${1#*/}\"" -- "${compiled[@]}" 2>/dev/null | head -n 1); do
    if printf '%s\n' "${compiled[@]}" | grep -qxF "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
}

if ((all)); then
  files=("${compiled[@]}")
else
  mapfile -t files < <(changed_files | grep -E '\.(h|cpp)$' | sort -u | while IFS= read -r file; do source_of "$file"; done | sort -u)
  if ((${#files[@]} > limit)); then
    echo "lint: ${#files[@]} files changed; checking $limit of them, spread evenly (make lint FULL=1 checks all)"
    mapfile -t files < <(printf '%s\n' "${files[@]}" | awk -v n="${#files[@]}" -v k="$limit" 'int(NR * k / n) > int((NR - 1) * k / n)')
  fi
fi
if ((${#files[@]} == 0)); then
  echo "lint: no C++ file changed"
  exit 0
fi

# The compiler's own warnings are the build's affair (g++ has others than clang): here only clang-tidy's checks count.
check() {  # BUILD_FOLDER FILE...
  (($# > 1)) || return 0
  printf '%s\0' "${@:2}" | xargs -0 -n 1 -P "$(nproc)" clang-tidy-19 -p "$1" --quiet \
    --extra-arg=-Wno-everything 2> >(grep -v ' warnings\? generated\.$' >&2)
}
own=() cuda=()
for file in "${files[@]}"; do
  if [[ $file == src/ops/cuda/* ]]; then cuda+=("$file"); else own+=("$file"); fi
done
good=1
check "$build" "${own[@]}" || good=0
check "$cuda_build" "${cuda[@]}" || good=0
if ((good)); then
  echo "lint: ${#files[@]} files, no finding"
else
  echo "lint: see the findings above" >&2
  exit 1
fi
