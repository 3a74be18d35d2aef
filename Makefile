# Two commands do everything on a machine with Python >= 3.11 and make:
#   make demo   installs into .venv and animates a bundled character -> out/demo.mp4
#   make test   installs what the tests need and runs them
# Another Python: make PYTHON=python3.12 demo

PYTHON ?= $(firstword $(foreach name,python3 python3.11 python3.12 python3.13 python3.14,$(shell $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
VENV := .venv
BIN := $(VENV)/bin
# the stamps remember for which pyproject.toml the packages were installed
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo test test-browser check app-pictures clean

help:
	@echo "make demo      install, then animate a character: out/demo.mp4"
	@echo "make test      install, then run the tests (no network)"
	@echo "make test-browser   a real Chromium goes through the app (Debian: sudo apt-get install chromium)"
	@echo "make install   $(BIN)/studio and all it needs"
	@echo "make check     what a change must pass: format, lint, types, imports, tests"
	@echo "make app-pictures   the pictures of docs/app.md, taken by the tests that drive a real Chromium"
	@echo "make clean     remove caches and out/ (keeps $(VENV) and runs/)"

install: $(INSTALLED)

install-dev: $(INSTALLED_DEV)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: no Python >= 3.11 found; install one, or name it: make PYTHON=/path/to/python3.11 install" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "error: venv failed; on Debian and Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }

$(INSTALLED): pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV): torch's standard wheels are large, a few minutes the first time"
	$(BIN)/python -m pip install -e .
	@touch $@

$(INSTALLED_DEV): pyproject.toml | $(INSTALLED)
	$(BIN)/python -m pip install -e '.[dev]'
	@touch $(INSTALLED) $@

demo: install
	$(BIN)/studio animate --reference juice-box --driving wave-both --prompt "a white and teal striped juice box waves both arms overhead" --seed 0 --preview --output out/demo.mp4
	@echo "the video          out/demo.mp4"
	@echo "how it was made    out/demo.json"
	@echo "contact sheet      out/demo.png"

test: install-dev
	scripts/test

test-browser: install-dev
	$(BIN)/python -m pytest tests/browser

check: install-dev
	scripts/check

app-pictures: install-dev
	STUDIO_PICTURES=docs/media/app $(BIN)/python -m pytest tests/browser

clean:
	rm -rf out build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
