#!/usr/bin/env bash
# Finds a CUDA compiler, or installs one into the project's folder .cuda-toolkit; prints nvcc's path.
#
#   nvcc=$(scripts/setup_cuda.sh)
#
# Taken in this order: $CUDACXX, $CUDA_HOME or $CUDA_PATH, nvcc on PATH, /usr/local/cuda, if it is release 12.4 or newer;
# else the wheels of requirements-cuda.txt from PyPI (270 MB on disk, no root needed, no GPU needed). LANNER_CUDA_TOOLKIT=wheels
# leaves installed ones alone. Does nothing, in well under a second, where the folder holds these wheels already.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
requirements=$root/scripts/requirements-cuda.txt
folder=$root/.cuda-toolkit
minimum=12.4  # C++20 in device code, sm_90a

say() { printf 'setup_cuda: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

release_of() {  # NVCC: such as 13.0, or nothing
  "$1" --version 2>/dev/null </dev/null | sed -n 's/.*release \([0-9]*\.[0-9]*\).*/\1/p'
}
new_enough() {  # RELEASE
  [[ -n $1 && $(printf '%s\n%s\n' "$minimum" "$1" | sort -V | head -n 1) == "$minimum" ]]
}

if [[ ${LANNER_CUDA_TOOLKIT:-} != wheels ]]; then
  for nvcc in "${CUDACXX:-}" "${CUDA_HOME:+$CUDA_HOME/bin/nvcc}" "${CUDA_PATH:+$CUDA_PATH/bin/nvcc}" \
    "$(type -P nvcc || true)" /usr/local/cuda/bin/nvcc; do
    [[ -n $nvcc && -x $nvcc ]] || continue
    if new_enough "$(release_of "$nvcc")"; then
      echo "$nvcc"
      exit 0
    fi
    say "$nvcc is left alone: it is older than $minimum, or does not say what it is"
  done
fi

wanted=$(grep -v '^#' "$requirements")
compiler=$folder/nvidia/cu13/bin/nvcc
if [[ -x $compiler && $(cat "$folder/.wheels" 2>/dev/null || true) == "$wanted" ]]; then
  echo "$compiler"
  exit 0
fi

say "no CUDA compiler here: installing one from PyPI into .cuda-toolkit (one minute, 270 MB)"
work=$(mktemp -d "$root/.cuda-toolkit.XXXXXX")
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-python3}
"$python" -m venv "$work/venv" >&2 </dev/null ||
  fail "cannot make a Python environment for pip; install python3-venv (make setup-build does), or a CUDA toolkit"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --target "$work/toolkit" -r "$requirements" >&2 </dev/null ||
  fail "pip could not install the wheels (see above). Check the network, or install a CUDA toolkit and set CUDA_HOME."

# nvcc.profile and CMake look for lib64 and for libcudart.so; the wheels have lib and libcudart.so.13.
ln -sfn lib "$work/toolkit/nvidia/cu13/lib64"
ln -sfn libcudart.so.13 "$work/toolkit/nvidia/cu13/lib/libcudart.so"
release=$(release_of "$work/toolkit/nvidia/cu13/bin/nvcc")
[[ -n $release ]] || fail "the nvcc of the wheels does not run here"
echo "$wanted" >"$work/toolkit/.wheels"
rm -rf "$folder"
mv "$work/toolkit" "$folder"
say "installed nvcc $release"
echo "$compiler"
