# semslam: `make demo` shows what it does, `make test` checks that it does it, `make docs` writes its pages. Each of them
# installs everything first.
# Debian 12, Ubuntu 22.04 or newer; Python 3.11 or newer. Extra arguments for pip go into PIP_ARGS, for example
#   make setup PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"    (a smaller PyTorch, without CUDA)

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := runs/demo

# The first interpreter that is new enough; PYTHON=/path/to/python overrides.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

.PHONY: demo setup test test-quick test-all lint format docs bench clean
.DEFAULT_GOAL := demo

demo: setup
	$(BIN)/semslam reconstruct room --out $(DEMO)
	@echo
	@echo "map and mesh:  $(DEMO)/map.ply  $(DEMO)/mesh.ply"
	@echo "pictures:      $(DEMO)/preview.png"
	@echo "look around:   $(BIN)/semslam view $(DEMO)"

setup: $(INSTALLED)

# The stamp makes the second call instant; a change of pyproject.toml or constraints.txt makes it run again.
$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "semslam needs Python 3.11 or newer; install it (apt-get install python3.11 \
	python3.11-venv) or name one: make setup PYTHON=/path/to/python"; exit 1; }
	@test "$$(uname)" != Linux || PATH="$$PATH:/sbin:/usr/sbin" ldconfig -p | grep -q libusb-1.0.so.0 || \
		$(MAKE) --no-print-directory libusb
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt --config-settings editable_mode=compat -e ".[test,engines,docs]"
	@touch $@

# Open3D 0.20 loads libusb-1.0 when it is imported, and no wheel brings it.
.PHONY: libusb
libusb:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libusb-1.0-0; \
	else \
		echo "libusb-1.0 is missing and Open3D needs it; please run: sudo apt-get install libusb-1.0-0"; \
	fi

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# CI runs the slow tests too, and all of them in one process, so that none disturbs another's measures. Elsewhere types
# are checked beside the tests, which take longer; both have to pass.
test: setup
	$(MAKE) --no-print-directory $(if $(filter true,$(CI)),test-all,-j2 lint test-quick)

test-quick: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: lint
	$(BIN)/python -m pytest

docs: setup
	$(BIN)/python docs/build.py docs/site
	@echo "pages:  docs/site/index.html"

bench: setup
	$(BIN)/python benchmarks/fusion.py

clean:
	rm -rf $(VENV) build dist docs/site *.egg-info .pytest_cache .ruff_cache .mypy_cache
