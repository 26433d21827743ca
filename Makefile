PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SOURCES := setup.py pyproject.toml $(shell find csrc -type f)

.PHONY: demo test test-install bench machine-code install build lint format clean

# Check, time and train the shift on this machine; pictures go to out/. Options: make demo ARGS=--quick
demo: install
	$(BIN)/s2mlp demo $(ARGS)

# The whole test suite, in two processes. Options go to pytest: make test ARGS="-k gradcheck"
test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# What builds the package in environments of its own: setup.py develop, sdist, wheel, under other versions of PyTorch
test-install: install
	$(BIN)/python -m pytest tests/binary -m installs $(ARGS)

# Every operator and model against every other way to compute it; results go to out/bench/. Options: make bench ARGS=--full
bench: install
	$(BIN)/s2mlp bench $(ARGS)

# What the kernels of the installed binary execute per KB that they move, counted without a GPU; goes to benchmarks/results/machine-code/.
machine-code: install
	$(BIN)/python tests/machine_code/report.py --save benchmarks/results/machine-code

install: $(INSTALLED)

# After a change to csrc/: compiles what it touches, for one GPU architecture; tests and demo run on that. `touch setup.py` before
# any other target compiles for all
build: $(VENV)/.requirements
	test -e $(INSTALLED) || $(MAKE) install
	PATH="$(CURDIR)/$(BIN):$$PATH" TORCH_CUDA_ARCH_LIST=$${TORCH_CUDA_ARCH_LIST-9.0} $(BIN)/python setup.py -q build_ext --inplace
	touch $(INSTALLED)

# What the test suite checks of the sources
lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Lays out Python as the check wants it
format: install
	$(BIN)/ruff format

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
