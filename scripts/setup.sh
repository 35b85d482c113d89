#!/usr/bin/env bash
# Installs what Lanner needs and this machine lacks. Does nothing, in well under a second, where all is there.
#
#   scripts/setup.sh [--for build|test|python|lint|fuzz]...      (default: build)
#
# On Debian and its relatives missing packages come from apt-get, with sudo only where you are not root. A cargo that is
# new enough is kept; else a distribution package is taken if that is new enough, else rustup's installer.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/cargo.sh
source "$root/scripts/cargo.sh"

packages_for() {  # PURPOSE: lines of a package and why it is wanted
  cat <<'END'
g++ the C++20 compiler
make the tasks in Makefile
cmake configures the build
ninja-build runs the build
ccache compiles the same file once
mold links fast
pkg-config finds libraries
libgtest-dev unit tests
libgmock-dev unit tests
libcli11-dev command line parsing
libfmt-dev text formatting
nlohmann-json3-dev JSON
libedit-dev line editing in chat
libsentencepiece-dev tokenizers of models that carry a tokenizer.model alone
libboost1.81-dev HTTP (Beast) of server and downloads, headers only
libssl-dev TLS of server and downloads, checksums
python3 fetches the model, runs scripts
python3-venv pip, in an environment of its own
curl downloads
ca-certificates TLS certificates for downloads
END
  case $1 in
    test)
      cat <<'END'
openssl certificates of the tests of HTTPS
END
      ;;
    python)
      cat <<'END'
python3-dev headers that the Python package is built with
END
      ;;
    lint)
      cat <<'END'
git finds the files that changed
clang-format-19 checks the format
clang-tidy-19 checks the code
END
      ;;
    fuzz)
      cat <<'END'
clang-19 compiler with libFuzzer
libclang-rt-19-dev the sanitizers and libFuzzer of clang
END
      ;;
  esac
}

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
usage() { sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

wanted=()
while (($#)); do
  case $1 in
    --for)
      case ${2:-} in
        build | test | python | lint | fuzz) wanted+=("$2") ;;
        *) fail "--for takes build, test, python, lint or fuzz, not '${2:-}'" ;;
      esac
      shift 2
      ;;
    -h | --help) usage; exit 0 ;;
    *) fail "unknown argument '$1' (see scripts/setup.sh --help)" ;;
  esac
done
((${#wanted[@]})) || wanted=(build)

declare -A reason=()
names=()
for purpose in "${wanted[@]}"; do
  while read -r name why; do
    [[ -n $name && -z ${reason[$name]:-} ]] || continue
    reason[$name]=$why
    names+=("$name")
  done < <(packages_for "$purpose")
done

print_packages() {  # NAME...
  local name
  for name in "$@"; do printf '  %-20s %s\n' "$name" "${reason[$name]}" >&2; done
}

if ! type -P apt-get >/dev/null || ! type -P dpkg-query >/dev/null; then
  say "this system has no apt-get. Install these (Debian's names) with your package manager, and cargo $CARGO_MINIMUM or newer:"
  print_packages "${names[@]}"
  say "then run make with SETUP=0, which leaves this step out."
  exit 1
fi

as_root() {
  if (($(id -u) == 0)); then
    "$@"
  elif type -P sudo >/dev/null; then
    sudo "$@"
  else
    fail "you are not root and there is no sudo. Have an administrator run: apt-get install ${missing[*]}"
  fi
}

# The newest version that apt could install, or nothing.
candidate_of() { apt-cache policy "$1" 2>/dev/null | awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }'; }

installed=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "${names[@]}" 2>/dev/null || true)
missing=()
for name in "${names[@]}"; do
  grep -qxF "$name installed" <<<"$installed" || missing+=("$name")
done
# Debian 12 has a new enough Boost beside its default one; later systems have it as the default one.
boost=libboost1.81-dev default_boost=libboost-dev
if [[ " ${missing[*]} " == *" $boost "* ]] &&
  version_at_least "$(dpkg-query -W -f='${Version}' "$default_boost" 2>/dev/null || true)" 1.81; then
  missing=("${missing[@]/#"$boost"/}")
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sed '/^$/d')
fi
need_cargo=0
find_cargo >/dev/null || need_cargo=1
((${#missing[@]} || need_cargo)) || exit 0

if (($(id -u) != 0)) && type -P sudo >/dev/null; then
  say "you are not root: apt-get runs with sudo, which may ask for your password."
fi
apt_options=(-o DPkg::Lock::Timeout=300 -qq)
say "refreshing the package lists (apt-get update)"
as_root apt-get "${apt_options[@]}" update >&2 </dev/null ||
  fail "apt-get update failed (see above). Check the network and the package sources, then run this again."

if [[ " ${missing[*]} " == *" $boost "* && -z $(candidate_of "$boost") ]] &&
  version_at_least "$(candidate_of "$default_boost")" 1.81; then
  reason[$default_boost]=${reason[$boost]}
  missing=("${missing[@]/#"$boost"/"$default_boost"}")
fi

need_rustup=0
if ((need_cargo)); then
  need_rustup=1
  for name in cargo cargo-web; do  # cargo-web is the newer one that Debian 12 keeps for its browsers
    if version_at_least "$(candidate_of "$name")" "$CARGO_MINIMUM"; then
      reason[$name]="cargo $CARGO_MINIMUM or newer, for the tokenizer crates"
      missing+=("$name")
      need_rustup=0
      break
    fi
  done
fi

if ((${#missing[@]})); then
  say "installing what is missing for ${wanted[*]}:"
  print_packages "${missing[@]}"
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get "${apt_options[@]}" install -y --no-install-recommends "${missing[@]}" >&2 </dev/null ||
    fail "apt-get install failed (see above). Free some disk space or mend the packages, then run this again."
fi

if ((need_rustup)); then
  say "no cargo $CARGO_MINIMUM or newer here: installing the stable Rust toolchain with rustup into ${CARGO_HOME:-${HOME:-}/.cargo}"
  installer=$(mktemp)
  trap 'rm -f "$installer"' EXIT
  # Kept whole before it runs: half a script that was cut off must not run.
  curl --proto '=https' --tlsv1.2 -sSf -o "$installer" https://sh.rustup.rs </dev/null ||
    fail "could not download rustup's installer. Check the network, or install cargo $CARGO_MINIMUM or newer yourself."
  sh "$installer" -y --profile minimal --component rustfmt --default-toolchain stable --no-modify-path >&2 </dev/null ||
    fail "rustup's installer failed (see above)."
fi

find_cargo >/dev/null || fail "cargo is still older than $CARGO_MINIMUM. Install a newer one and put it on PATH."
say "done"
