# keyfob: `make` lists the targets. Each does its own set-up; PYTHON=... chooses the Python that keyfob is built for.

VENV := .venv
PY := $(VENV)/bin/python
PYTEST := $(PY) -m pytest
# pytest's exit status where TESTS has none of these tests.
NOTHING_CHOSEN := test $$? -eq 5
# Hosts load one module into one process: tests share nothing, so two processes are as good as two cores.
JOBS ?= 2
# What is compiled or generated at build time. Python sources are live: the install is an editable one.
COMPILED := $(wildcard src/keyfob/*.c src/keyfob/abi/*.[ch] src/keyfob/mechanisms/*.[ch] src/keyfob/nss/tracer/*.[ch]) src/keyfob/abi/build.py src/keyfob/abi/cryptoki.py \
	setup.py pyproject.toml scripts/interpreter.py src/keyfob/__init__.py

.DELETE_ON_ERROR:
.PHONY: help build test test-interop test-long test-firefox mutants screenshots demo bench bench-scale modules check lock clean always

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

build: $(VENV)/.built ## build keyfob into .venv; .venv/bin/keyfob module-path names the module
	@$(PY) -c 'import keyfob, pathlib; print("Built", pathlib.Path(keyfob.__file__).with_name("libkeyfob.so"))'

test: $(VENV)/.dev $(VENV)/.built ## unit and functional tests
	@scripts/tools.sh test
	@$(PYTEST) -n $(JOBS) -m 'not interop and not long and not firefox' $(TESTS)

test-interop: $(VENV)/.dev $(VENV)/.built ## real clients: NSS's tools, OpenSC, OpenSSL, OpenSSH, GnuTLS, Java, Python
	@scripts/tools.sh interop
	@$(PYTEST) -n $(JOBS) -m 'interop and not long and not firefox' $(TESTS)

test-long: $(VENV)/.dev $(VENV)/.built ## kill -9 in a loop, fuzzing, installs into several Pythons
	@scripts/tools.sh test
	@$(PYTEST) -n $(JOBS) -m 'long and not alone and not firefox' $(TESTS) || $(NOTHING_CHOSEN)
	@$(PYTEST) -m 'long and alone and not firefox' $(TESTS) || $(NOTHING_CHOSEN)

mutants: $(VENV)/.dev $(VENV)/.built ## put small faults into keyfob, for each of which a test of its rule must fail (SHARE=3/20, RULES=K6,S2)
	@scripts/tools.sh test
	@$(PY) -m tests.mutants --jobs $(JOBS) $(if $(SHARE),--share $(SHARE)) $(if $(RULES),--rules $(RULES))

test-firefox: $(VENV)/.dev $(VENV)/.built ## Firefox ESR, Thunderbird and Chromium, driven without a screen
	@scripts/tools.sh firefox
	@$(PYTEST) -m firefox $(TESTS)

screenshots: $(VENV)/.dev $(VENV)/.built ## take the documents' pictures of Firefox and of a report anew
	@scripts/tools.sh firefox
	@$(PY) -m tests.interop.firefox.screenshots docs/images
	@$(PY) -m tests.check.screenshot docs/images/check-softhsm.png

demo: $(VENV)/.built ## the main job with NSS's tools, step by step
	@scripts/tools.sh demo
	@$(PY) -m demo $(DEMO)

bench: $(VENV)/.built ## the speed of keyfob, SoftHSM and NSS's softoken side by side
	@scripts/tools.sh bench
	@$(PY) -m bench $(BENCH)

bench-scale: $(VENV)/.built ## what 100 to 100,000 objects on a token cost, side by side likewise
	@scripts/tools.sh bench
	@$(PY) -m bench.scale $(BENCH)

experiments: $(VENV)/.built ## what people fear of software tokens, tried on keyfob, SoftHSM and softoken
	@scripts/tools.sh bench
	@$(PY) -m experiments $(EXPERIMENTS)

modules: $(VENV)/.dev $(VENV)/.built ## check keyfob and other people's modules anew: docs/modules.md
	@scripts/tools.sh test
	@$(PY) tools/check_modules.py

check: $(VENV)/.dev $(VENV)/.built ## lint, format, types, generated files, layers
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check --quiet .
	@$(VENV)/bin/mypy
	@set -e; for generator in tools/generate_*.py; do $(PY) $$generator --check; done
	@$(PYTEST) -q tests/test_layers.py

lock: ## pin requirements/*.txt anew (UPGRADE=1: the newest of everything)
	@scripts/lock.sh $(or $(PYTHON),python3)

clean: ## remove what was built, and .venv
	@rm -rf $(VENV) build dist *.egg-info src/*.egg-info src/keyfob/*.so src/keyfob/mechanisms/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

# A Python that is named may be another than last time.
$(VENV)/.runtime: requirements/runtime.txt requirements/postgresql.txt requirements/build.txt scripts/bootstrap.sh $(if $(PYTHON),always)
	@PYTHON='$(PYTHON)' scripts/bootstrap.sh $(VENV) requirements/runtime.txt requirements/postgresql.txt requirements/build.txt
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	@scripts/bootstrap.sh $(VENV) requirements/dev.txt
	@touch $@

$(VENV)/.built: $(VENV)/.runtime $(COMPILED)
	@echo 'Building keyfob' >&2
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@
