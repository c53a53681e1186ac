# Each target sets up what it needs, in a virtual environment of its own (.venv).
#
#   PYTHON=python3.12   the interpreter to make .venv from (3.11 or later)
#   PEERS=1             install torch, pandas and dask first, for the tests with -m peers
#   ARGS="-k clip"      further arguments of pytest, gradprune demo or the benchmarks

PYTHON        ?= python3
PEERS         ?=
ARGS          ?=
TORCH_VERSION := 2.13.0

VENV := .venv
BIN  := $(abspath $(VENV))/bin
PIP  := $(BIN)/python -m pip --disable-pip-version-check install --quiet

PACKAGED   := setup.py pyproject.toml MANIFEST.in LICENSE $(wildcard README.md)
PACKAGED   += $(shell find csrc gradprune -type f \
    -not -name '*.py[co]' -not -name '*.so' -not -name '.*')
C_SOURCES  := $(shell find csrc -name '*.c' -o -name '*.h')
PY_SOURCES := $(wildcard setup.py gradprune studies tests benchmarks scripts examples docs)
COMPILERS  := $(foreach cc,gcc clang,$(if $(shell command -v $(cc)),$(cc)))
COMPILERS  := $(or $(COMPILERS),cc)

.DELETE_ON_ERROR:
.PHONY: help demo test test-peers coverage mutants notebooks docs check-c asan sanitize-python
.PHONY: release-check valgrind lint format bench wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' \
	    $(firstword $(MAKEFILE_LIST))

# ---- the environment: stamp files say what has been installed into it ----------------------------

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "gradprune needs Python 3.11 or later; try make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	    { echo "no venv module: on Debian, apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@touch $@

$(VENV)/.build: $(VENV)/.created
	$(PIP) 'build>=1.2'
	@touch $@

$(VENV)/.torch: $(VENV)/.created
	$(PIP) 'torch==$(TORCH_VERSION)'
	@touch $@

# The wheel comes from the sdist, so that both are tested.
dist/.wheel: $(PACKAGED) | $(VENV)/.build
	@rm -rf dist
	$(BIN)/python -m build --outdir dist . > build.log 2>&1 || \
	    { cat build.log; rm -f build.log; exit 1; }
	@rm -f build.log
	@ls dist
	@touch $@

# pip keeps an installed wheel of the same version, so the replacement is forced.
$(VENV)/.wheel: dist/.wheel
	$(PIP) dist/*.whl
	$(PIP) --force-reinstall --no-deps dist/*.whl
	@touch $@

EXTRAS := plot test peers dev bench notebook docs release
$(EXTRAS:%=$(VENV)/.%): $(VENV)/.%: $(VENV)/.wheel
	$(PIP) "$$(ls dist/*.whl)[$*]"
	@touch $@

# ---- for users -----------------------------------------------------------------------------------

demo: $(VENV)/.plot ## install into .venv and run the demonstration
	$(BIN)/gradprune demo $(ARGS)

release-check: $(VENV)/.release ## would others get what they need? on each Python from 3.11 on
	$(BIN)/python scripts/release_check.py

wheel: dist/.wheel ## build the sdist and the wheel into dist/

# ---- for developers ------------------------------------------------------------------------------

# One process a core. Each begins with a part of its own in the order of the files, so that what a
# module's tests share is made once, and takes over from others when it has done its part.
WORKERS := --numprocesses=auto --maxprocesses=8 --dist=worksteal

# From tests/, where the folder gradprune cannot be imported by accident; tests/conftest.py makes
# sure.
test: ## test the wheel, or of its tests what ARGS choose
test: $(VENV)/.test $(if $(PEERS),$(VENV)/.torch $(VENV)/.peers)
	cd tests && GRADPRUNE_TEST_INSTALLED=1 COVERAGE_FILE=../build/coverage \
	    $(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-peers: ## what `make test` skips without torch, pandas, dask
	@$(MAKE) --no-print-directory test PEERS=1 ARGS='-m peers $(ARGS)'

# Apart from `test`, which takes less time without it.
coverage: ## which lines the tests run
	@$(MAKE) --no-print-directory test ARGS='--cov=gradprune --cov-config=../pyproject.toml'

# Without PEERS=1 nothing notices changes to what only the tests with torch and ONNX run.
mutants: ## which single changes to the code do the tests not notice? ARGS=--help
mutants: $(VENV)/.test $(if $(PEERS),$(VENV)/.torch $(VENV)/.peers)
	$(BIN)/python scripts/mutants.py $(ARGS)

# From tests/, too: the kernels start in notebooks/ and find the wheel.
notebooks: $(VENV)/.notebook $(VENV)/.torch ## run the notebooks
	cd tests && $(BIN)/python -m pytest -p no:cacheprovider -c /dev/null --rootdir=.. \
	    --nbmake ../notebooks

# Strict: a warning, such as one of a link that leads nowhere, is an error. With torch, so that
# gradprune.torch has its page.
docs: $(VENV)/.docs $(VENV)/.torch ## build the web site into build/site
	@rm -rf build/site
	$(BIN)/python scripts/make_site.py build/docs
	$(BIN)/sphinx-build -q -W --keep-going -E -c docs/site build/docs build/site
	@echo "build/site/index.html"

check-c: $(COMPILERS:%=check-c-%) ## build and run the C tests with gcc and clang, without warnings

check-c-%:
	@$(MAKE) --no-print-directory -C csrc/tests CC=$* BUILD=../../build/check-$* check

asan: $(COMPILERS:%=asan-%) ## C tests under the address and undefined behaviour sanitizers

# What they find is in the source, not in the compiler, and clang takes minutes to check the AVX-512
# kernels for undefined behaviour. So each compiler has one of them. Without the libraries of one
# (Debian's clang: libclang-rt-dev), the other watches both.
sanitizes  = $(shell echo 'int main(void) { return 0; }' | \
    $(1) -fsanitize=address,undefined -x c -o /dev/null - 2> /dev/null && echo $(1))
SANITIZING = $(foreach cc,$(COMPILERS),$(call sanitizes,$(cc)))
asan-gcc:   SANITIZE = $(if $(word 2,$(SANITIZING)),undefined,address,undefined)
asan-clang: SANITIZE = $(if $(word 2,$(SANITIZING)),address,address,undefined)
asan-cc:    SANITIZE = address,undefined

asan-%:
	@if [ -n '$(filter $*,$(SANITIZING))' ]; then \
	    UBSAN_OPTIONS=print_stacktrace=1 $(MAKE) --no-print-directory -C csrc/tests CC=$* \
	        BUILD=../../build/$(SANITIZE)-$* SANITIZE=$(SANITIZE) check; \
	else echo "asan: $* has no sanitizers here, skipped"; fi

# The extension in an interpreter that knows nothing of sanitizers: their library comes first, and
# tests are chosen in which threads meet. The extension is built from the sdist, apart from what is
# installed. Undefined behaviour is looked for by `asan`.
SANITIZE_TESTS := state/test_threads.py state/test_views.py state/test_copies.py \
                  forms/test_frozen.py engine/test_network.py training/test_training.py
SANITIZE_ARGS  := -k 'thread and not packed' -p no:cacheprovider

sanitize-python: ## Python tests of threads under the thread and address sanitizers
sanitize-python: sanitize-python-thread sanitize-python-address

build/sanitize-%/.built: dist/.wheel
	@rm -rf $(@D)
	CC=gcc GRADPRUNE_SANITIZE=$* $(PIP) --no-cache-dir --no-deps --target $(@D) dist/*.tar.gz
	@touch $@

sanitize-python-thread:  RUNTIME = $(shell gcc -print-file-name=libtsan.so)
sanitize-python-address: RUNTIME = $(shell gcc -print-file-name=libasan.so)

sanitize-python-%: $(VENV)/.test
	@if LD_PRELOAD=$(RUNTIME) ASAN_OPTIONS=detect_leaks=0 $(BIN)/python -c pass > /dev/null 2>&1 \
	    && [ -f '$(RUNTIME)' ]; then \
	    $(MAKE) --no-print-directory build/sanitize-$*/.built && cd tests && \
	    LD_PRELOAD=$(RUNTIME) TSAN_OPTIONS=exitcode=66 \
	    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	    GRADPRUNE_TEST_INSTALLED=1 OMP_NUM_THREADS=2 PYTHONPATH=../build/sanitize-$* \
	    $(BIN)/python -m pytest $(SANITIZE_ARGS) $(ARGS) $(SANITIZE_TESTS); \
	else echo "sanitize-python: no $* sanitizer for this interpreter here, skipped"; fi

valgrind: check-c-$(firstword $(COMPILERS)) ## C tests under valgrind, if it is installed
	@if command -v valgrind > /dev/null; then \
	    $(MAKE) --no-print-directory -C csrc/tests CC=$(firstword $(COMPILERS)) \
	        BUILD=../../build/check-$(firstword $(COMPILERS)) \
	        RUN='valgrind --quiet --error-exitcode=1 --leak-check=full' check; \
	else echo "valgrind: not installed, skipped"; fi

lint: $(VENV)/.dev ## ruff, mypy, stubtest, clang-format, lines of at most 100 characters
	$(BIN)/ruff check $(PY_SOURCES)
	$(BIN)/ruff format --check $(PY_SOURCES)
	$(BIN)/mypy
	cd tests && $(BIN)/python -m mypy.stubtest gradprune._core
	$(BIN)/clang-format --dry-run -Werror $(C_SOURCES)
	$(BIN)/python scripts/long_lines.py

format: $(VENV)/.dev ## let ruff and clang-format rewrite the sources
	$(BIN)/ruff check --fix $(PY_SOURCES)
	$(BIN)/ruff format $(PY_SOURCES)
	$(BIN)/clang-format -i $(C_SOURCES)

bench: $(VENV)/.bench $(VENV)/.torch ## measure side by side with torch and others; ARGS=--help
	cd benchmarks && $(BIN)/python -m run $(ARGS)

clean: ## remove everything that make has made
	rm -rf $(VENV) build dist *.egg-info gradprune/_core*.so
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis tests/.hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
