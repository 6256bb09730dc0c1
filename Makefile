# One command for each thing. `make help` lists them; all they make lives in .venv and build.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
UNFINISHED := .venv/.unfinished
PEERS := build/peers

# Without compiled files, which this setting forbids, importing torchvision takes three times as long.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := all
.PHONY: all help setup tour test test-fast check format bench bench-quick peers docs names clean

all: check test  ## check and test (what plain `make` does)

help:  ## list the commands
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

setup: $(STAMP)  ## make .venv with everything in it
	@echo "Ready: everything is in .venv."

# An install that was interrupted leaves $(UNFINISHED) behind, and is begun afresh.
$(STAMP): pyproject.toml constraints.txt
	@if [ -e $(UNFINISHED) ]; then echo "The last set-up was interrupted: starting afresh."; rm -rf .venv; fi
	@mkdir -p .venv && touch $(UNFINISHED)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable ".[dev]"
	@touch $(STAMP) && rm -f $(UNFINISHED)

tour: $(STAMP)  ## see every technique on the embedded networks, in one HTML report
	$(BIN)/optogram tour -o build/tour
	@printf 'The report: %s\n' $(CURDIR)/build/tour/*.html

# Two workers on two cores: each with one thread, or they get in each other's way.
test test-fast: export OMP_NUM_THREADS = 1

test: $(STAMP)  ## run every test
	$(BIN)/python -m pytest -n 2

test-fast: $(STAMP)  ## run the tests that take less than ten seconds each
	$(BIN)/python -m pytest -m "not slow"

check: $(STAMP)  ## hold format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy src
	$(BIN)/lint-imports --cache-dir build/import-linter

format: $(STAMP)  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) peers  ## measure speed against a plain way of doing the same; writes build/bench.json
	OPTOGRAM_PEERS=$(PEERS) $(BIN)/python -m benchmarks

bench-quick: $(STAMP)  ## a part of them, in under five minutes
	$(BIN)/python -m benchmarks --quick

# Other people's programs, which optogram's own environment could not hold.
peers: $(PEERS)/.installed
$(PEERS)/.installed: benchmarks/peers/constraints.txt $(STAMP)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target $(PEERS) --no-deps -r $<
	@touch $@

# A build that was interrupted knows pages whose pictures it never copied: the next begins afresh.
docs: $(STAMP)  ## build the documentation; warnings are errors
	@if [ ! -e build/docs/.finished ]; then rm -rf build/docs; fi
	@rm -f build/docs/.finished
	$(BIN)/python -m sphinx -W --keep-going -q -d build/docs/doctrees docs build/docs/html
	@touch build/docs/.finished
	@echo "The documentation: $(CURDIR)/build/docs/html/index.html"

names: $(STAMP)  ## record the public names, so that none is lost by accident
	$(BIN)/python -m tests.public_names

clean:  ## remove what the commands made, except .venv
	rm -rf build dist docs/api docs/_made docs/examples docs/sg_execution_times.rst
