#!/usr/bin/env bash
# Run the tests that compare vectors (marker `vectors`) several times, as if on different processors. Processors differ in
# the number of threads, and in the kernels that MKL, PyTorch, oneDNN and OpenBLAS choose. Each run sets variables that
# force another choice on this machine. All runs are done. The script fails if one of the runs failed.
#
#   scripts/test_processors.sh PYTEST [OPTION...]
set -uo pipefail
cd "$(dirname "$0")/.."

ways=(
  "OMP_NUM_THREADS=1"
  "OMP_NUM_THREADS=2"
  "MKL_CBWR=COMPATIBLE"
  "ATEN_CPU_CAPABILITY=avx2"
  "ATEN_CPU_CAPABILITY=default"
  "ONEDNN_MAX_CPU_ISA=AVX2"
  "OPENBLAS_CORETYPE=Haswell"
  # Together, these variables come closest to a processor without AVX-512.
  "ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OPENBLAS_CORETYPE=Haswell"
)

# The caller's variables must not override the variables of a run.
unset OMP_NUM_THREADS MKL_NUM_THREADS MKL_CBWR MKL_ENABLE_INSTRUCTIONS ATEN_CPU_CAPABILITY \
  ONEDNN_MAX_CPU_ISA DNNL_MAX_CPU_ISA OPENBLAS_CORETYPE OPENBLAS_NUM_THREADS

# Without the trap, Ctrl-C would only end the current step.
trap 'exit 130' INT
failed=()
for way in "${ways[@]}"; do
  echo "== $way"
  tests="vectors and not s3 and not slow"
  chosen=()
  # OpenVINO has a oneDNN of its own, which fails if this variable hides instructions that OpenVINO has found itself.
  # Only PyTorch's oneDNN is meant here.
  [[ $way == *ONEDNN_MAX_CPU_ISA* ]] && chosen=(-k "not openvino")
  # The variables of a way are separate words.
  # shellcheck disable=SC2086
  env $way "$@" -m "$tests" "${chosen[@]}" || failed+=("$way")
done

if ((${#failed[@]})); then
  printf 'failed with %s\n' "${failed[@]}" >&2
  exit 1
fi
