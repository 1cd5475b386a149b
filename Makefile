# The development of broadcast-server. `make` lists what there is.
# All is installed into .venv and tests/node_modules; nothing outside the checkout changes, but for
# Chromium, tmux and some shells, which `make chromium`, `make tmux` and `make shells` install with
# apt-get where they are missing and we are root.

PYTHON ?= python3
PORT = 8765
ARGS =
# What `make compare` compares with.
REV = HEAD~1
# How many processes share the tests. Most of them wait, so two for each core are busy enough.
WORKERS = 6
# COVERAGE=1: `make test` counts the lines that the tests reach.
COVERAGE =
# STRESS=short: `make stress` in small sizes.
export STRESS

# The default Python has its environment in .venv, another one, by name or path, in .venv-3.13 or
# the like. Those of pyenv are found also where its shims refuse.
VENV := .venv
ifneq ($(PYTHON),python3)
version = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
ifeq ($(version),)
override PYTHON := $(or $(lastword $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/*/bin/$(PYTHON))),$(PYTHON))
endif
VENV := .venv-$(version)
endif

# Else all modules would be compiled again each time that a test starts the command.
unexport PYTHONDONTWRITEBYTECODE

BIN := $(VENV)/bin
PYTEST = -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
NODE_MODULES := $(if $(wildcard tests/package.json),tests/node_modules/.stamp)

.DEFAULT_GOAL := help
.PHONY: help .venv chromium firefox shells tmux proxies run quick test stress soak conformance fuzz check \
	lint types coverage package bench compare guard hostile walks man reference site docs screenshots clean

help: ## list the targets
	@echo "make <target>, where <target> is one of:"
	@awk -F ':[^#]*## ' '/^[a-z.-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

run: .venv ## start a hub on port 8765 (PORT=… for another) and say what to type next
	@echo
	@echo "In another terminal, here, type:  $(BIN)/broadcast-server --connect --port $(PORT)"
	@echo "Do so in a third one as well: what you type in one is shown in the other."
	@echo
	@$(BIN)/broadcast-server --start --port $(PORT)

quick: .venv ## the tests that need neither other programs nor much time (PYTHON=python3.10 for another Python)
	$(BIN)/python $(PYTEST) -m "not slow and not stress and not package and not site" $(ARGS)

test: .venv $(NODE_MODULES) chromium firefox shells tmux proxies ## install what the tests need and run all but the long ones (ARGS=… for pytest)
ifeq ($(COVERAGE),)
	$(BIN)/python $(PYTEST) $(ARGS)
else
	rm -f .coverage .coverage.*
	$(BIN)/coverage run $(PYTEST) $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
endif

stress: .venv $(NODE_MODULES) ## run the stress tests at their full size (STRESS=short for small sizes)
	$(BIN)/python -m pytest $(if $(STRESS),--numprocesses 2 --dist loadfile) -m stress --timeout 600 $(ARGS)

soak: .venv ## use and abuse a hub at random for half an hour (ARGS="--minutes 30 --clients 1000")
	$(BIN)/python -m tests.soak $(ARGS)

conformance: .venv ## run every case of the Autobahn suite against the hub and the client
	$(BIN)/python -m tests.conformance.run --role server $(ARGS)
	$(BIN)/python -m tests.conformance.run --role client $(ARGS)

fuzz: .venv ## throw broken input at the parsers and at a hub for ten minutes (ARGS=--help)
	@$(BIN)/python -c 'import atheris' 2>/dev/null \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]' \
		|| echo "There is no atheris for this Python or machine: see docs/topics/dependencies.md"
	$(BIN)/python -m tests.fuzz.run $(ARGS)

check: lint types coverage package ## what CI runs beside the tests: the four targets below

lint: .venv ## ruff's rules and format, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: .venv ## mypy --strict
	$(BIN)/mypy

coverage: ## the tests once more, counting the lines that they reach
	$(MAKE) test COVERAGE=1

package: .venv ## build sdist and wheel, install each into an empty environment and try it
	$(BIN)/python -m pytest -m package --timeout 300 $(ARGS)

bench: .venv ## measure this hub and its rivals side by side (ARGS=--help)
	$(BIN)/python tests/benchmarks/bench.py $(ARGS)

compare: .venv ## measure this hub beside that of an earlier commit (REV=HEAD~1)
	$(BIN)/python tests/benchmarks/compare.py --rev $(REV) $(ARGS)

guard: .venv ## fail if the hub is not 10 times as fast as websockets.broadcast(), or sends too often
	$(BIN)/python tests/benchmarks/guard.py $(ARGS)

hostile: .venv ## attack a hub within its limits and fail if the others notice, an hour (ARGS="--only who --rounds 1")
	$(BIN)/python -m tests.benchmarks.hostile $(ARGS)

walks: .venv ## count the files and functions that a join, a message and the like lead through (ARGS=--help)
	@$(BIN)/python tests/benchmarks/walks.py $(ARGS)

docs: man reference site ## make the pages that are made from the code, and the site of all pages

reference: .venv ## make options.md, library.md and the shell completions
	$(BIN)/python docs/reference/make_options.py
	$(BIN)/python docs/reference/make_library.py
	$(BIN)/python docs/completions/make_completions.py

site: $(VENV)/.docs ## build the pages as a site, build/site/, and check it; a warning is an error
	rm -rf build/site
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet \
		-d build/doctrees -c docs . build/site
	$(BIN)/python -m pytest -m site tests/documents/test_site.py $(ARGS)
	@echo "The site: build/site/index.html"

man: .venv ## make the man page, docs/man/broadcast-server.1
	$(BIN)/python setup.py --quiet build_manpages

screenshots: .venv chromium tmux ## take the README's pictures, docs/images/
	$(BIN)/python -m tests.documents.screenshots
	$(BIN)/python -m tests.documents.terminal_picture

chromium: ## install Chromium for the tests of the page, if there is none (Debian, as root)
	@if command -v chromium || command -v chromium-browser || command -v google-chrome; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && \
		DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium; \
	else echo "There is no Chromium, so the tests of the page will be skipped."; fi

firefox: ## fetch Firefox for the tests of the page, into build/firefox, if there is none (Debian)
	@if command -v firefox-esr || command -v firefox || [ -e build/firefox/usr/lib/firefox-esr ]; then :; \
	elif command -v apt-get >/dev/null; then \
		if [ "$$(id -u)" = 0 ]; then apt-get update -q; fi; \
		libraries=$$(apt-cache depends firefox-esr | sed -n 's/^ *Depends: \(libvpx.*\)/\1/p'); \
		mkdir -p build/firefox && cd build/firefox && apt-get download -q firefox-esr $$libraries && \
		for package in *.deb; do dpkg -x "$$package" . && rm "$$package"; done; \
	else echo "There is no Firefox, so the tests of the page will be skipped in it."; fi

shells: ## install zsh, fish, bash-completion and jq for the tests of the command (Debian, as root)
	@if command -v zsh && command -v fish && command -v jq && \
		[ -e /usr/share/bash-completion/bash_completion ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive \
		apt-get install -q -y --no-install-recommends zsh fish bash-completion jq; \
	else echo "zsh, fish, bash-completion or jq is missing, so their tests will be skipped."; fi

tmux: ## install tmux for the tests of the terminal, if there is none (Debian, as root)
	@if command -v tmux; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && \
		DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends tmux; \
	else echo "There is no tmux, so the tests of the terminal will be skipped."; fi

proxies: ## fetch nginx and Caddy for the tests of a how-to, into build/proxies, if there are none (Debian)
	@if command -v nginx && command -v caddy || [ -e build/proxies/usr/bin/caddy ]; then :; \
	elif command -v apt-get >/dev/null; then \
		if [ "$$(id -u)" = 0 ]; then apt-get update -q; fi; \
		mkdir -p build/proxies && cd build/proxies && apt-get download -q nginx caddy && \
		for package in *.deb; do dpkg -x "$$package" . && rm "$$package"; done; \
	else echo "nginx or Caddy is missing, so the tests of a proxy in front will be skipped."; fi

.venv: $(VENV)/.stamp ## make .venv and install the package with all that tests and checks need

$(VENV)/.stamp: setup.cfg setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,check]'
	@touch $@

$(VENV)/.docs: $(VENV)/.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

tests/node_modules/.stamp: tests/package.json $(wildcard tests/package-lock.json)
	cd tests && npm ci --no-audit --no-fund
	@touch $@

clean: ## remove everything that make has made
	rm -rf .venv .venv-* build dist *.egg-info tests/node_modules tests/benchmarks/build
	rm -rf tests/fuzz/findings
	rm -rf .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
