# `make` lists what there is. Everything runs from $(VENV), which is made on first use.

VENV ?= .venv
BIN := $(VENV)/bin

# The first Python that runs and is new enough; PYTHON=/path/to/python overrides it.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	"$$python" -c '$(NEW_ENOUGH)' 2>/dev/null && echo "$$python" && break; done)

# Also the older docker-compose from 1.29 on, as Debian 12 has it.
COMPOSE ?= docker compose

PIP_INSTALL := -m pip install --disable-pip-version-check --progress-bar off --quiet

# The tests start many processes. Without byte code in files, each of them compiles the sources again.
unexport PYTHONDONTWRITEBYTECODE

# tests/conftest.py chooses the number of processes, and which tests run in the same process. PARALLEL= runs all tests in
# one process.
PARALLEL ?= --numprocesses auto --dist loadscope --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help .venv demo page explore test test-processors lint types style format docs test-s3 images deploy stack upload bench constraints clean

help: ## list these targets
	@sed -n 's/^\([.a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14

.venv: $(VENV)/.installed ## the Python environment, as constraints.txt pins it

# The stamp, not the folder, is the target: a folder's time says nothing of what is in it.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: needs Python 3.11 or newer (Debian, Ubuntu: apt-get install python3 python3-venv), or PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	"$(PYTHON)" -m venv "$(VENV)"
	@echo "make: installing the packages of constraints.txt into $(VENV): about 3 GB with PyTorch's CPU build, 7 GB with its CUDA build. This takes some minutes, without further output"
	"$(BIN)/python" $(PIP_INSTALL) --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: .venv ## generate a scene, embed it, check it and search it, in one process
	$(BIN)/python -m examples.demo

page: rasterembed/explorer/static/index.html ## build the explorer's page (needs Node.js 18 or newer, and npm)

PAGE := rasterembed/explorer/page
PAGE_SOURCES := $(wildcard $(PAGE)/*.json $(PAGE)/*.mjs) $(shell find $(PAGE)/src -type f 2>/dev/null)

rasterembed/explorer/static/index.html: $(PAGE_SOURCES)
	@node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 18 ? 1 : 0)' 2>/dev/null && command -v npm >/dev/null || { \
	  echo "make: the explorer's page needs Node.js 18 or newer, and npm (Debian, Ubuntu: apt-get install nodejs npm)" >&2; exit 1; }
	cd $(PAGE) && npm ci --no-audit --no-fund && npm run build

# `make explore EXPLORE="--root s3://bucket/prefix --open"` shows another store.
EXPLORE ?= --root demo/store

explore: .venv page ## look at the demo's store in a browser; EXPLORE="--root URI" for another one
	@test "$(EXPLORE)" != "--root demo/store" || test -d demo/store || "$(BIN)/python" -m examples.demo
	$(BIN)/rasterembed explore $(EXPLORE)

test: style ## formatting, style, imports, and the tests that need nothing but this machine
	$(BIN)/pytest $(PARALLEL)

test-processors: .venv ## the tests that compare vectors, with the math kernels of other processors
	scripts/test_processors.sh $(BIN)/pytest

lint: style types ## formatting, style, types and the direction of imports

types: .venv
	$(BIN)/mypy

style: .venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

format: .venv ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: .venv ## the documentation as pages, in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test-s3: .venv ## the tests against a real Ceph gateway (root: installs Debian's packages)
	$(BIN)/pytest -m s3

images: ## build the Docker images (docs/deployment.md)
	scripts/images.sh

deploy: .venv ## put pools, blocks and deployments on the server of PREFECT_API_URL; DEPLOY="--name FLOW/DEPLOYMENT" for one
	$(BIN)/python -m scripts.deploy $(DEPLOY)

stack: ## start Prefect, S3, webhook and worker with Docker Compose (docs/deployment.md)
	cd docker && $(COMPOSE) up --build --detach

upload: .venv ## put RASTER into the stack's bucket, and wait for the dataset
	$(BIN)/python -m scripts.upload $(RASTER)

bench: .venv ## measure speed and memory, here and of others (docs/benchmarks.md); an hour on two quiet cores
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.end_to_end
	$(BIN)/python -m benchmarks.reading
	$(BIN)/python -m benchmarks.warping
	$(BIN)/python -m benchmarks.remote
	$(BIN)/python -m benchmarks.scenes
	$(BIN)/python -m benchmarks.collection_search
	$(BIN)/python -m benchmarks.neighbours
	$(BIN)/python -m benchmarks.slow_store
	$(BIN)/python -m benchmarks.encodings
	$(BIN)/python -m benchmarks.small_vectors
	-$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.cold_start
	$(BIN)/python -m benchmarks.prefect_overhead
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.tables

# A separate environment, so that nothing that happens to be in $(VENV) gets in. The CPU and the
# CUDA build of PyTorch share one version but not their dependencies: the file serves both.
constraints: NEW := $(VENV)-new
constraints: ## resolve constraints.txt anew (docs/development.md)
	"$(PYTHON)" -m venv --clear "$(NEW)"
	"$(NEW)/bin/python" $(PIP_INSTALL) --constraint constraints.in --editable '.[dev]'
	{ echo '# Every package that `make .venv` installs, pinned. Written by `make constraints`: see docs/development.md.'; \
	  "$(NEW)/bin/python" -m pip freeze --exclude-editable \
	  | sed 's/+[a-z0-9.]*$$//' | grep -Ev '^(nvidia-|cuda-|triton==)'; } > constraints.new
	mv constraints.new constraints.txt
	rm -rf "$(NEW)"

clean: ## remove the environment and everything the tools left behind
	rm -rf $(VENV) $(VENV)-new .venv-airflow .venv-stac .venv-peers build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis rasterembed/explorer/static rasterembed/explorer/static-new rasterembed/explorer/page/node_modules rasterembed/explorer/page/.tests
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
