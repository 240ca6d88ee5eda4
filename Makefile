# Two commands do all the set-up: `make baseline` and `make test`. `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
PLAYBOOK := $(BIN)/ansible-playbook
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# A user's own settings must not change what the targets do.
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

LINTED := benchmarks files library packaging plugins tests
TYPED := benchmarks files library packaging/collection plugins/action plugins/analysis plugins/callback plugins/doc_fragments plugins/filter plugins/lookup packaging/typings/ansible/module_utils tests

.DEFAULT_GOAL := help
.PHONY: help baseline audit rollback sweep report first-token test lint types syntax docs-check unit test-vm vm-images test-vm-all test-faults test-hostile test-bad-input test-sweep test-scale test-browser collection test-collection bench bench-agreement bench-template bench-one-host bench-fleet bench-first-token bench-engine fuzz lock clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

baseline: .venv/control ## tune, verify, measure and report on gpu-hosts (as shipped: this machine)
	$(PLAYBOOK) baseline.yml -l gpu-hosts $(ARGS)

audit: .venv/control ## compare the fleet with its wanted tuning; changes nothing
	$(PLAYBOOK) audit.yml $(ARGS)

rollback: .venv/control ## restore gpu-hosts exactly as they were
	$(PLAYBOOK) rollback.yml -l gpu-hosts $(ARGS)

sweep: .venv/control ## what do the settings do to load and first token? (HOST=name)
	$(PLAYBOOK) sweep.yml -l $(or $(HOST),gpu-hosts) $(ARGS)

first-token: .venv/control ## record what a cold start reads, and replay it before the next start asks (HOST=name)
	$(PLAYBOOK) first_token.yml -l $(or $(HOST),gpu-hosts) $(ARGS)

report: .venv/control ## write reports/index.html, the page of the whole fleet, from stored results
	$(PLAYBOOK) report.yml $(ARGS)

test: lint types syntax docs-check unit ## everything that is safe on any laptop: no root, no kernel setting touched

lint: .venv/dev
	$(BIN)/ruff check $(wildcard $(LINTED))
	$(BIN)/ruff format --check $(wildcard $(LINTED))
	$(BIN)/yamllint --strict .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline -q

types: .venv/dev
	$(BIN)/mypy $(wildcard $(TYPED))

syntax: .venv/dev
	$(PLAYBOOK) --syntax-check $(wildcard baseline.yml audit.yml rollback.yml sweep.yml report.yml first_token.yml)

docs-check: .venv/dev
	$(BIN)/ansible-doc -t module $(patsubst library/%.py,%,$(wildcard library/*.py)) > /dev/null

unit: .venv/dev
	$(BIN)/pytest tests/unit tests/module -n logical --maxprocesses 8

test-vm: .venv/dev ## real virtual machines: reboots, drift, faults, power loss (plain emulation will do; see docs/testing.md)
	$(BIN)/pytest tests/live/vm -m "not slow_vm" -n 2 --dist loadgroup $(ARGS)

vm-images: .venv/dev ## the disk images of test-vm, ahead of it; it makes them otherwise
	$(BIN)/python -m tests.vm.image

test-vm-all: .venv/dev ## the same on every supported system and under every condition of the README's table (an hour and more)
	$(BIN)/pytest tests/live/vm -n 2 --dist loadgroup $(ARGS)

test-faults: .venv/dev ## kill and fail every changing system call of the setters (root; private mount namespace)
	$(BIN)/pytest tests/live/faults $(ARGS)

test-hostile: .venv/dev ## what a hostile user of the host can do while the modules and plays run (root; private namespaces)
	$(BIN)/pytest tests/live/hostile $(ARGS)

test-bad-input: .venv/dev ## bad input against this machine's real kernel (root; leaves it as it was)
	$(BIN)/pytest tests/live/bad_input

test-sweep: .venv/dev ## a real sweep, killed in the middle of a block and taken up again (root; two minutes)
	$(BIN)/pytest tests/live/sweep

test-scale: .venv/dev ## audit and no-change tuning of 100, 300 and 1,000 hosts beside a ping (root; Debian: openssh-server)
	$(BIN)/python -m benchmarks.scale $(ARGS)

test-browser: .venv/dev ## the page in a real Chromium, metrics in a real Prometheus (Debian: chromium prometheus prometheus-node-exporter)
	$(BIN)/pytest tests/browser tests/monitoring

collection: .venv/control ## build the collection slm.baseline from these files: build/slm-baseline-VERSION.tar.gz
	$(BIN)/python packaging/collection/build.py

# A repository of its own: in a checkout, ansible-test skips every file, since git ignores build/.
test-collection: .venv/dev collection ## Ansible's own checks of the built collection (downloads what ansible-test needs)
	cd build/ansible_collections/slm/baseline && git init --quiet && \
	  $(CURDIR)/$(BIN)/ansible-test sanity --venv --test validate-modules --test import --test compile --test ansible-doc $(ARGS)

bench: .venv/dev ## what the observer costs: its load time against the same loader by hand
	$(BIN)/python -m benchmarks.fidelity $(ARGS)

bench-agreement: .venv/dev ## our cold and warm load times beside hyperfine's of the same loader
	$(BIN)/python -m benchmarks.agreement $(ARGS)

bench-template: .venv/dev ## whether a template's child loads the weights as a fresh process does (root)
	$(BIN)/python -m benchmarks.template $(ARGS)

bench-first-token: .venv/dev ## how much sooner the first token comes, beside vmtouch and cat (root; Debian: vmtouch)
	$(BIN)/python -m benchmarks.first_token $(ARGS)

bench-engine: .venv/dev ## how much sooner a recorded serving engine answers (root; ARGS: target, request)
	$(BIN)/python -m benchmarks.engine $(ARGS)

bench-one-host: .venv/dev ## what tuning, audit and rollback cost on one virtual machine, beside a ping
	$(BIN)/python -m benchmarks.one_host $(ARGS)

bench-fleet: .venv/dev ## the page of a thousand hosts: size, build, first paint, filter (Debian: chromium)
	$(BIN)/python -m benchmarks.fleet_page $(ARGS)

fuzz: .venv/dev ## a coverage-guided minute over every parser
	$(BIN)/pip install --quiet --requirement packaging/requirements/fuzz.txt
	$(BIN)/python tests/fuzz/fuzz_parsers.py $(ARGS)

lock: ## renew the locked requirements from their .in files (needs uv)
	for name in control dev; do \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --custom-compile-command "make lock" packaging/requirements/$$name.in --output-file packaging/requirements/$$name.txt || exit 1; done

clean: ## remove the environment and caches of this folder; results and reports stay
	rm -rf .venv build .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
