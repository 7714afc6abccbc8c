# `make reproduce` and `make test` start from a machine with Python >= 3.11 and make, nothing else.
# Settings: PYTHON=python3.12  PROFILE=tiny  ARGS="--refresh"  JOBS=2  DATA=hub  TORCH_INDEX=https://download.pytorch.org/whl/cpu
SHELL   := /bin/sh
VENV    ?= .venv
PROFILE ?= tiny
JOBS    ?= 2
DATA    ?= hub
CHECK   := 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON  ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
             $$p -c $(CHECK) >/dev/null 2>&1 && { echo $$p; break; }; done)
# The stamp names what was installed from; it is written last, so a killed installation is done again.
KEY     := $(shell { cat pyproject.toml constraints.txt; $(PYTHON) -V 2>&1; } | cksum | cut -d' ' -f1)
STAMP   := $(VENV)/.installed-$(KEY)
BIN     := $(VENV)/bin
GOAL    := $(or $(firstword $(MAKECMDGOALS)),venv)
PIP     := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet

.PHONY: help venv reproduce test smoke laptop book lint format clean
help:
	@echo "make reproduce   every notebook at PROFILE=$(PROFILE), figures/, data/results/ and report/$(PROFILE).html"
	@echo "make test        the tests          make smoke   every notebook with one seed and a small budget"
	@echo "make laptop      a real language model, about half an hour; DATA=hub or a folder of TOFU's rows"
	@echo "make book        notebooks/*.ipynb with outputs of the last reproduction"
	@echo "make lint        ruff and mypy      make format  ruff format     make venv, make clean"

venv: $(STAMP)
$(STAMP):
	@$(if $(PYTHON),:,echo "ngdiff needs Python >= 3.11 and found none; name one: make $(GOAL) PYTHON=/path/to/python3.12" >&2; exit 1)
	@$(PYTHON) -c $(CHECK) || { echo "ngdiff needs Python >= 3.11, $(PYTHON) is older; name one: make $(GOAL) PYTHON=python3.12" >&2; exit 1; }
	@echo "installing the pinned packages into $(VENV) (once, a few minutes) ..."
	@ls $(VENV)/.installed-* >/dev/null 2>&1 && test "$$($(BIN)/python -V)" = "$$($(PYTHON) -V)" || \
	  { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); }
	@rm -f $(VENV)/.installed-*
	@$(if $(TORCH_INDEX),$(PIP) 'torch==2.13.0' --index-url $(TORCH_INDEX),:)
	@$(PIP) -c constraints.txt -e '.[test]'
	@touch $(STAMP) && echo "installed: $(VENV)"

reproduce: $(STAMP)
	@$(BIN)/ngdiff reproduce --profile $(PROFILE) --jobs $(JOBS) $(ARGS)

test: $(STAMP)
	@$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

smoke: $(STAMP)
	@$(BIN)/ngdiff reproduce --profile tiny --seeds 0 --smoke --jobs $(JOBS) $(ARGS)

laptop: $(STAMP)
	@$(BIN)/ngdiff fetch smollm2
	@$(BIN)/ngdiff reproduce --profile laptop --only 11 --data $(DATA) --jobs $(JOBS) $(ARGS)

book: $(STAMP)
	@$(BIN)/ngdiff book $(ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(STAMP)
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean:
	@rm -rf $(VENV) .cache report build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
