# Two commands on a fresh machine: `make run` and `make test`.  Both set everything up first, and are quick the second time.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test check hunt slow bench wire clean

run: $(READY)
	$(BIN)/simctl run scenarios/quickstart.toml

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)  ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

hunt: $(READY)  ## a long search for failures; see docs/TESTING.md
	HYPOTHESIS_PROFILE=night $(BIN)/python -m pytest tests/sim/test_failures.py --timeout=0

slow: $(READY)  ## whole jobs under more failures: every durability, several machines, Ray and Slurm where they are installed
	$(BIN)/python -m pytest tests/exec -m slow -n 0

bench: $(READY)
	$(BIN)/python bench/messages.py
	$(BIN)/python bench/wire.py
	$(BIN)/python bench/durability.py
	$(BIN)/python bench/straggler.py

wire: $(READY)  ## regenerate the protobuf modules
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. exec/wire/*.proto

clean:
	rm -rf $(VENV) runs

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or later is needed; this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
