# Two commands do all the set-up: `make baseline` and `make test`. `make help` lists the rest.
# ARGS is passed on: make baseline ARGS="--check --diff".
PYTHON ?= python3
BIN := .venv/bin
PLAYBOOK := $(BIN)/ansible-playbook
HOSTS = $(or $(HOST),gpu-hosts)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# A user's own settings must not change what the targets do.
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

PLAYS := baseline audit rollback sweep report first-token
LIVE := vm vm-all faults others hostile bad-input sweep control-nodes models containers
BENCHES := fidelity agreement template first-token engine container one-host fleet-page
LINTED := benchmarks files library packaging plugins tests
TYPED := benchmarks files library packaging/collection packaging/variables_page.py plugins/action plugins/analysis plugins/callback \
  plugins/doc_fragments plugins/filter plugins/lookup packaging/typings/ansible/module_utils tests

.DEFAULT_GOAL := help
.PHONY: help $(PLAYS) test lint types syntax docs-check unit $(LIVE:%=test-%) test-scale test-browser test-collection test-collection-ssh \
  vm-images collection $(BENCHES:%=bench-%) bench bench-fleet mutation fuzz lock clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- the environment ------------------------------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "slm-baseline: wanted Python 3.11 or later; found $$($(PYTHON) -V). Next: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv .venv

.venv/control: packaging/requirements/control.txt | $(BIN)/python
	$(BIN)/pip install --quiet --require-hashes --requirement packaging/requirements/control.txt
	@touch $@

.venv/dev: packaging/requirements/dev.txt .venv/control
	$(BIN)/pip install --quiet --require-hashes --requirement packaging/requirements/dev.txt
	@touch $@

# --- the plays (HOST=name for one host) ------------------------------------------------------------------------------

baseline: .venv/control ## tune, verify, measure and report on gpu-hosts (as shipped: this machine)
	$(PLAYBOOK) baseline.yml -l gpu-hosts $(ARGS)

audit: .venv/control ## compare the fleet with its wanted tuning; changes nothing
	$(PLAYBOOK) audit.yml $(ARGS)

rollback: .venv/control ## restore gpu-hosts exactly as they were
	$(PLAYBOOK) rollback.yml -l gpu-hosts $(ARGS)

sweep: .venv/control ## what do the settings do to load and first token?
	$(PLAYBOOK) sweep.yml -l $(HOSTS) $(ARGS)

first-token: .venv/control ## record what a cold start reads, and replay it at the next start
	$(PLAYBOOK) first_token.yml -l $(HOSTS) $(ARGS)

report: .venv/control ## write reports/index.html, the page of the whole fleet, from stored results
	$(PLAYBOOK) report.yml $(ARGS)

# --- tests that run anywhere ------------------------------------------------------------------------------------------

test: lint types syntax docs-check unit ## everything that is safe on any laptop: no root, no kernel setting touched

lint: .venv/dev
	$(BIN)/ruff check $(wildcard $(LINTED))
	$(BIN)/ruff format --check $(wildcard $(LINTED))
	$(BIN)/yamllint --strict .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline -q

types: .venv/dev
	$(BIN)/mypy $(wildcard $(TYPED))

syntax: .venv/dev
	$(PLAYBOOK) --syntax-check $(wildcard $(subst -,_,$(PLAYS:%=%.yml)))

docs-check: .venv/dev
	$(BIN)/ansible-doc -t module $(patsubst library/%.py,%,$(wildcard library/*.py)) > /dev/null

unit: .venv/dev
	$(BIN)/pytest tests/unit tests/module -n logical --maxprocesses 8

mutation: .venv/dev ## how many small faults in ROOM=path the unit tests notice (ARGS: --sample, --seed)
	$(BIN)/pip install --quiet --requirement packaging/requirements/mutation.txt
	$(BIN)/python tests/mutation.py $(ROOM) $(ARGS)

fuzz: .venv/dev ## a coverage-guided minute over every parser
	$(BIN)/pip install --quiet --requirement packaging/requirements/fuzz.txt
	$(BIN)/python tests/fuzz/fuzz_parsers.py $(ARGS)

# --- tests on a real kernel (root; each leaves the machine as it was) -------------------------------------------------

test-vm: .venv/dev ## real virtual machines: reboots, drift, faults, power loss (plain emulation will do; see docs/testing.md)
	$(BIN)/pytest tests/live/vm -m "not slow_vm" -n 2 --dist loadgroup $(ARGS)

test-vm-all: .venv/dev ## the same on every supported system and under every condition of the README's table (an hour and more)
	$(BIN)/pytest tests/live/vm -n 2 --dist loadgroup $(ARGS)

vm-images: .venv/dev ## the disk images of test-vm, ahead of it; it makes them otherwise
	$(BIN)/python -m tests.live.vm.image

test-faults: .venv/dev ## kill and fail every changing system call of the setters (ARGS="--every 3": every third)
test-others: .venv/dev ## what others on the host keep while it is tuned, swept and rolled back
test-hostile: .venv/dev ## what a hostile user of the host can do while the modules and plays run
test-bad-input: .venv/dev ## bad input against this machine's real kernel
test-sweep: .venv/dev ## a real sweep, killed in the middle of a block and taken up again (two minutes)
test-control-nodes: .venv/dev ## the whole job from each supported ansible-core, in environments of their own
test-models: .venv/dev ## every kind of model that people publish, cold and warm (a Python with torch: docs/models.md)
test-containers: .venv/dev ## first-token targets in containers of a docker daemon of the tests' own (Debian: docker.io)
test-faults test-others test-hostile test-bad-input test-sweep test-control-nodes test-models test-containers: test-%:
	$(ALONE) $(BIN)/pytest tests/live/$(subst -,_,$*) $(ARGS)
# Faults are found by counting system calls, and the setters look at every process: others would move the counts.
test-faults: ALONE := unshare --fork --pid --mount-proc --kill-child

test-collection-ssh: .venv/dev ## the built collection in an empty folder, by full names against two hosts (Debian: openssh-server)
	$(BIN)/pytest tests/live/collection $(ARGS)

test-scale: .venv/dev ## audit and no-change tuning of 100, 300 and 1,000 hosts beside a ping (Debian: openssh-server)
	$(BIN)/python -m benchmarks.scale $(ARGS)

test-browser: .venv/dev ## the page in a real Chromium, metrics in a real Prometheus (Debian: chromium prometheus prometheus-node-exporter)
	$(BIN)/pytest tests/browser tests/monitoring

# --- the collection ----------------------------------------------------------------------------------------------------

collection: .venv/control ## build the collection slm.baseline from these files: build/slm-baseline-VERSION.tar.gz
	$(BIN)/python packaging/collection/build.py

# A repository of its own: in a checkout, ansible-test skips every file, since git ignores build/.
test-collection: .venv/dev collection ## Ansible's own checks of the built collection (downloads what ansible-test needs)
	cd build/ansible_collections/slm/baseline && git init --quiet && \
	  $(CURDIR)/$(BIN)/ansible-test sanity --venv --test validate-modules --test import --test compile --test ansible-doc $(ARGS)

# --- measurements of the measurement (root, nothing else running) ------------------------------------------------------

bench-fidelity: .venv/dev ## what the observer costs: its load time against the same loader by hand
bench-agreement: .venv/dev ## our cold and warm load times beside hyperfine's of the same loader
bench-template: .venv/dev ## whether a template's child loads the weights as a fresh process does
bench-first-token: .venv/dev ## how much sooner the first token comes, beside vmtouch and cat (Debian: vmtouch)
bench-engine: .venv/dev ## how much sooner a recorded serving engine answers (ARGS: target, request)
bench-container: .venv/dev ## a model server in a container, cold, replayed and warm, beside a bare process (Debian: docker.io)
bench-one-host: .venv/dev ## what tuning, audit and rollback cost on one virtual machine, beside a ping
bench-fleet-page: .venv/dev ## the page of a thousand hosts: size, build, first paint, filter (Debian: chromium)
$(BENCHES:%=bench-%): bench-%:
	$(BIN)/python -m benchmarks.$(subst -,_,$*) $(ARGS)

# Names of an earlier release.
bench: bench-fidelity
bench-fleet: bench-fleet-page

# --- this folder -----------------------------------------------------------------------------------------------------

lock: ## renew the locked requirements from their .in files (needs uv)
	for name in control dev; do \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command "make lock" packaging/requirements/$$name.in \
	    --output-file packaging/requirements/$$name.txt || exit 1; done

clean: ## remove the environment and caches of this folder; results and reports stay
	rm -rf .venv build .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
