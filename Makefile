# make build   .venv with pyvxlan, its extension and the tools of the tests; quick when nothing changed
# make test    build, then lint, types, stub and every test that can run here
# make demo    build, then two hosts with a container each, on this machine (needs root)
# make lint    build, then ruff, mypy and stubtest alone
# make sanitize  the compiled engine's tests under the address and undefined-behaviour sanitizers
# make fuzz    both engines on input that libFuzzer makes up, for SECONDS=600 (needs clang)
# make soak    ten million packets, 1 GiB each way through an underlay that disturbs it, 200 containers
# make test-engines  the tests of containers with the engines of another Debian, SUITE=trixie (needs debootstrap)
# make bench   build, then measure in memory, save the figures, compare with the last ones
# make bench-smoke  each of these measurements once, untimed
# make docker-plugin  build/docker-plugin, for `docker plugin create pyvxlan build/docker-plugin`
# make dist    build, then sdist and wheel in dist/
# make clean   remove what the other targets made
#
# PYTHON=/path/to/python    the interpreter, 3.11 or later, that .venv is made from
# PYTEST_ARGS="-k fdb"      is handed to pytest

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.up-to-date
SOURCES := pyproject.toml setup.py vxlan/__init__.py $(wildcard fastpath/*.p[xy][dxi])
APT := sudo apt-get install -y

RECENT := import sys; sys.exit(sys.version_info < (3, 11))
VERSION := import sys; print(sys.version)
REQUIRES := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")

ifdef PYTHON
CHOSEN := yes
else
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(RECENT)' 2>/dev/null && echo $$p && break; done)
endif

.PHONY: build test demo lint sanitize sanitized fuzz soak test-engines bench bench-smoke docker-plugin dist clean preflight missing-packages
.DEFAULT_GOAL := build
unexport PYVXLAN_NO_EXT  # what is developed and tested has the extension

# Two runs at the same time take turns; the second one finds the work done.
build:
	@mkdir -p build
ifdef CHOSEN
	@$(PYTHON) -c '$(RECENT)' || { echo "make: $(PYTHON) is not Python 3.11 or later"; exit 1; }
	@test "$$($(BIN)/python -c '$(VERSION)' 2>&1)" = "$$($(PYTHON) -c '$(VERSION)')" || rm -rf $(VENV)
endif
	@flock build/.lock $(MAKE) --no-print-directory --silent $(STAMP)

$(STAMP): $(SOURCES)
	$(MAKE) --no-print-directory preflight
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear --upgrade-deps $(VENV)
	echo "make: installing pyvxlan and what it needs into $(VENV)"
	$(BIN)/python -c '$(REQUIRES)' > build/requires.txt
	$(BIN)/python -m pip install --quiet --requirement build/requires.txt
	PYVXLAN_REQUIRE_EXT=1 PYTHONWARNINGS="ignore:Editable installation" $(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[bench,lab,test]'
	touch $@

preflight:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or later here: $(APT) python3 python3-venv python3-dev, or give PYTHON=/path/to/python"; exit 1; }
	@missing=$$(packaging/missing-packages $(PYTHON)); \
	test -z "$$missing" || { echo "make: missing system packages: $(APT) $$missing"; exit 1; }
	@command -v ip >/dev/null || echo "make: note: some tests use iproute2: $(APT) iproute2"

missing-packages:
	@packaging/missing-packages $(PYTHON)

lint: build
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest vxlan._fastpath

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# A copy of the sources with an extension of its own, so that nobody else meets it:
# $(1) the folder, $(2) how it is compiled and linked, $(3) more flags of the compiler.
define built_apart
@mkdir -p $(1)
@rm -rf $(addprefix $(1)/,vxlan fastpath tests)
@cp -rp setup.py pyproject.toml README.md LICENSE vxlan fastpath tests $(1)
@rm -f $(1)/vxlan/_fastpath.*.so
@cd $(1) && $(2) CFLAGS="-O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=undefined $(3)" \
	PYVXLAN_REQUIRE_EXT=1 $(CURDIR)/$(BIN)/python setup.py --quiet build_ext --inplace
endef

SANITIZED := build/sanitize
SANITIZERS := -fsanitize=address,undefined
UNDER_SANITIZERS = cd $(SANITIZED) && rm -f report.* && \
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:log_path=report UBSAN_OPTIONS=print_stacktrace=1:log_path=report \
	PYTHONMALLOC=malloc PYTHONDONTWRITEBYTECODE=1 $(CURDIR)/$(BIN)/python
OF_THE_EXTENSION := tests/test_fastpath.py tests/test_clamp.py tests/test_fdb_batch.py \
	tests/contract tests/test_differential.py \
	tests/test_offload_fast.py tests/test_merge_fast.py
SECONDS := 600

sanitized: build
	$(call built_apart,$(SANITIZED),CC=gcc LDFLAGS="$(SANITIZERS)",$(SANITIZERS) -Wall -Wextra)
	@$(UNDER_SANITIZERS) -c 'import vxlan._fastpath as f; assert "/$(SANITIZED)/" in f.__file__, f'

sanitize: sanitized
	@$(UNDER_SANITIZERS) -m pytest -q $(OF_THE_EXTENSION) $(PYTEST_ARGS) || { cat report.* 2>/dev/null; exit 1; }

# The same with clang, which counts what the input reaches.
FUZZED := build/fuzz
FUZZERS := -fsanitize=address,undefined,fuzzer-no-link

fuzz: build
	@command -v clang >/dev/null || { echo "make fuzz needs clang: $(APT) clang libclang-rt-dev"; exit 1; }
	@$(BIN)/python -c 'import atheris' 2>/dev/null || \
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable '.[fuzz]'
	$(call built_apart,$(FUZZED),CC=clang LDSHARED="clang -shared",$(FUZZERS))
	@mkdir -p $(FUZZED)/corpus
	@cd $(FUZZED) && LD_PRELOAD="$$($(CURDIR)/$(BIN)/python -c 'import atheris; print(atheris.path())')/asan_with_fuzzer.so" \
	ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
	$(CURDIR)/$(BIN)/python -m tests.fuzz -max_total_time=$(SECONDS) -max_len=4096 -print_final_stats=1 corpus

soak: build
	@test "$$(id -u)" = 0 || { echo "make soak needs root for network namespaces: sudo make soak"; exit 1; }
	PYVXLAN_PACKETS=10000000 PYVXLAN_SOAK=1073741824 \
	$(BIN)/python -m pytest -q -k "not python" tests/test_leaks.py tests/e2e/test_disturbed.py $(PYTEST_ARGS)
	PYVXLAN_CONTAINERS=200 PYVXLAN_SOAK=1073741824 \
	$(BIN)/python -m pytest -q tests/e2e/test_docker_survival.py $(PYTEST_ARGS)

# Built once, in build/; `rm -r` removes it.
test-engines: SUITE := trixie
test-engines: build
	@test "$$(id -u)" = 0 || { echo "make test-engines needs root: sudo make test-engines"; exit 1; }
	@command -v debootstrap >/dev/null || { echo "make test-engines: $(APT) debootstrap"; exit 1; }
	test -e build/engines-$(SUITE)/complete || tests/e2e/newer_engines.sh $(SUITE) build/engines-$(SUITE)
	PYVXLAN_ENGINES=$(CURDIR)/build/engines-$(SUITE) $(BIN)/python -m pytest -q \
	tests/e2e/test_docker.py tests/e2e/test_docker_survival.py tests/e2e/test_docker_swarm.py \
	tests/e2e/test_podman_netavark.py $(PYTEST_ARGS)

demo:
	@test "$$(id -u)" = 0 || { echo "make demo needs root for network namespaces: sudo make demo"; exit 1; }
	@$(MAKE) --no-print-directory build
	$(BIN)/python -m vxlan.lab.demo

# Quiet: bench/conftest.py prints the one table that matters, with the last run beside it.
bench: build
	$(BIN)/python -m pytest bench -q --benchmark-quiet --benchmark-autosave $(PYTEST_ARGS)

bench-smoke: build
	$(BIN)/python -m pytest bench -q --benchmark-disable --largest-table=1000 $(PYTEST_ARGS)

docker-plugin: build
	$(BIN)/python packaging/docker_plugin.py build/docker-plugin
	@echo "make: now docker plugin create pyvxlan build/docker-plugin && docker plugin enable pyvxlan"

dist: build
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf $(VENV) build dist *.egg-info vxlan/_fastpath.*.so
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
