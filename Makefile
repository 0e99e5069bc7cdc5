# Every target sets itself up in .venv; a fresh machine needs Python 3.11+, a C++ compiler and make.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
SETUP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup build demo demo-smoke test test-arm test-sanitize bench lint format docs clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(SETUP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --upgrade pip
	$(PY) -m pip install -q "scikit-build-core>=0.10" "nanobind>=2.4" "jaxlib>=0.7" "cmake>=3.26" "ninja>=1.11"
	$(PY) -m pip install -q --no-build-isolation -e ".[test,experiments]"
	touch $@

setup: $(SETUP)  ## create .venv and install the package with its test tools

build: $(SETUP)  ## rebuild the C++ extension after an edit (seconds)
	$(PY) -m pip install -q --no-deps --no-build-isolation -e .

demo: build  ## train sparse, run sparse on Fashion-MNIST; writes demo-output/
	$(PY) -m experiments.demo

demo-smoke: build  ## the demo in under a minute, to see that it works
	$(PY) -m experiments.demo --smoke

test: build  ## the test suite
	$(PY) -m pytest -n 2 --dist worksteal

test-arm: $(SETUP)  ## the NEON kernels inside an emulated aarch64 Python
	tests/arm/run.sh

test-sanitize: $(SETUP)  ## the C++ tests under ASan and UBSan
	tests/cpp/run.sh

bench: build  ## kernels and mask updates against dense
	$(PY) -m benchmarks

lint: $(SETUP)  ## ruff, mypy, clang-format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/clang-format --dry-run --Werror $$(git ls-files 'xla_ops/*.h' 'xla_ops/*.cc' 'tests/**/*.cc')

format: $(SETUP)  ## rewrite the sources in the project's format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(VENV)/bin/clang-format -i $$(git ls-files 'xla_ops/*.h' 'xla_ops/*.cc' 'tests/**/*.cc')

clean:  ## remove everything that was built
	rm -rf $(VENV) build dist demo-output
