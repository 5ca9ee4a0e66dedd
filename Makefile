# What one types here. PYTHON chooses the interpreter; each has a virtual environment of its own under .venv/.
#
#   make run      build, and check the links of a site (URL=... for another than the one that it serves itself)
#   make test     build, and run every test (TESTS=... for pytest's arguments)
#   make lint     ruff, mypy, basedpyright, codespell, and zizmor for the workflows
#   make docs     build the pages into docs/_build/html
#   make bench    measure, keep the results and print tables (QUICK=1: only the rows with targets; BENCH=...)
#   make dist     build the sdist and this interpreter's wheel, for Linux, into dist/
#   make clean    remove what was built
#
# QUATTRO_DEBUG=1 builds the C with assertions and checks of the group's invariants. The longer runs are tools/run's.

PYTHON ?= python3
SUFFIX := $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
TAG := $(shell $(PYTHON) -c 'import sys, sysconfig; print(sys.implementation.cache_tag + sysconfig.get_config_var("ABIFLAGS"))')
VENV ?= .venv/$(TAG)
BIN := $(VENV)/bin
BUILT := $(VENV)/built$(if $(QUATTRO_DEBUG),-debug)
STAGE := build/dist/$(TAG)
SOURCES := $(wildcard src/*.c src/*.h quattro/*.py quattro/*.pyi) setup.py pyproject.toml
BENCHER := $(VENV)-bench/bin/python

.PHONY: help run test lint docs bench dist clean tools bench-tools

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

run: $(BUILT) $(VENV)/with-run
# The site that it serves itself has broken links, which is status 1 and no failure of this target.
	@echo $(BIN)/python examples/linkcheck.py $(URL)
	@$(BIN)/python examples/linkcheck.py $(URL) || [ $$? -eq 1 -a -z "$(URL)" ]

test: $(BUILT) $(VENV)/with-test
	$(BIN)/pytest $(TESTS)

lint: $(BUILT) $(VENV)/with-test $(VENV)/with-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell $$(git ls-files)
	$(BIN)/basedpyright --pythonversion 3.11
	$(BIN)/basedpyright --pythonversion 3.15
	$(BIN)/zizmor --offline --quiet .github

docs: $(BUILT) $(VENV)/with-docs
	$(BIN)/python -m sphinx -n -W --keep-going -q -b html docs docs/_build/html

# QUICK=1 for the rows that have targets; otherwise the results are kept, for tools/run pictures.
RESULTS = benchmarks/results/$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])').json

bench: bench-tools
	PYTHONPATH=. $(BENCHER) benchmarks/bench.py \
		$(if $(QUICK),--rows,--processes 3 --repeat 4 --json $(RESULTS)) $(BENCH)

# The wheel is built from the sdist; auditwheel says on which Linuxes it runs, and tags it so.
dist: $(VENV)/with-dist
	rm -rf $(STAGE)
	QUATTRO_WERROR=1 $(BIN)/python -m build --quiet --outdir $(STAGE)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --strip --wheel-dir dist $(STAGE)/*.whl
	cp $(STAGE)/*.tar.gz dist/

clean:
	rm -rf .venv build dist docs/_build *.egg-info quattro/*.so

# For tools/run: the C is built and the environment has what the tests need; the value of a variable of this file.
tools: $(BUILT) $(VENV)/with-test

print-%:
	@echo $($*)

bench-tools: $(BUILT) $(VENV)-bench/with-bench build/namesake

# In place, so that a Python that is started here finds what was built; every compiler warning is an error.
$(BUILT): $(VENV)/with-pip $(SOURCES)
	@rm -f quattro/_quattro$(SUFFIX) $(VENV)/built $(VENV)/built-debug
	@QUATTRO_WERROR=1 QUATTRO_SYMBOLS=1 PYTHONWARNINGS=ignore tools/step "building the C for $(TAG)" \
		$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

# The environment: its own pip first, which knows groups, then the groups of pyproject.toml that a target needs. The
# interpreter's pip, if it has one, installs that one: to unpack an old pip that installs a new one takes twice as long.
# Modules are compiled when they are imported: to compile all of them takes longer than to unpack them.
$(VENV)/with-pip $(VENV)-bench/with-pip: %/with-pip:
	@tools/step "making the environment $*" sh -c '\
		$(PYTHON) -m venv --without-pip $* && \
		$(PYTHON) -m pip --python $* install --quiet --no-compile pip setuptools 2>/dev/null || \
		{ $(PYTHON) -m venv $* && $*/bin/python -m pip install --quiet --upgrade pip setuptools; }'
	@touch $@

$(VENV)/with-%: pyproject.toml | $(VENV)/with-pip
	@tools/step "installing what $* needs" $(BIN)/python -m pip install --quiet --no-compile --group $*
	@touch $@

# In an environment of its own: hypothesis, in that of the tests, warns about Trio.
$(VENV)-bench/with-bench: pyproject.toml | $(VENV)-bench/with-pip
	@tools/step "installing what bench needs" $(BENCHER) -m pip install --quiet --group bench
	@touch $@

# The pure-Python project of our name on the package index, which benchmarks/ loads under another one.
build/namesake: | $(VENV)/with-pip
	@$(BIN)/python -m pip install --quiet --no-deps --target $@ quattro==26.1.0
