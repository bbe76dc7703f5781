# `make demo` and `make test` do everything on a fresh Debian or Ubuntu machine with Python 3.11 or newer.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Looked up when used: the system step may have installed it by then.
XVFB = $(if $(shell command -v xvfb-run),xvfb-run -a -s "-screen 0 1600x1000x24")

export MESA_LOG_LEVEL := error
export NAPARI_ENSURE_PLUGIN_MAIN_THREAD := 1

.PHONY: help demo test lint docs bench bench-peers fuzz clean

help:
	@echo "make demo   open napari with the sample slide (without a display: pictures and files in demo/)"
	@echo "make test   lint, import contracts, types and all tests"
	@echo "make lint   the checks without the tests"
	@echo "make docs   the manual in docs/_build/html"
	@echo "make bench  the benchmarks"
	@echo "make bench-peers  the same work by other programs, in an environment of their own"
	@echo "make fuzz   14,000 damaged slides and sections, counted"

demo: $(INSTALLED)
	@mkdir -p demo
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ]; then \
	  $(BIN)/python docs/tour.py --open; \
	else \
	  $(XVFB) $(BIN)/python docs/tour.py --out demo; \
	fi

test: lint
	$(XVFB) $(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

bench: $(VENV)/.installed-bench
	$(XVFB) $(BIN)/python -m pytest benchmarks -s -o timeout=0 -o faulthandler_timeout=0
	$(BIN)/python -m benchmarks.memory

# The peers need older libraries and gigabytes, so they have an environment of their own.
bench-peers: $(VENV)/.installed-bench
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet lazyslide tiatoolbox openslide-python openslide-bin tiffslide fastslide
	test -f .venv-peers/slide.tif || $(BIN)/python -m benchmarks.slides .venv-peers/slide.tif
	OMP_NUM_THREADS=1 .venv-peers/bin/python benchmarks/peers.py .venv-peers/slide.tif docs/peers.json
	HE2ST_BENCH_SLIDE=.venv-peers/slide.tif $(BIN)/python -m pytest benchmarks/test_prediction.py -k does_nothing -s -o timeout=0

fuzz: $(INSTALLED)
	$(BIN)/python -m pytest tests/data -m slow -k many_damaged -s

$(INSTALLED): pyproject.toml .ci/system
	.ci/system $(PYTHON)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[all,test]"
	@touch $@

$(VENV)/.installed-%: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	@touch $@

clean:
	rm -rf demo docs/_build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
