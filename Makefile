# The same verbs at home and in CI. The environment lives in .venv; every verb makes it first where it is missing.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.set-up

.DEFAULT_GOAL := help
.PHONY: help setup demo example test slow lint types golden docs site bench

help: ## print the verbs
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(SETUP)

# torch first and alone, so that its own choice of build (CPU or a CUDA release) is made before anything else is resolved.
$(SETUP): pyproject.toml constraints.txt
	@echo 'setting up $(VENV): a few minutes the first time'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(SETUP) ## install, then run the demo
	$(BIN)/finegrain demo

example: $(SETUP) ## align a real chat model (135 M) on pairs of ours, some minutes; a stopped run goes on
	$(BIN)/python examples/chat_model.py build/example/model
	@test -f build/example/run/model.safetensors || $(BIN)/finegrain prefer --model build/example/model --data examples/concise.jsonl \
		--out build/example/run objective:dpo --save-every 2 $$(test -f build/example/run/run.json && echo --resume)
	@echo 'build/example/run holds the model; build/example/run/report.html shows the run'

test: $(SETUP) ## the default tests: under three minutes on two cores, no network
	$(BIN)/python -m pytest -n 2 --dist worksteal

slow: $(SETUP) ## the tests that start processes, kill them, or run for minutes
	@$(BIN)/python -c 'import laplace, torchmetrics' 2>/dev/null || $(BIN)/pip install --quiet --no-deps -r tests/witnesses.txt
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

lint: $(SETUP) ## ruff
	$(BIN)/ruff check src tests benchmarks examples

types: $(SETUP) ## mypy, strict on src
	$(BIN)/mypy

golden: $(SETUP) ## compare with the reference values beside the project, where they are
	@if [ -f ../shared/golden/check.py ]; then $(BIN)/python ../shared/golden/check.py --project .; \
	else echo 'golden: no ../shared here; the copies in tests/golden are checked by `make test`'; fi

docs: $(SETUP) ## check the pages: links resolve, code runs
	$(BIN)/python -m pytest tests/test_docs.py -m ''

site: $(SETUP) ## build the pages as a site in build/site, warnings as errors; reading it needs no network
	@$(BIN)/python -c 'import furo, linkify_it, myst_parser' 2>/dev/null || $(BIN)/pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/python -m sphinx -q -n -W --keep-going -E -d build/doctrees -b html docs build/site
	$(BIN)/python docs/offline.py build/site

bench: $(SETUP) ## speed against TRL, and our losses inside it; results go to benchmarks/results
	$(BIN)/python benchmarks/speed.py
	.venv-trl/bin/pip install --quiet -c constraints.txt jaxtyping
	PYTHONPATH=src .venv-trl/bin/python benchmarks/in_trl.py
	PYTHONPATH=src .venv-trl/bin/python benchmarks/reward_in_trl.py
