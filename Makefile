PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
SOURCES := setup.py pyproject.toml $(shell find csrc -type f)

.PHONY: demo test bench install clean

# Check, time and train the shift on this machine; pictures go to out/. Options: make demo ARGS=--quick
demo: install
	$(VENV)/bin/s2mlp demo $(ARGS)

# The whole test suite, in two processes. Options go to pytest: make test ARGS="-k gradcheck"
test: install
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# Every operator and model against every other way to compute it; results go to out/bench/. Options: make bench ARGS=--full
bench: install
	$(VENV)/bin/s2mlp bench $(ARGS)

install: $(INSTALLED)

$(VENV)/.requirements: requirements.txt
	@echo "Installing PyTorch and the other requirements into $(VENV), once; this takes a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check -q -r requirements.txt
	touch $@

$(INSTALLED): $(VENV)/.requirements $(SOURCES)
	@echo "Building the kernels, once; this takes two to four minutes."
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python -m pip install --disable-pip-version-check -q --no-build-isolation --no-deps -e .
	touch $@

clean:
	rm -rf build out *.egg-info s2mlp_cuda/*.so $(INSTALLED)
