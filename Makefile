# Every target sets itself up: the first call makes .venv and installs, the later ones find the stamp and go on.
#
#   make demo [SEED=7] [RUN=runs/demo-7]   the whole method on the generated world, to a card
#   make test                              every test that needs no accelerator, no network and little time
#   make check                             format, lint, types
#   make bench                             the figures of benchmarks/, printed
#   make docs                              write docs/cli.md from the commands themselves, and check the import table
#
# On Linux the package index serves torch with CUDA libraries of several gigabytes. Where an index or a folder with
# CPU builds is at hand, PIP_FLAGS names it:  make demo PIP_FLAGS="--extra-index-url URL"  or  PIP_FLAGS="--find-links DIR"

PYTHON    ?= python3
PIP_FLAGS ?=
SEED      ?= 0
RUN       ?= runs/demo-$(SEED)
RECIPE    ?= recipes/demo.toml
WORKERS   ?= auto

BIN   := .venv/bin
STAMP := .venv/installed
TOOLS := .venv/tools

# Tiny models: several threads fighting over two cores are slower than one.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1

.PHONY: setup demo test check bench docs clean
.DEFAULT_GOAL := demo

setup: $(TOOLS)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed, this is %d.%d: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_FLAGS) -c constraints.txt -e '.[train]'
	@touch $(STAMP)

$(TOOLS): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_FLAGS) -c constraints.txt -e '.[train,data,serve,dev]'
	@touch $(TOOLS)

demo: $(STAMP)
	$(BIN)/preceptor run $(RECIPE) --dir $(RUN) --set run.seed=$(SEED)

test: $(TOOLS)
	$(BIN)/python -m pytest -q -n $(WORKERS) --maxprocesses 8 --dist loadfile

check: $(TOOLS)
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(TOOLS)
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

COMMANDS := run "spec check" "spec diff" prompts generate judge "judge calibrate" "judge injection" "judge labels" "judge serve" filter sft rl evals card show chat "export verl" "export openrlhf" "world pretrain" "world check"

docs: $(TOOLS)
	@{ echo '# Commands'; for command in $(COMMANDS); do \
	    printf '\n## `preceptor %s`\n\n```\n' "$$command"; COLUMNS=110 $(BIN)/preceptor $$command --help; echo '```'; \
	done; } > docs/cli.md
	$(BIN)/python -m pytest -q tests/test_layering.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist
