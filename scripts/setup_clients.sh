#!/usr/bin/env bash
# Installs the clients that tests/clients tries into FOLDER: FOLDER/venv for Python's, FOLDER/node_modules for JavaScript's.
#
#   scripts/setup_clients.sh FOLDER
#
# Does nothing where all is there. Without node and npm (Debian: nodejs, npm; the client wants node 20) the JavaScript client is
# left out, and its tests say that they did not run.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
openai_js=6.49.0  # OpenAI's client on npm
[[ $# -eq 1 ]] || { sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
folder=$1
mkdir -p "$folder"
if ! cmp -s "$folder/requirements" <(cat "$root"/scripts/requirements-{test,clients}.txt); then
  [[ -x $folder/venv/bin/python ]] || "${PYTHON:-python3}" -m venv "$folder/venv"
  "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$root/scripts/requirements-clients.txt"
  cat "$root"/scripts/requirements-{test,clients}.txt >"$folder/requirements"
fi
if ! command -v npm >/dev/null || ! command -v node >/dev/null; then
  echo "setup: no node and npm: the JavaScript client is left out" >&2
elif ! grep -qs "\"version\": \"$openai_js\"" "$folder/node_modules/openai/package.json"; then
  npm install --prefix "$folder" --no-save --no-fund --no-audit --silent "openai@$openai_js"
fi
