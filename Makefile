# Every target sets itself up in .venv; a fresh machine needs Python 3.11+, a C++ compiler and make.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
SETUP := $(VENV)/.installed
CPP = $$(git ls-files '*.h' '*.cc')
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup build demo demo-smoke test test-arm test-sanitize bench lint format docs wheel clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(SETUP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sparsejax needs Python 3.11 or newer, \
	$(PYTHON) is " + sys.version.split()[0] + ": try make PYTHON=/path/to/a/newer/python")'
	@echo "setting up $(VENV) (a few minutes the first time)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install -qq "scikit-build-core>=0.10" "nanobind>=2.4" "jaxlib>=0.10" "cmake>=3.26" "ninja>=1.11"
	@$(PY) -m pip install -qq --no-build-isolation -e ".[test,experiments]"
	@touch $@

setup: $(SETUP)  ## create .venv and install the package with its test tools

build: $(SETUP)  ## rebuild the C++ extension after an edit (seconds)
	@$(PY) -m pip install -qq --no-deps --no-build-isolation -e .

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
	$(VENV)/bin/clang-format --dry-run --Werror $(CPP)

format: $(SETUP)  ## rewrite the sources in the project's format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(VENV)/bin/clang-format -i $(CPP)

$(VENV)/.docs: $(SETUP)
	@$(PY) -m pip install -qq $$($(PY) -c 'import tomllib as t; \
	print(*t.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"])')
	@touch $@

docs: build $(VENV)/.docs  ## the documentation, into build/docs; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet --site-dir build/docs

wheel: $(SETUP)  ## the sdist, and a wheel built from it in isolation, into dist/
	$(PY) -m build

clean:  ## remove everything that was built
	rm -rf $(VENV) build dist demo-output
