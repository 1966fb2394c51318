# TinyTorch Hub. `make` alone lists what there is; every target can be run again without harm.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON ?= python3
ENVS := $(or $(TINYTORCH_ENVS),.envs)
HUB := $(ENVS)/hub/bin/python
USER_PYTHON := $(ENVS)/user/bin/python
DEV := $(ENVS)/dev/bin
UV := $(abspath $(ENVS))/uv/bin/uv
INSTALLED = [ -x $(HUB) ] || { echo "nothing is installed in $(ENVS): make up does that"; exit 0; };
HAVE_PYTHON = command -v $(PYTHON) >/dev/null || { echo "make: there is no $(PYTHON) here. Install Python 3.11 or newer (Debian, Ubuntu: \
  apt-get install python3) or say which one: make up PYTHON=/path/to/python3.12"; exit 1; };
# whoever names a Python gets it; otherwise an environment keeps the one it was made with
ENVIRONMENTS = $(HAVE_PYTHON) $(PYTHON) -m hub.environments $(if $(filter command environment,$(origin PYTHON)),--this-python)
TESTS ?= tests

.PHONY: help up down logs status reset build test lint bench bench-framework lock oracle check

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## start the site on this machine (environments, course, hub), or bring it up to date
	@$(ENVIRONMENTS) hub exchange user proxy
	@$(HUB) -m hub.up up

down: ## stop the site; nothing is lost
	@$(INSTALLED) $(HUB) -m hub.up down

logs: ## follow what happens; make logs OF="hub exchange" for some processes only
	@$(INSTALLED) $(HUB) -m hub.up logs $(OF)

status: ## which processes run
	@$(INSTALLED) $(HUB) -m hub.up status

reset: ## remove all data of the site; asks first
	@$(INSTALLED) $(HUB) -m hub.up reset $(if $(YES),--yes)

check: ## look whether classes.yml is right, without starting anything
	@$(ENVIRONMENTS) hub
	@$(HUB) -m hub.site check

build: ## generate the framework, notebooks and editions from the modules' sources
	@$(ENVIRONMENTS) user
	@$(USER_PYTHON) -m course.build

test: ## run the tests (TESTS=tests/unit for some)
	@$(ENVIRONMENTS) hub exchange user proxy dev
	@$(USER_PYTHON) -m course.build
	@$(DEV)/python -m pytest $(TESTS)

lint: ## ruff, mypy, yamllint, shellcheck, and who may import whom
	@$(ENVIRONMENTS) dev
	@$(DEV)/ruff check .
	@$(DEV)/mypy
	@$(DEV)/yamllint --strict -d '{extends: default, rules: {line-length: {max: 400}, document-start: disable, braces: {max-spaces-inside: 1}, comments: {min-spaces-from-content: 1}}}' $$(git ls-files '*.yml' '*.yaml')
	@$(DEV)/lint-imports --no-cache --no-logo
	@if command -v shellcheck >/dev/null; then shellcheck $$(git ls-files '*.sh' .ci/run); \
	  elif [ -n "$$CI" ]; then echo "lint: shellcheck is missing: apt-get install shellcheck"; exit 1; \
	  else echo "shellcheck is not installed: shell scripts were not checked"; fi

bench: ## measure start cost, memory and speed against the plain stack
	@$(ENVIRONMENTS) hub exchange user proxy dev
	@$(DEV)/python -m tests.benchmarks

bench-framework: ## measure the framework's training steps against PyTorch's
	@$(MAKE) --no-print-directory oracle
	@$(DEV)/python -m tests.benchmarks framework

oracle: ## add PyTorch to the test environment, so that the framework's tests can ask it
	@$(ENVIRONMENTS) dev
	@[ -x $(ENVS)/uv/bin/pip ] || { echo "make oracle needs pip: apt-get install python3-venv, remove $(ENVS)/uv, and run it again"; exit 1; }
	@$(ENVS)/uv/bin/pip --python $(DEV)/python install --disable-pip-version-check -q torch==2.13.0

lock: ## resolve requirements/*.in anew
	@$(ENVIRONMENTS) user
	@cd requirements && for name in uv hub exchange node; do \
	  $(UV) pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --python-version 3.11.2 \
	    --custom-compile-command "make lock" $$name.in -o $$name.txt; done
	@cd requirements && for name in user dev; do \
	  $(UV) pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --python-version 3.11.2 \
	    --custom-compile-command "make lock" --override user.overrides $$name.in -o $$name.txt; done
	@cd requirements/proxy && npm install --package-lock-only --omit-lockfile-registry-resolved
