#!/usr/bin/env bash
# Formats the C++ sources with clang-format 19 and the Rust sources with rustfmt where that is installed.
#
#   scripts/format.sh [--check]      --check changes nothing and fails where something would change
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
check=0
[[ ${1:-} != --check ]] || check=1

folders=()
for folder in src include tests bench python; do
  [[ ! -d $folder ]] || folders+=("$folder")
done
mapfile -t -d '' cpp < <(find "${folders[@]}" -name target -prune -o -type f \
  \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -print0 | sort -z)
mapfile -t -d '' rust < <(find src -name target -prune -o -type f -name '*.rs' -print0 | sort -z)

status=0
if ((${#cpp[@]})); then
  if ((check)); then
    clang-format-19 --dry-run --Werror "${cpp[@]}" || status=1
  else
    clang-format-19 -i "${cpp[@]}"
  fi
fi
checked="${#cpp[@]} C++ files"
if ((${#rust[@]})); then
  if rustfmt --version >/dev/null 2>&1 </dev/null; then
    options=(--edition 2021)
    ((check == 0)) || options+=(--check)
    rustfmt "${options[@]}" "${rust[@]}" || status=1
    checked+=", ${#rust[@]} Rust files"
  else
    checked+="; no rustfmt here, so ${#rust[@]} Rust files were left out"
  fi
fi
if ((status)); then
  echo "format: run 'make format' and look at what it changed" >&2
else
  echo "format: $checked"
fi
exit "$status"
