# Two commands on a fresh machine: `make run` and `make test`.  Both set everything up first, and are quick the second time.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test check hunt hunt-sandblaster planted repeat golden slow bench figures kills wire clean

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

hunt-sandblaster: $(READY)  ## 10,000 schedules of failures for Sandblaster: some minutes
	HYPOTHESIS_PROFILE=night $(BIN)/python -m pytest tests/sim/test_sandblaster.py -k whatever_fails --timeout=0

repeat: $(READY)  ## 1,000 random scenarios of every kind, each run in two processes that hash differently: equal digests
	HYPOTHESIS_PROFILE=night $(BIN)/python -m pytest tests/scenarios/test_repeatable.py -k random_scenarios --timeout=0 -n 0 -rP

golden: $(READY)  ## write the golden journals anew; git diff tests/golden shows what has changed
	$(BIN)/python -m tests.golden

planted: $(READY)  ## bugs that are planted, hunted as a user would: half an hour
	$(BIN)/python -m tests.sim.planted

slow: $(READY)  ## whole jobs under more failures: every durability, several machines, Ray and Slurm where they are installed; every split
	$(BIN)/python -m pytest tests/exec tests/two_worlds tests/sim -m slow -n 0

bench: $(READY)
	$(BIN)/python bench/messages.py
	$(BIN)/python bench/wire.py
	$(BIN)/python bench/durability.py
	$(BIN)/python bench/promises.py
	$(BIN)/python bench/straggler.py
	$(BIN)/python bench/backup.py
	$(BIN)/python bench/lbfgs.py
	$(BIN)/python -m bench.simgrid
	$(BIN)/python -m bench.staleness
	$(BIN)/python -m bench.scale
	$(BIN)/python -m bench.split

figures: $(READY)  ## figures 3, 4 and 5 of the paper in kind: half an hour, and more
	$(BIN)/python -m bench.figure3
	$(BIN)/python -m bench.figure4
	$(BIN)/python -m bench.figure5

kills: $(READY)  ## kill -9 of every process of a real job in turn, with each durability: half an hour
	$(BIN)/python -m bench.kills
	$(BIN)/python -m bench.kills --scenario sandblaster-real --after 20

wire: $(READY)  ## regenerate the protobuf modules
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. exec/wire/*.proto

clean:
	rm -rf $(VENV) runs sim/*.so

# Where C is compiled and Python's headers are, sim/fair.py and sim/heap.py are compiled from their own source: split replicas take half the time.
COMPILES := import os, shutil, sysconfig as s; print(int(bool(shutil.which("cc")) and os.path.exists(s.get_path("include") + "/Python.h")))

$(READY): pyproject.toml constraints.txt sim/fair.py sim/heap.py
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or later is needed; this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	HATCH_BUILD_HOOK_ENABLE_MYPYC=$$($(BIN)/python -c '$(COMPILES)') CFLAGS="$$CFLAGS -ffp-contract=off" \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
