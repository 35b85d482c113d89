#!/usr/bin/env bash
# Runs a command with a cargo on PATH that is new enough, even where an older or broken one comes first.
#
#   scripts/with_cargo.sh cmake --preset release
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/cargo.sh
source "$root/scripts/cargo.sh"

if ! cargo=$(find_cargo); then
  echo "lanner: no cargo $CARGO_MINIMUM or newer found; run scripts/setup.sh, or put one on PATH" >&2
  exit 1
fi
if [[ $(type -P cargo) != "$cargo" ]]; then
  # A folder of links, so that nothing else in cargo's folder moves ahead of what PATH says. CMake remembers this path.
  links=$root/build/toolchain
  mkdir -p "$links"
  for tool in cargo rustc rustdoc; do
    ln -sfn "$(dirname "$cargo")/$tool" "$links/$tool"
  done
  PATH=$links:$PATH
fi
exec "$@"
