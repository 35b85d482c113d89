# Lanner: every task of the project, each in one word.
#
#   make chat     talks to a small model; sets up all it needs
#   make test     passes the tests; sets up all it needs
#   make help     lists the rest
#
# Make only orders the steps: CMake builds (CMakePresets.json), scripts/ does what is more than a line.
# Variables: PREFIX DESTDIR MODEL CHAT_ARGS ROOMS SECONDS FULL JOBS CMAKE_ARGS CTEST_ARGS CUDA_ARCHITECTURES LONG PYTHON SETUP

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS   += --no-print-directory
.DEFAULT_GOAL := all
.NOTPARALLEL:
.DELETE_ON_ERROR:

PREFIX     ?= $(HOME)/.local
DESTDIR    ?=
MODEL      ?=
# The default model is small: its best guess is worth more than a lively one.
CHAT_ARGS  ?= $(if $(MODEL),,--greedy)
ROOMS      ?= engine text model server
SECONDS    ?= 60
FULL       ?= 0
JOBS       ?=
CMAKE_ARGS ?=
CTEST_ARGS ?=
CUDA_ARCHITECTURES ?=
LONG       ?= 0
PYTHON     ?= python3
SETUP      ?= 1

BUILD      := build
VENV       := .venv
CUDA_STAMP := build-cuda/.configured$(if $(CUDA_ARCHITECTURES),-$(subst ;,+,$(CUDA_ARCHITECTURES)))
setup       = $(if $(filter 0,$(SETUP)),true,scripts/setup.sh)
compile     = scripts/with_cargo.sh cmake --build $(1) $(if $(JOBS),--parallel $(JOBS)) $(if $(2),--target $(2)) </dev/null
fetch_model = $(PYTHON) scripts/fetch_default_model.py </dev/null
room_tests  = $(foreach room,$(ROOMS),$(room)_test)

## Everyday
.PHONY: all build chat test python-package clients-test full
all: build ## the same as build

build: $(BUILD)/.configured ## build the program, build/lanner
	@$(call compile,$(BUILD))

# The answer alone goes to stdout and the user's stdin reaches the program untouched, so that it works in a pipe.
chat: ## talk to the default model (MODEL=path another one, CHAT_ARGS=... its flags)
	@$(MAKE) build </dev/null >&2
	@model='$(MODEL)'; [[ -n $$model ]] || model=$$($(fetch_model)); exec $(BUILD)/lanner chat "$$model" $(CHAT_ARGS)

test: layers python-package ## run the tests but the long ones (CTEST_ARGS='-L unit' some, LONG=1 all)
	@model=$$($(fetch_model)); venv=$$PWD/$(VENV); schemas=$$($(VENV)/bin/python scripts/fetch_json_schema_tests.py); \
	  folder=$$PWD/$(BUILD)/test-model; \
	  $$venv/bin/python tests/model/make_model_folder.py "$$model" "$$folder"; \
	  export LANNER_TEST_GGUF="$$model" LANNER_TEST_MODEL_DIR="$$folder" LANNER_PYTHON="$$venv/bin/python" \
	    LANNER_TEST_JSON_SCHEMAS="$$schemas"; \
	  PATH="$$venv/bin:$$PATH" ctest --test-dir $(BUILD) --output-on-failure --no-tests=error -LE $(if $(filter 0,$(LONG)),'long|clients',clients) $(CTEST_ARGS) </dev/null
	@$(VENV)/bin/python -m pytest -q tests/house </dev/null

python-package: $(BUILD)/.configured-python ## build the Python package to import from build/python (PYTHONPATH); needs no pip install
	@$(call compile,$(BUILD))

clients-test: build $(VENV)/.requirements-test ## the tests with clients that are large, or not Python: langchain-openai, litellm, openai for JavaScript
	@scripts/setup_clients.sh $(BUILD)/clients
	@model=$$($(fetch_model)); LANNER_TEST_GGUF="$$model" \
	  ctest --test-dir $(BUILD) --output-on-failure --no-tests=error -L clients $(CTEST_ARGS) </dev/null

full: format-check ## everything: all tests, all checks, all sanitizers, the fuzzers
	@$(MAKE) test LONG=1
	@$(MAKE) lint FULL=1
	@$(MAKE) asan tsan fuzz

## With CUDA
.PHONY: cuda cuda-test gpu-bundle
cuda: $(CUDA_STAMP) ## build with CUDA, build-cuda/lanner; installs a compiler if there is none, needs no GPU (CUDA_ARCHITECTURES=90a-real)
	@$(call compile,build-cuda)

cuda-test: cuda $(VENV)/.requirements-test ## the tests that need a GPU, here
	@model=$$($(fetch_model)); folder=$$PWD/build-cuda/test-model; \
	  $(VENV)/bin/python tests/model/make_model_folder.py "$$model" "$$folder"; \
	  LANNER_TEST_GGUF="$$model" LANNER_TEST_MODEL_DIR="$$folder" \
	  ctest --test-dir build-cuda --output-on-failure --no-tests=error -L gpu $(CTEST_ARGS) </dev/null

gpu-bundle: cuda $(VENV)/.requirements-test ## gather what runs them on another machine, build-cuda/gpu-bundle
	@LANNER_PYTHON=$$PWD/$(VENV)/bin/python scripts/make_gpu_bundle.sh build-cuda "$$($(fetch_model))"

## Checks
.PHONY: asan tsan fuzz format format-check lint layers
asan: build-asan/.configured $(VENV)/.requirements-test ## unit tests and hostile requests under address and undefined-behaviour sanitizers (ROOMS='engine text model server')
	@$(call compile,build-asan,$(room_tests) $(if $(filter server,$(ROOMS)),server_probe))
	@LANNER_PYTHON=$(VENV)/bin/python LANNER_TEST_THOROUGH=$(LONG) scripts/sanitized_tests.sh build-asan $(ROOMS)

tsan: build-tsan/.configured ## unit tests under the thread sanitizer (ROOMS='engine text model server')
	@$(call compile,build-tsan,$(room_tests))
	@scripts/sanitized_tests.sh build-tsan $(ROOMS)

fuzz: build-fuzz/.configured ## run every fuzzer (SECONDS=60 each)
	@scripts/fuzz.sh build-fuzz $(SECONDS)

format: setup-lint ## rewrite the C++ and Rust sources in the project's format
	@scripts/format.sh

format-check: setup-lint ## fail where format would change something
	@scripts/format.sh --check

lint: setup-lint $(BUILD)/.configured $(VENV)/.requirements-test ## ruff and pyright over the Python package, clang-tidy over the files that changed (FULL=1 all of them)
	@$(VENV)/bin/ruff check --no-cache python && $(VENV)/bin/ruff format --check --no-cache python && $(VENV)/bin/pyright --pythonpath $(VENV)/bin/python
	@scripts/lint.sh $(BUILD) $(if $(filter-out 0,$(FULL)),--all) </dev/null

layers: ## check that includes point down (ARCHITECTURE.md, "Layers")
	@$(PYTHON) scripts/check_layers.py

## Installing and cleaning
.PHONY: install uninstall clean distclean help
install: build ## install to PREFIX (default ~/.local); DESTDIR is respected
	DESTDIR='$(DESTDIR)' cmake --install $(BUILD) --prefix '$(abspath $(PREFIX))'

uninstall: ## remove what install put there
	rm -f '$(DESTDIR)$(abspath $(PREFIX))/bin/lanner'
	rm -rf '$(DESTDIR)$(abspath $(PREFIX))/share/lanner/data/wikitext2'

clean: ## remove everything that was built
	rm -rf build build-cuda build-debug build-asan build-tsan build-fuzz

distclean: clean ## also remove the Python environment of the tests and the CUDA compiler
	rm -rf $(VENV) .cuda-toolkit

help: ## this list
	@awk -F ':.*## ' '/^## / { printf "%s%s\n", (n++ ? "\n" : ""), substr($$0, 4) } \
	  /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

# Setting up. A setup check takes a tenth of a second, so it runs every time; the rest leaves a stamp.
.PHONY: setup-build setup-test setup-python setup-lint setup-fuzz
setup-build setup-test setup-python setup-lint setup-fuzz: setup-%:
	@$(setup) --for $* </dev/null

configure = @scripts/with_cargo.sh cmake --preset $(1) $(CMAKE_ARGS) </dev/null && touch $@

$(BUILD)/.configured: CMakePresets.json | setup-build
	$(call configure,release)
# The Python package needs nanobind, which the environment of the tests has.
$(BUILD)/.configured-python: $(BUILD)/.configured $(VENV)/.requirements-test | setup-python
	@scripts/with_cargo.sh cmake -B $(BUILD) -DLANNER_BUILD_PYTHON=ON -DPython_EXECUTABLE=$$PWD/$(VENV)/bin/python >/dev/null </dev/null && touch $@
# Another choice of architectures configures anew.
$(CUDA_STAMP): CMakePresets.json cmake/LannerCuda.cmake | setup-build
	@rm -f build-cuda/.configured*
	@nvcc=$$(scripts/setup_cuda.sh </dev/null) && scripts/with_cargo.sh cmake --preset cuda -DCMAKE_CUDA_COMPILER="$$nvcc" \
	  $(if $(CUDA_ARCHITECTURES),'-DLANNER_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)',-ULANNER_CUDA_ARCHITECTURES) $(CMAKE_ARGS) </dev/null && touch '$@'
build-asan/.configured: CMakePresets.json | setup-build
	$(call configure,asan-ubsan)
build-tsan/.configured: CMakePresets.json | setup-build
	$(call configure,tsan)
build-fuzz/.configured: CMakePresets.json | setup-fuzz
	$(call configure,fuzz)

$(VENV)/.requirements-test: scripts/requirements-test.txt | setup-test
	@$(VENV)/bin/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r $< </dev/null && touch $@
