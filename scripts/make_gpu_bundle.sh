#!/usr/bin/env bash
# Gathers what a machine with a GPU needs to run the CUDA tests and measurements, where nothing can be built or fetched.
#
#   scripts/make_gpu_bundle.sh BUILD_FOLDER [MODEL.gguf]
#
# Makes BUILD_FOLDER/gpu-bundle/:
#   lanner-gpu.tar.xz   programs, the shared libraries they need beside the system's, goldens, run.py, and what makes the
#                       test models there, where that machine's Python has numpy and safetensors
#   model.part1, .part2 the model, in two parts that are small enough to travel one after the other (with MODEL only)
# There:  tar xf lanner-gpu.tar.xz && lanner-gpu/run.py --out FOLDER     (see run.py --help)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$(cd "$1" && pwd)
model=${2:-}
python=${LANNER_PYTHON:-$root/.venv/bin/python}  # with scripts/requirements-test.txt
limit=$((60 * 1024 * 1024))
programs=(lanner src/ops/ops_test src/engine/engine_test src/engine/device_memory_test tests/golden_test tests/determinism_test tests/tiny_probe)

out=$build/gpu-bundle
rm -rf "$out"
mkdir -p "$out/lanner-gpu/python"
stage=$out/lanner-gpu

# Libraries of the C and C++ runtime are the system's everywhere.
system='^(linux-vdso|ld-linux.*|libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+)\.so'
for program in "${programs[@]}"; do
  strip -o "$stage/$(basename "$program")" "$build/$program"
  ldd "$build/$program" | while read -r name _ path _; do
    [[ $path == /* && ! $name =~ $system ]] || continue
    cp -L "$path" "$stage/$name"
  done
done
cp "$root/tests/gpu/run.py" "$root/tests/gpu/start_time.py" "$root/tests/model/golden_smollm2.json" "$stage/"
cp -r "$root/tests/gpu/shapes" "$stage/shapes"
cp "$root/tests/gpu/write_tiny_models.py" "$root"/tests/model/{make_model_folder.py,tiny_checkpoint.py,tiny_models.py,golden_tiny.json} \
  "$stage/python/"
cp -r "$("$python" -c 'import os, gguf; print(os.path.dirname(gguf.__file__))')" "$stage/python/gguf"
find "$stage" -name __pycache__ -prune -exec rm -rf {} +

# One compressed file: the programs share most of their code.
tar -C "$out" --sort=name --owner=0 --group=0 -cf - lanner-gpu | xz -T0 --lzma2=preset=6,dict=128MiB >"$out/lanner-gpu.tar.xz"
rm -rf "$stage"
if [[ -n $model ]]; then
  bytes=$(stat -Lc %s "$model")
  head -c $((bytes * 45 / 100)) "$model" >"$out/model.part1"
  tail -c +$((bytes * 45 / 100 + 1)) "$model" >"$out/model.part2"
fi
for file in "$out"/*; do
  bytes=$(stat -c %s "$file")
  printf 'gpu-bundle: %5.1f MiB  %s\n' "$(awk "BEGIN {print $bytes / 1048576}")" "${file#"$root"/}"
  ((bytes <= limit)) || { echo "gpu-bundle: ${file##*/} is over 60 MiB" >&2; exit 1; }
done
