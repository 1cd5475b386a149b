# The development of broadcast-server. `make` lists what there is.
# Everything is installed into .venv and tests/node_modules; nothing outside the checkout changes.

PYTHON ?= python3
PORT ?= 8765
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help .venv

help: ## list the targets
	@echo "make <target>, where <target> is one of:"
	@awk -F ':[^#]*## ' '/^[a-z.-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

.venv: .venv/.stamp ## make .venv and install the package with all that tests and checks need

.venv/.stamp: setup.cfg setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,check]'
	@touch $@
