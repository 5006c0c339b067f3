PYTHON ?= python3
VENV ?= .venv
# Installed first, so that another build can be asked for, with pip's own options, where the default
# one brings several GB of CUDA packages that are not wanted.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Tests run in parallel, one thread each; more threads would only wait for each other.
WORKERS ?= auto

.PHONY: help demo test docs fuzz trust notebooks lab bench screenshots lint clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## /\1	/p' Makefile

demo: $(READY) ## set everything up, and leave a page in outputs/
	OMP_NUM_THREADS=1 $(BIN)/mut3r demo --out outputs

test: $(READY) lint ## check style and types, run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

lint: $(READY) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY) ## build the documentation in outputs/docs, and check its pages
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -j auto docs outputs/docs
	$(BIN)/python docs/check_pages.py outputs/docs

# Every parser, on this many inputs each.
CASES ?= 100000

fuzz: $(READY) ## broken inputs on every parser
	FUZZ_CASES=$(CASES) HYPOTHESIS_PROFILE=search OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) tests/test_fuzz.py

# Tries what docs/trust.md promises and writes its table.
trust: $(READY) ## try what docs/trust.md promises, and write its table
	$(BIN)/python benchmarks/load.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/trust.py

notebooks: $(READY) ## execute all notebooks, as pages in outputs/notebooks
	OMP_NUM_THREADS=1 $(BIN)/mut3r notebooks --workers 2 --out outputs/notebooks-static \
		--set backbone=tiny-static 02 03 04 08 09 10
	OMP_NUM_THREADS=1 $(BIN)/mut3r notebooks --workers 2 --out outputs/notebooks \
		--map notebooks/README.md --thumbnails docs/images/notebooks --beside outputs/notebooks-static

lab: $(READY) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

bench: $(READY) ## measure what capturing, gating and sweeping cost
	$(BIN)/python benchmarks/capture.py
	$(BIN)/python benchmarks/gating.py --repetitions 3
	$(BIN)/python benchmarks/gating.py --repetitions 3 --across
	$(BIN)/python benchmarks/gating.py --repetitions 1 --batch 8
	$(BIN)/python benchmarks/gating.py --repetitions 5 --size bundled
	$(BIN)/python benchmarks/gating.py --repetitions 5 --size bundled --batch 8
	$(BIN)/python benchmarks/storage.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/sweeps.py
	$(BIN)/python benchmarks/rendering.py
	$(BIN)/python benchmarks/explorers.py --where-there-is-one
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/explaining.py
	$(BIN)/python benchmarks/gpu.py --where-there-is-one
	$(BIN)/python benchmarks/report.py outputs/benchmarks

screenshots: $(READY) ## photograph the explorers, with Chromium
	$(BIN)/python benchmarks/screenshots.py outputs

clean: ## remove what these leave behind
	rm -rf outputs .pytest_cache .ruff_cache .mypy_cache .hypothesis

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed; set PYTHON="'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -e '.[cluster,docs,test]'
	touch $(READY)
