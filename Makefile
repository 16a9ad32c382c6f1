# `make demo` and `make test` each set up all they need; `make help` lists the rest.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_SETUP := $(VENV)/.installed-demo
TEST_SETUP := $(VENV)/.installed-test
TEST_EXTRAS := lite,label,ram,dino,sam,openvino,train,engine,dev
# Processes that share the tests out by file; each takes up to 3 GB.
WORKERS ?= 2

# Tiny models run 10 to 40 times slower when many threads wait for two busy cores.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
# Some wheels have hundreds of megabytes; uv gives up after 30 s without data unless told otherwise.
export UV_HTTP_TIMEOUT ?= 300

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint format types weights bench lock clean python

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(DEMO_SETUP)  ## tag, detect and segment the example photos; writes out/
	$(BIN)/rasa weights fetch lite
	$(BIN)/rasa run examples/photos --out out --preset lite --overwrite

test: lint types weights  ## lint, types, and all tests but the slow ones
	$(ONE_THREAD) $(if $(filter true,$(CI)),RASA_REQUIRE_WEIGHTS=1) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --max-worker-restart 0

lint: $(TEST_SETUP)  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(TEST_SETUP)  ## repair style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(TEST_SETUP)  ## check types
	$(BIN)/mypy

weights: $(TEST_SETUP)  ## fetch the weights of the preset lite and of MiniLM (300 MB) into the cache
	$(BIN)/rasa weights fetch lite all-minilm-l6-v2.sentence bert-base-uncased.vocab || $(if $(filter true,$(CI)),exit 1,echo "tests that need weights are skipped")

bench: $(TEST_SETUP) weights  ## run the benchmarks; prints figures
	set -e; for script in benchmarks/*.py; do $(BIN)/python "$$script"; done

# Needs no more than uv, so that it also works where the old constraints no longer fit.
lock: | python  ## set constraints.txt to the newest versions
	$(install-uv)
	echo uv | $(BIN)/uv pip compile pyproject.toml - $(foreach extra,$(subst $(comma), ,$(TEST_EXTRAS)),--extra $(extra)) \
	  --universal --python-version 3.11 --upgrade --no-annotate --no-emit-index-url --quiet \
	  --custom-compile-command "make lock" --output-file constraints.txt

clean:  ## remove the environment and all outputs
	rm -rf $(VENV) out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

comma := ,

$(TEST_SETUP): pyproject.toml constraints.txt | python
	$(call install,$(TEST_EXTRAS))
	touch $(DEMO_SETUP) $@

$(DEMO_SETUP): pyproject.toml constraints.txt | python
	$(call install,lite)
	touch $@

install-uv = $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt uv

# uv takes about two minutes for what pip takes eight; pip knows index settings that uv does not.
define install
$(install-uv) || true
$(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable ".[$(1)]" || \
  { echo "uv could not install; trying pip, which takes longer"; \
    $(BIN)/python -m pip install --constraint constraints.txt --editable ".[$(1)]"; }
endef

# Makes the environment where there is none; refuses a Python that is too old, or another one than the environment has.
python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "rasa needs Python 3.11 or newer, and $(PYTHON) is not; run: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); } || \
	  { echo "$(PYTHON) could not make a virtual environment; on Debian and Ubuntu, install python3-venv" >&2; \
	    rm -rf $(VENV); exit 1; }
ifneq ($(origin PYTHON),file)
	@test "$$($(PYTHON) --version)" = "$$($(BIN)/python --version)" || \
	  { echo "$(VENV) has $$($(BIN)/python --version), not that of $(PYTHON); run: make clean" >&2; exit 1; }
endif
