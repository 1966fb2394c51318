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
export BASE_IMAGE EXTRA_CA FRESH DOCKER
CLASSES := $(abspath $(or $(TINYTORCH_CLASSES),classes.yml))
INVENTORY ?= inventory.yml
# A playbook on the hosts of inventory.yml. CHECK=1 changes nothing and says what would be; ARGS goes to ansible-playbook as it is.
PLAYBOOK = @$(ENVIRONMENTS) deploy; \
  [ -e $(INVENTORY) ] || { cp ansible/inventory.example.yml $(INVENTORY); echo "  $(INVENTORY) is new: this machine. Name another host in it if you mean one"; }; \
  [ -e $(CLASSES) ] || { echo "make: there is no $(CLASSES): cp -r hub/example/. . and write your classes and site.url into it"; exit 1; }; \
  ANSIBLE_CONFIG=ansible/ansible.cfg $(ENVS)/deploy/bin/ansible-playbook -i $(INVENTORY) $(if $(CHECK),--check --diff) $(ARGS) \
    -e tinytorch_checked_out=$(or $(VERSION),$$($(PYTHON) -m hub.version)) -e tinytorch_checkout=$(CURDIR) -e tinytorch_classes=$(CLASSES)

# links are written to INVITES, readable by their maker only, when it is given
INVITE = $(HUB) -m hub.accounts.invitations $(FOR) $(if $(DAYS),--days $(DAYS)) $(if $(INVITES),--csv $(INVITES))

.PHONY: help up down logs status reset invites check images base-image bundle deploy backup restore rollback destroy \
  build test test-deploy lint bench bench-framework lock oracle

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

invites: ## links behind which people choose a password; make invites FOR="ada bob" INVITES=links.csv DAYS=7
	@$(INSTALLED) $(INVITE)

deploy: ## put the site onto the hosts of inventory.yml, or bring it up to date; CHECK=1 only says what would change
	$(PLAYBOOK) ansible/deploy.yml

backup: ## back the deployed site up now, and fetch the backup
	$(PLAYBOOK) ansible/backup.yml

restore: ## put a backup back: FROM=latest, the name of one on the host, or a file here; REPLACE=1 over data
	$(PLAYBOOK) -e tinytorch_from=$(if $(wildcard $(FROM)),$(abspath $(FROM)),$(FROM)) -e tinytorch_replace=$(or $(REPLACE),0) -e tinytorch_identity=$(IDENTITY) ansible/restore.yml

rollback: ## run the version before again, with today's data
	$(PLAYBOOK) ansible/rollback.yml

destroy: ## take the site off its hosts; asks first; BACKUPS=1 removes the backups, too
	$(PLAYBOOK) -e tinytorch_yes=$(or $(YES),0) -e tinytorch_backups=$(or $(BACKUPS),0) ansible/destroy.yml

check: ## look whether classes.yml is right, without starting anything
	@$(ENVIRONMENTS) hub
	@$(HUB) -m hub.config check

build: ## generate the framework, notebooks and editions from the modules' sources
	@$(ENVIRONMENTS) user
	@$(USER_PYTHON) -m course.build

test: ## run the tests (TESTS=tests/unit for some)
	@$(ENVIRONMENTS) hub exchange user proxy dev deploy
	@$(USER_PYTHON) -m course.build
	@$(DEV)/python -m pytest -m "not deployment" $(TESTS)

test-deploy: ## deploy to a bare machine that the test makes, upgrade, back up, restore (Docker, a quarter of an hour); SUITE=trixie DATABASE=postgresql
	@$(ENVIRONMENTS) hub exchange user proxy dev deploy
	@$(USER_PYTHON) -m course.build
	@TINYTORCH_TEST_SUITE=$(or $(SUITE),bookworm) TINYTORCH_TEST_DATABASE=$(DATABASE) $(DEV)/python -m pytest -m deployment tests/deploy

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

images: ## build the container images (ONLY="student hub" for some; images/README.md says what else)
	@$(HAVE_PYTHON) $(PYTHON) -m images.build $(ONLY)

base-image: ## make the image that they stand on from Debian's packages, where no registry is reached; needs root
	@images/base-image.sh tinytorch/debian:bookworm $(or $(SUITE),bookworm) $(MIRROR)

bundle: ## write all images into one file, for machines without a registry; ALSO="my/image:1" for those of classes
	@$(HAVE_PYTHON) $(PYTHON) -m images.bundle save $(FILE) $(foreach image,$(ALSO),--also $(image))

lock: ## resolve requirements/*.in anew
	@$(ENVIRONMENTS) user
	@cd requirements && for name in uv hub exchange node deploy caddy; do \
	  $(UV) pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --python-version 3.11.2 \
	    --custom-compile-command "make lock" $$name.in -o $$name.txt; done
	@cd requirements && for name in user dev; do \
	  $(UV) pip compile -q --universal --generate-hashes --no-emit-index-url --no-annotate --python-version 3.11.2 \
	    --custom-compile-command "make lock" --override user.overrides $$name.in -o $$name.txt; done
	@cd requirements/proxy && npm install --package-lock-only --omit-lockfile-registry-resolved
