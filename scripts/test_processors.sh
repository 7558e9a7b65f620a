#!/usr/bin/env bash
# Run the tests that compare vectors (marker `vectors`) several times, as if on different processors. On different
# processors, the number of threads differs, and MKL, PyTorch, oneDNN, OpenBLAS and FAISS choose different kernels. Each
# run sets variables that force some of these differences on this machine. Two runs work at the same time. If a run
# fails, the next runs are still done, and the script fails at its end.
#
#   scripts/test_processors.sh PYTEST [OPTION...]
set -uo pipefail
cd "$(dirname "$0")/.."

ways=(
  "OMP_NUM_THREADS=1"
  "OMP_NUM_THREADS=2"
  "MKL_CBWR=COMPATIBLE"
  "ATEN_CPU_CAPABILITY=avx2"
  "ATEN_CPU_CAPABILITY=default FAISS_SIMD_LEVEL=NONE"
  "ONEDNN_MAX_CPU_ISA=AVX2"
  "OPENBLAS_CORETYPE=Haswell"
  # Together, these variables come closest to a processor without AVX-512.
  "ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OPENBLAS_CORETYPE=Haswell FAISS_SIMD_LEVEL=AVX2"
)

# The caller's variables must not override the variables of a run.
unset OMP_NUM_THREADS MKL_NUM_THREADS MKL_CBWR MKL_ENABLE_INSTRUCTIONS ATEN_CPU_CAPABILITY \
  ONEDNN_MAX_CPU_ISA DNNL_MAX_CPU_ISA OPENBLAS_CORETYPE OPENBLAS_NUM_THREADS FAISS_SIMD_LEVEL

scratch=$(mktemp -d)
# A run in the background would outlive the script.
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$scratch"' EXIT
# Let Ctrl-C end the whole script. Without this trap, it would end only the current run.
trap 'exit 130' INT

# Collecting all tests for each way would take as long as running these.
mapfile -t files < <(grep --recursive --files-with-matches --include='test_*.py' 'pytest\.mark\.vectors' tests)

# Run one way in the background. Its output goes into a file, so that the lines of two runs are not mixed.
start() {
  local number=$1 way=${ways[$1]} tests="vectors and not s3 and not slow" chosen=()
  shift
  # Leave out the tests of OpenVINO in this run, which is about PyTorch's oneDNN. OpenVINO contains another copy of
  # oneDNN. This copy fails if the variable hides instructions that OpenVINO has found itself.
  [[ $way == *ONEDNN_MAX_CPU_ISA* ]] && chosen=(-k "not openvino")
  # Each run is one process: importing PyTorch in several processes would take longer than the tests. The cache of
  # pytest belongs to no run, because two runs would write it at once. The variables of a way are separate words.
  # shellcheck disable=SC2086
  env $way "$@" -p no:cacheprovider -m "$tests" "${chosen[@]}" "${files[@]}" >"$scratch/$number" 2>&1 &
  processes[number]=$!
}

processes=()
failed=()
start 0 "$@"
for number in "${!ways[@]}"; do
  ((number + 1 < ${#ways[@]})) && start $((number + 1)) "$@"
  wait "${processes[number]}" || failed+=("${ways[number]}")
  echo "== ${ways[number]} (after $SECONDS s)"
  cat "$scratch/$number"
done

if ((${#failed[@]})); then
  printf 'failed with %s\n' "${failed[@]}" >&2
  exit 1
fi
