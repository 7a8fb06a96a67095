# `make` lists what there is. Every target but gpu and clean first sees to the environment in .venv.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

# To create .venv with; any Python >= 3.11.
PYTHON ?= python3
# Where `make ui` listens, and the database that it shows; empty: this checkout's.
PORT ?= 5000
# The demo's, where there is no other.
DB ?= $(if $(MLFLOW_TRACKING_URI)$(wildcard mlflow.db),,$(wildcard $(DEMO)/mlflow.db))
# Anything, for `make test`: the slow tests too.
SLOW ?=
# What to install besides, of pyproject.toml's optional dependencies: ray.
EXTRAS ?=
# A revision that no variant may be significantly worse than, for `make gate`.
export BASELINE ?=

# A recipe that names MAKE itself would be run by `make -n`, too.
AGAIN := $(MAKE)
VENV := $(CURDIR)/.venv
READY := .venv/.ready $(EXTRAS:%=.venv/.ready-%)
DEMO := build/demo
# A worker takes all tests of a file, which share fixtures.
PARALLEL := --numprocesses 2 --dist loadgroup --no-loadscope-reorder

# Recipes, and the stages that DVC starts from them, run in the environment.
export PATH := $(VENV)/bin:$(PATH)
export VIRTUAL_ENV := $(VENV)
export MLFLOW_DISABLE_TELEMETRY := true
# Workers for jobs that nothing here asks for: six more processes.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
# Threads that wait for each other sleep soon: on a machine that is shared, spinning costs tenfold.
export GOMP_SPINCOUNT ?= 5000
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE

.PHONY: help
help:
	@echo "Usage: make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## /  \1  /p' Makefile | awk '{ printf "  %-14s", $$1; $$1 = ""; print }'

.PHONY: environment
environment: $(READY) ## Create .venv and install what requirements.lock pins (EXTRAS=ray: Ray too)

# Written last, so that an interrupted installation is taken up again.
.venv/.ready: requirements.lock pyproject.toml
	@.venv/bin/python -m pip --version >/dev/null 2>&1 || { \
		$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
			echo "error: $(PYTHON) is not Python 3.11 or newer: install one and name it, as in 'make $(or $(MAKECMDGOALS),environment) PYTHON=python3.12'" >&2; \
			exit 2; }; \
		case "$$PWD" in *:*) \
			echo "error: $$PWD: Python creates no environment in a path with ':'; move the checkout to one without" >&2; \
			exit 2;; esac; \
		echo "Creating .venv with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv --clear .venv || { \
			echo "error: $(PYTHON) cannot create environments: install its venv module (Debian: apt install python3-venv)" >&2; \
			rm -rf .venv; exit 2; }; }
	@command -v uv >/dev/null || { \
		echo "Installing uv into .venv"; \
		.venv/bin/python -m pip install --quiet --ignore-installed uv; }
	@echo "Installing the packages of requirements.lock (on Linux some 5 GB the first time, a minute or two)"
	uv pip sync --python .venv/bin/python --require-hashes requirements.lock
	uv pip install --python .venv/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.ready-%: .venv/.ready requirements-%.lock
	uv pip install --python .venv/bin/python --require-hashes --requirements requirements-$*.lock
	@touch $@

# In a fresh clone dvc.lock says that `track` has run, but this machine's MLflow knows nothing yet.
.PHONY: repro
repro: $(READY) ## Run the whole pipeline, or what changed in it: the one command to start with
	@rm -f logs/no-source.txt; \
	dvc repro; code=$$?; \
	if [ $$code -eq 0 ]; then \
		if [ -n "$$MLFLOW_TRACKING_URI" ] || [ ! -e mlflow.db ]; then \
			python stages track || exit; \
		fi; \
		echo; \
		echo "Done. The results are in reports/, the trained models in models/."; \
		echo "See and compare the runs in MLflow: make ui"; \
	elif [ -e logs/no-source.txt ] && [ -z "$$REFASHION_NO_DEMO" ]; then \
		echo; \
		echo "NOT THE REAL DATA: the official files are not in reach, so nothing was trained on them."; \
		echo "What follows is the demo, on the small images that ship with scikit-learn."; \
		echo; \
		$(AGAIN) --no-print-directory demo || exit; \
		echo; \
		echo "NOT THE REAL DATA: these are results of the demo. For the real ones, do as"; \
		echo "logs/no-source.txt says, then: make repro"; \
	else \
		faults=$$(refashion mend --check) || echo "$$faults" >&2; \
		exit $$code; \
	fi

.PHONY: demo
demo: $(READY) ## Run the whole pipeline on small images, without a network, in build/demo
	@echo "Running the pipeline on the data set 'digits' in $(DEMO)"
	@rm -rf $(DEMO)
	@git checkout-index --all --force --prefix=$(DEMO)/
	@rm -rf $(DEMO)/dvc.lock $(DEMO)/models $(DEMO)/reports
	@sed -e 's/^  dataset: [a-z_]*/  dataset: digits/' -e 's/^    dataset: kaggle/    dataset: synthetic/' \
		-e 's/^    images: [0-9]*/    images: 1280/' -e 's/^batch_size: [0-9]*/batch_size: 32/' \
		-e 's/^epochs: [0-9]*/epochs: 30/' -e 's/^  limit:.*/  limit:/' -e 's/^    lr: 0\.1$$/    lr: 0.05/' \
		-e 's/^    lr: 0\.5$$/    lr: 0.1/' params.yaml > $(DEMO)/params.yaml
	@cd $(DEMO) && dvc config core.no_scm true && dvc repro
	@echo
	@echo "Done. The demo's results are in $(DEMO)/reports/, its models in $(DEMO)/models/."
	@echo "See and compare its runs in MLflow: make ui DB=$(DEMO)/mlflow.db"

.PHONY: k-fold
k-fold: $(READY) ## Validate every variant on folds of the training images (a minute or two)
	dvc repro stages/k_fold/dvc.yaml
	python stages track k_fold

.PHONY: gate
gate: $(READY) ## Hold the results to their promise and to params.yaml's gates (BASELINE=REV)
	refashion gate $${BASELINE:+--baseline "$$BASELINE"}

.PHONY: test
test: $(READY) ## Run the tests, two at a time (SLOW=1: those too that only CI waits for)
	python -m pytest $(PARALLEL) $(if $(SLOW),-m "not emulated and (ci or not faults)")

.PHONY: test-faults
test-faults: $(READY) ## Inject faults everywhere, and count what is lost (20 minutes; needs Debian's strace)
	FAULTS_TABLE=benchmarks/results/faults.json python -m pytest $(PARALLEL) -v -m "faults and not ci" tests/faults

.PHONY: test-emulated
test-emulated: $(READY) ## Run the self-test on emulated x86-64 and ARM64 (minutes; needs Debian's qemu-user)
	python -m pytest -m emulated

.PHONY: lint
lint: $(READY) ## Check style and types
	ruff check .
	ruff format --check .
	mypy

.PHONY: bench
bench: $(READY) ## Measure the speed against peers and the machine's limits
	python benchmarks/run.py

# Where a GPU is, torch and numpy often are too, and little else can be installed.
.PHONY: gpu
gpu: ## Check and measure a GPU, with the torch and numpy of PYTHON alone (minutes)
	@$(PYTHON) -c 'import numpy, torch' 2>/dev/null || { \
		echo "error: $(PYTHON) has no torch or no numpy: install them or name one that does, as in 'make gpu PYTHON=python3.12'" >&2; \
		exit 2; }
	@PYTHONPATH=src $(PYTHON) benchmarks/gpu.py

.PHONY: report
report: $(READY) ## Write this workspace's results as a page with pictures to build/report.html
	@refashion report

.PHONY: ui
ui: $(READY) ## Show the runs in MLflow's pages, in a browser where there is one (PORT=5000)
	@$(if $(DB),MLFLOW_TRACKING_URI=sqlite:///$(DB)) refashion ui --port $(PORT)

.PHONY: clean
clean: ## Remove what can be made again: builds, logs, pictures, tools' caches; never data or runs
	rm -rf build logs reports/figures .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find benchmarks src stages tests -name __pycache__ -type d -prune -exec rm -rf {} +
