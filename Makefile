# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test quick lint format clean help

help:  ## Say what can be made.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.demo  ## Install, then train, predict, evaluate and report on phantoms.
	$(BIN)/medseg3d demo --out demo-out

test: $(VENV)/.test lint  ## Install the test tools, then check everything that CI checks.
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --cov

quick: $(VENV)/.test lint  ## The same without slow tests and coverage, in at most 90 s.
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto -m "not slow"

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test  ## Put the code into shape.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## Remove the virtual environment and what the demo made.
	rm -rf $(VENV) demo-out

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet -c constraints.txt -e ".[train,report]"
	touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet -c constraints.txt -e ".[train,report,dicom,dev]"
	# they ask for torchvision, and for an older NumPy and Rich
	$(BIN)/pip install --quiet --no-deps dynamic-network-architectures==0.4.4 panoptica==2.1.7
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "medseg3d needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "on Debian: apt install python3-venv"; exit 1; }
