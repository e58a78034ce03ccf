# Each target sets up what it needs, and is quick the second time. Needs Python >= 3.11 with venv, and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test test-fast check bench label-studio clean
.DEFAULT_GOAL := demo

demo: $(READY)    ## the main job: choose 45,000 of 99,000 prompts, finetune, evaluate
	$(BIN)/python run.py strategy=facility_location budget=45k

test: $(READY)    ## the tests, one process a core; those on real data need ALIQUOT_DATA, those on SLURM need root
	$(BIN)/python -m pytest -n auto

test-fast: $(READY)    ## the tests between two edits: every package, without what is slow or needs a server
	$(BIN)/python -m pytest -n auto -m "not slow and not slurm and not browser"

check: $(READY)   ## style, types, and what may import what
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports --no-logo

bench: $(READY)   ## what the performance claims are measured with
	$(BIN)/python benchmarks/facility_location.py
	$(BIN)/python benchmarks/approximate.py
	$(BIN)/python benchmarks/k_center.py
	$(BIN)/python benchmarks/information_gain.py
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/pools.py

label-studio: .label-studio/.ready    ## 1 GB beside the project: then ALIQUOT_LABEL_STUDIO=.label-studio/bin/label-studio adds its tests

# In an environment of its own: it pins other versions than this project has.
.label-studio/.ready:
	$(PYTHON) -m venv .label-studio
	.label-studio/bin/python -m pip install --quiet --disable-pip-version-check label-studio==1.23.2
	@touch $@

clean:
	rm -rf $(VENV) .label-studio

# torch first and pinned: left to itself pip takes the newest build, with several GB of CUDA.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "error: Python %d.%d found; aliquot needs 3.11 or newer: make PYTHON=python3.11" % v[:2] or 0)'
	@$(PYTHON) -c 'import ensurepip' || { echo "error: this Python has no venv; install it (Debian: apt install python3-venv)"; exit 1; }
	@echo "Setting up $(VENV) (a few minutes the first time) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@
