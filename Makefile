# Every target sets itself up in .venv; a fresh machine needs Python 3.11+, a C++ compiler and make.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
BUILT := $(VENV)/.built
CPP = $$(git ls-files '*.h' '*.cc')
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONDONTWRITEBYTECODE  # each process would compile all of JAX's modules anew, 5 s

.DEFAULT_GOAL := help
.PHONY: help setup build demo demo-smoke test test-arm test-sanitize fuzz fuzz-files bench lint format docs web web-demo wheel clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

# --no-compile halves pip's time: Python compiles what it imports, which is less than what was installed.
$(BUILT): pyproject.toml $(wildcard xla_ops/* xla_ops/*/*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sparsejax needs Python 3.11 or newer, \
	$(PYTHON) is " + sys.version.split()[0] + ": try make PYTHON=/path/to/a/newer/python")'
	@echo "setting up $(VENV) (a few minutes the first time)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install -qq --no-compile "scikit-build-core>=0.11" "nanobind>=2.4" "jaxlib>=0.10" "cmake>=3.26" "ninja>=1.11.1"
	@$(PY) -m pip install -qq --no-deps --no-build-isolation -e .
	@touch $@

# What an extra of pyproject.toml needs; the stamp is pip's report of what it installed, which tests/project/test_install.py
# reads. The package is there by now, so that nothing else is built without isolation.
$(VENV)/.extra-%: pyproject.toml | $(BUILT)
	@$(PY) -m pip install -qq --no-compile --report $(VENV)/.part-$* "sparsejax[$*]"
	@mv $(VENV)/.part-$* $@

setup: $(VENV)/.extra-test $(VENV)/.extra-lint  ## create .venv and install the package with its test tools

build: $(BUILT)  ## rebuild the C++ extension after an edit (seconds)
	@$(PY) -m pip install -qq --no-deps --no-build-isolation -e .

demo: $(BUILT) $(VENV)/.extra-experiments  ## train sparse, run sparse on Fashion-MNIST; writes demo-output/
	$(PY) -m experiments.demo $(DEMO)

demo-smoke: $(BUILT) $(VENV)/.extra-experiments  ## the demo with 20 steps each, to see that it works
	$(PY) -m experiments.demo --smoke

test: $(BUILT) $(VENV)/.extra-test  ## the test suite
	$(PY) -m pytest -n 2 --dist worksteal

test-arm: $(BUILT) $(VENV)/.extra-test  ## the NEON kernels inside an emulated aarch64 Python
	tests/arm/run.sh

test-sanitize: $(BUILT)  ## the C++ tests under ASan, UBSan and TSan
	tests/cpp/run.sh

fuzz: $(BUILT)  ## fuzz programs, files and custom calls for SECONDS (600)
	tests/cpp/run.sh fuzz $(or $(SECONDS),600)

fuzz-files: $(BUILT)  ## fuzz the reader of files and the C runtime with RUNS inputs (a million)
	tests/cpp/run.sh fuzz-files $(or $(RUNS),1000000)

bench: $(BUILT) $(VENV)/.extra-peers  ## kernels and mask updates against dense
	$(PY) -m benchmarks

lint: $(VENV)/.extra-lint  ## ruff, mypy, clang-format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/clang-format --dry-run --Werror $(CPP)

format: $(VENV)/.extra-lint  ## rewrite the sources in the project's format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(VENV)/bin/clang-format -i $(CPP)

docs: $(BUILT) $(VENV)/.extra-docs  ## the documentation, into build/docs; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet --site-dir build/docs

web: $(BUILT) $(VENV)/.extra-web  ## the runtime for WebAssembly, into web/src
	$(PY) web/build.py

web-demo: web  ## the page of web/demo on this machine, with ImageNet's MobileNet-v1 and the networks of `make demo`
	PYTHONPATH=. $(PY) web/demo/networks.py
	PYTHONPATH=. $(PY) web/demo/serve.py

wheel: $(VENV)/.extra-test  ## the sdist, and a wheel built from it in isolation, into dist/
	$(PY) -m build

clean:  ## remove everything that was built
	rm -rf $(VENV) build dist demo-output
