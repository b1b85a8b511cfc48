# One word for each common thing; `make help` lists them. All tools live in $(VENV), made on first use.
# PYTHON names the interpreter the environment is made with: make PYTHON=python3.13 VENV=.venv-3.13 check
PYTHON ?= python3
VENV ?= .venv
DEBIAN_VENV ?= .venv-debian
ANSIBLE_VENV ?= .venv-ansible
# The Debian releases that packages are built for and tested on.
RELEASES ?= bookworm trixie
# More arguments for pytest: make test ARGS="tests/unit -k tree"
ARGS ?=
# make fuzz: TARGET names one (wire.records), some ("wire.*") or the port of a live cluster (port); SEED replays.
TARGET ?= *
# make sim: SEED=8123 replays that one, SEEDS=2000 runs so many; else new seeds are drawn for so many SECONDS.
SEED ?=
SEEDS ?=
SECONDS ?= 60
NODES ?=

PY := $(VENV)/bin/python
# Tests on all processors: tests/conftest.py has the order, and how many processes. ARGS="-n 0": one.
PYTEST := -m pytest -n auto
READY := $(VENV)/.ready
DEBIAN_READY := $(DEBIAN_VENV)/.ready
ANSIBLE_READY := $(ANSIBLE_VENV)/.ready

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run faults fuzz audit test check format format-check lint types proto man check-proto test-debian deb test-package molecule test-molecule lint-ansible bench sim lock clean

help:  ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Made again whenever a requirement changes; the stamp comes last, so an interrupted set-up is not taken for done.
$(READY): requirements-dev.txt pyproject.toml scripts/make_venv.sh
	@PYTHON="$(PYTHON)" scripts/make_venv.sh $(VENV)
	@touch $@

$(DEBIAN_READY): requirements-test.txt scripts/make_debian_venv.sh
	@scripts/make_debian_venv.sh $(DEBIAN_VENV)
	@touch $@

$(ANSIBLE_READY): requirements-ansible.txt scripts/make_venv.sh
	@PYTHON="$(PYTHON)" scripts/make_venv.sh $(ANSIBLE_VENV) requirements-ansible.txt
	@touch $@

run: $(READY)  ## start a cluster of three and show it at work; Ctrl-C ends it
	@$(PY) scripts/tour.py

test: $(READY)  ## run all tests (ARGS="..." goes to pytest)
	$(PY) $(PYTEST) $(ARGS)

check: format-check lint types check-proto test  ## all that CI asks for

format: $(READY)  ## put all code into the one format
	$(PY) -m ruff format
	$(PY) -m ruff check --fix

format-check: $(READY)
	$(PY) -m ruff format --check

lint: $(READY)
	$(PY) -m ruff check

types: $(READY)
	$(PY) -m mypy

proto: $(READY)  ## generate replicad/wire/v1 from proto/
	$(PY) scripts/generate_proto.py

man: $(READY)  ## generate the man pages into build/man
	$(PY) scripts/generate_man.py build/man

check-proto: $(READY)  ## is the generated code up to date?
	$(PY) scripts/generate_proto.py --check

# --tb=native: pytest's own tracebacks parse source, which in Debian 12's Python fails at times (python/cpython#106905).
test-debian: $(DEBIAN_READY)  ## run the tests on Debian's own python3, grpcio, protobuf, cryptography
	$(DEBIAN_VENV)/bin/python $(PYTEST) --tb=native $(ARGS)

deb:  ## build the Debian packages of the last commit into build/deb (RELEASES="bookworm trixie")
	packaging/build-deb.sh $(RELEASES)

test-package: $(READY) deb  ## run the packages on hosts of Debian 12 and 13 with a real systemd; needs root
	packaging/build-deb.sh --suffix +next $(RELEASES)
	packaging/make-test-images.sh host $(RELEASES)
	$(PY) -m pytest -n 2 -m packaging tests/packaging $(ARGS)

molecule: $(READY) $(ANSIBLE_READY) deb  ## set up all that `molecule test` in ansible/ needs; as root
	@packaging/build-deb.sh --previous $(RELEASES) || echo "so the scenario upgrade can't be run"
	@packaging/make-test-images.sh ansible $(RELEASES)
	@echo "ready:  . $(ANSIBLE_VENV)/bin/activate && cd ansible && molecule test --all"

test-molecule: molecule  ## run Molecule's scenarios, two side by side (ARGS="default rotation": those); needs root
	PATH="$(abspath $(ANSIBLE_VENV))/bin:$$PATH" scripts/test_molecule.sh $(ARGS)

# ansible-lint calls the other programs of its environment by name. --offline: nothing comes from Galaxy.
lint-ansible: $(ANSIBLE_READY)  ## look over ansible/: yamllint, and ansible-lint's production profile
	cd ansible && PATH="$(abspath $(ANSIBLE_VENV))/bin:$$PATH" yamllint --strict . ../.config
	cd ansible && PATH="$(abspath $(ANSIBLE_VENV))/bin:$$PATH" ansible-lint --offline

bench: $(READY)  ## measure the five workloads on a cluster of three
	$(VENV)/bin/replicad-cli bench $(ARGS)

sim: $(READY)  ## simulate clusters: SECONDS=60, SEEDS=2000, or replay one: SEED=8123 [NODES=5]
	$(PY) -m tests.simulation $(if $(SEED),--seed $(SEED),$(if $(SEEDS),--seeds $(SEEDS),--seconds $(SECONDS))) \
	    $(if $(NODES),--nodes $(NODES)) $(ARGS)

faults: $(READY)  ## real daemons under real faults: SECONDS=300 [SEED=8123] [NODES=5]; needs root, strace, faketime
	$(PY) -m tests.faults --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(NODES),--nodes $(NODES)) $(ARGS)

fuzz: $(READY)  ## fuzz the parsers: SECONDS=60, TARGET="wire.*", or a live cluster: TARGET=port [SEED=8123]
	$(PY) -m tests.fuzz --seconds $(SECONDS) --target "$(TARGET)" $(if $(SEED),--seed $(SEED)) $(ARGS)

audit: $(READY)  ## do the pins fit together, and is one known to be vulnerable? The latter needs the network
	scripts/audit.sh $(VENV)

lock: ## pin the newest releases that fit, in requirements-*.txt
	PYTHON="$(PYTHON)" scripts/lock.sh

clean:  ## remove all that was made, and no cluster's data
	rm -rf $(VENV) $(DEBIAN_VENV) $(ANSIBLE_VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find replicad tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
