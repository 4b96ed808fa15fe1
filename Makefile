# Everything here needs python >= 3.11 and make, and nothing installed by hand.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DELETE_ON_ERROR:
.PHONY: help train check lint types unit test docs lock dist release reference endurance digest fuzz schemas gpu clean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

train: $(VENV)/.installed ## install, then train on the digits that come with scikit-learn, in 60 seconds
	$(BIN)/timebox train digits --test 0.2 --budget 60s --out runs/demo --overwrite

WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

check: lint ## lint, types and unit tests, in a minute and a half
	$(MAKE) --no-print-directory -j 2 types unit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

unit: $(VENV)/.installed-dev
	$(PYTEST) -m "not integration and not endurance" tests

# Coverage is that of the unit tests: measuring it takes half as long again as they do.
test: lint types ## lint, types and all tests but those of endurance, with coverage of the unit tests, in twelve minutes
	$(PYTEST) -m "not integration and not endurance" --cov --cov-report= tests
	$(BIN)/python -m coverage report --skip-covered --skip-empty --sort=cover
	$(PYTEST) -m "integration and not endurance" tests

digest: $(VENV)/.installed-dev ## sums of the models that fixed trainings come to: equal before and after a change of form
	$(BIN)/python tests/digest.py $(DIGEST_OPTIONS)

# tests/endurance is collected only where it is named; -m overrides the "not endurance" of pyproject.toml.
endurance: $(VENV)/.installed-dev ## kills, faults, deadlines and fuzzing for half an hour: make endurance [ENDURANCE_SCALE=1]
	$(PYTEST) tests/endurance
	$(PYTEST) -m endurance tests
	$(MAKE) fuzz FUZZ_SECONDS=190

FUZZ_SECONDS ?= 600
FUZZ_TARGETS := run cifar_pickle cifar_binary idx npz image tar table json_lines parquet archive recipe continuing messages \
	run_directory search_directory benchmark_directory classifier_directory image_cache http_request

fuzz: $(VENV)/.installed-fuzz ## throw damaged input at every reader, for FUZZ_SECONDS (600) in all; stops at a failure
	$(BIN)/python fuzz/seeds.py build/fuzz
	$(MAKE) --no-print-directory -j $(WORKERS) $(addprefix fuzz-,$(FUZZ_TARGETS))

fuzz-%:
	OMP_NUM_THREADS=1 $(BIN)/python fuzz/targets.py $* build/fuzz/$* -artifact_prefix=build/fuzz/$*- -verbosity=0 \
		-max_total_time=$$(( $(FUZZ_SECONDS) * $(WORKERS) / $(words $(FUZZ_TARGETS)) )) -print_final_stats=1 2>build/fuzz/$*.log || \
		{ grep -v ^INFO build/fuzz/$*.log; exit 1; }
	@grep -E "executed_units|per_sec|peak_rss" build/fuzz/$*.log | sed 's/^stat::/$*: /'

schemas: $(VENV)/.installed ## write the JSON Schemas of timebox's files again, from their types
	$(BIN)/python docs/schemas/make.py

reference: $(VENV)/.installed ## write the page of the command line again, from the options of the verbs
	$(BIN)/python docs/site/command_line.py

docs: $(VENV)/.installed-dev ## build the documentation and the Python reference in build/site; any warning fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

LOCK := requirements-dev.lock

lock: $(VENV)/.installed-dev ## write the versions that are installed here to requirements-dev.lock, for make LOCKED=1
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/ @ .*//; s/+[a-z0-9]*$$//' | grep == >$(LOCK)

RELEASE_VENV := build/release-environment

dist: $(VENV)/.installed-release ## build the wheel and the source archive in dist/, and try the wheel in a fresh environment
	rm -rf dist $(RELEASE_VENV)
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv $(RELEASE_VENV)
	$(RELEASE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	$(RELEASE_VENV)/bin/timebox --version
	$(RELEASE_VENV)/bin/timebox train digits --test 0.2 --budget 30s --out build/release-run --overwrite

release: test docs dist ## all that a release needs, but the upload; shows what a maintainer signs off
	@awk '/^It uploads nothing/, 0' docs/reference/versions.md

GPU_PYTHON ?= $(BIN)/python
GPU_OUT ?= gpu-results.jsonl

gpu: ## measure on a GPU, chunk by chunk: make gpu DATA=DIR [CHUNKS="1 2"] [GPU_PYTHON=python3]
ifdef DATA
	set -e; for chunk in $(or $(CHUNKS),0 1 2 3 4 5 6 7 8 9); do \
		PYTHONPATH=src $(GPU_PYTHON) benchmarks/gpu_suite.py $$chunk --data $(DATA) --out $(GPU_OUT) \
			--commit "$$(git describe --always --dirty 2>/dev/null || echo unknown)"; \
	done
else
	PYTHONPATH=src $(GPU_PYTHON) benchmarks/gpu_suite.py --list
	@echo 'Each chunk takes up to nine minutes: make gpu DATA=DIR, where DIR holds CIFAR-10 and CIFAR-100 as published.'
endif

clean: ## remove the virtual environment and what tools left behind; runs are kept
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache src/*.egg-info
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The package is installed editable: a change to its source counts at once, a change to pyproject.toml installs anew.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "timebox needs python >= 3.11, $(PYTHON) is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --editable .
	@touch $@

# With LOCKED=1, the versions of requirements-dev.lock, with which all tests have passed.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check $(if $(LOCKED),--constraint $(LOCK)) --editable '.[dev]'
	@touch $@

$(VENV)/.installed-release: $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[release]'
	@touch $@

$(VENV)/.installed-fuzz: $(VENV)/.installed
	$(BIN)/python -m pip install --disable-pip-version-check --editable '.[fuzz]'
	@touch $@
