# What a person types. Every target first brings what it needs into .venv (see .ci/install); the second time that is instant.

.DEFAULT_GOAL := help
.PHONY: help demo test check soak worker-test faults models lock format clean install

# What a person's shell sets for Python is not part of the project: with PYTHONUNBUFFERED two of our bugs went unseen.
unexport PYTHONHOME PYTHONPATH PYTHONUNBUFFERED

PYTHON_FILES := domain providers tasks flows studio deployments benchmarks tests .ci
RUN := .venv/bin/python -m

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r target words; do printf '%-14s %s\n' "$$target" "$$words"; done

install: ## .venv, exactly as requirements.lock says
	@.ci/install

demo: install ## a whole season with no key and no GPU, into onmodel-out/demo
	@.venv/bin/onmodel demo

test: install ## every test that needs no key
	@$(RUN) pytest -n 2 --dist worksteal -q

soak: install ## what takes long: 2,000 damaged clips, 1,000 sound ones, a SIGKILL between
	@$(RUN) pytest -q -n 0 -o faulthandler_timeout=1800 tests/soak

worker-test: ## our serverless worker on tiny weights, in a venv of its own (torch and diffusers: gigabytes)
	@deployments/serverless-sdxl/test

faults: install ## every fault at every step of a paid job, and whole runs; writes docs/faults.md
	@$(RUN) tests.faults.table

models: install ## writes docs/models.md anew from the registry and the price list
	@$(RUN) studio.models_page

check: install ## format, lint, types, import fences, unit and contract tests: under a minute
	@$(RUN) ruff format --check --quiet $(PYTHON_FILES)
	@$(RUN) ruff check --quiet $(PYTHON_FILES)
	@$(RUN) mypy
	@.venv/bin/lint-imports
	@$(RUN) pytest -n 2 --dist worksteal -q tests/unit tests/contract

format: install ## put every Python file into the house's form
	@$(RUN) ruff check --quiet --fix $(PYTHON_FILES)
	@$(RUN) ruff format --quiet $(PYTHON_FILES)

lock: install ## write uv.lock and requirements.lock anew; UPGRADE=1 takes the newest versions
	@.ci/lock $(if $(UPGRADE),--upgrade)

clean: ## take away .venv and every cache; results in onmodel-out stay
	@rm -rf .venv .venv-worker build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
