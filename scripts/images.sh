#!/usr/bin/env bash
# Build the images as prefect.yaml does, but without a Prefect server, and the explorer's: `make images`.
# TORCH_BUILD and pip's variables choose the build of PyTorch: see docker/Dockerfile.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
revision=$(git describe --always --dirty 2>/dev/null || echo unknown)
arguments=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision")
for variable in TORCH_BUILD PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_TRUSTED_HOST; do
  [ -z "${!variable:-}" ] || arguments+=(--build-arg "$variable=${!variable}")
done
for target in analytics-embeddings raster-processing explorer; do
  docker build --file docker/Dockerfile --target "$target" --tag "$target:$version" "${arguments[@]}" .
done
docker image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' | grep -E '^(analytics-embeddings|raster-processing|explorer):'
