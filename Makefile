# Farm's commands. They need python3 (3.11 or newer, with pip and venv) and make.
#
#   make demo     label 200 drawn pictures with the bundled model, and show where the labels are
#   make test     run every test, JOBS files beside each other (ARGS="-k name" for some, JOBS=0 for one after the other)
#   make lint     ruff, mypy, import-linter
#   make docs     build the documentation's site, and say where it is; a warning is an error
#   make env      only make the environment, and print where it is
#   make clean    remove what the commands left in this clone, runs/ too
#   make chaos    kill processes of every role at random for MINUTES (default 2), and compare the rows
#   make soak     64 workers on whatever cores there are for MINUTES (default 2); none may be replaced
#
# Dependencies live in an environment shared by all clones with the same pyproject.toml (see .ci/environment.py);
# the code that runs is always this clone's own.

PYTHON ?= python3
# More than the cores of a small machine: much of what tests do is to wait.
JOBS ?= 3
ENV = $$($(PYTHON) .ci/environment.py)
RUN = set -e; env="$(ENV)"; export PYTHONPATH="$(CURDIR)"; export PATH="$$env/bin:$$PATH";

.PHONY: help env demo test lint docs chaos soak clean

help:
	@sed -n 's/^#   //p' Makefile

env:
	@$(PYTHON) .ci/environment.py

demo:
	@$(RUN) python -m farm.demo $(ARGS)

test:
	@$(RUN) python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint:
	@$(RUN) ruff check . && ruff format --check . && mypy && lint-imports

docs:
	@$(RUN) python -m sphinx -b html -W --keep-going -n -q -d build/doctrees docs build/docs
	@echo "the documentation is in $(CURDIR)/build/docs/index.html"

chaos:
	@$(RUN) python -m tests.chaos --minutes $(or $(MINUTES),2) $(ARGS)

soak:
	@$(RUN) python -m tests.soak --minutes $(or $(MINUTES),2) $(ARGS)

clean:
	rm -rf runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
