# shellcheck shell=bash
# Which cargo to use: sourced by setup.sh (is one there?) and with_cargo.sh (run with it).

CARGO_MINIMUM=1.87

cargo_is_new_enough() {  # PATH_OF_CARGO
  local version
  # A rustup proxy without a toolchain is on PATH and still fails: only the answer counts.
  version=$("$1" --version 2>/dev/null </dev/null | awk '$1 == "cargo" { print $2; exit }') || return 1
  [[ -n $version ]] && version_at_least "$version" "$CARGO_MINIMUM"
}

version_at_least() {  # VERSION MINIMUM
  [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]
}

# Prints the first cargo that is new enough: rustup's own folder, then everything on PATH.
find_cargo() {
  local candidate
  while IFS= read -r candidate; do
    if [[ -x $candidate ]] && cargo_is_new_enough "$candidate"; then
      printf '%s\n' "$candidate"
      return 0
    fi
  done < <(printf '%s\n' "${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo"; type -aP cargo)
  return 1
}
