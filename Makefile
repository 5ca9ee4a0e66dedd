# The commands of this project. PYTHON chooses the interpreter; each has a virtual environment of its own.
#
#   make run         build, and check the links of a site (URL=... for another than the one that it serves itself)
#   make test        build, and run every test (TESTS=... for pytest's arguments)
#
# Longer runs of what make test has a short one of:
#   make model       random programs: EXAMPLES=... for each test, SEED=... to see them again
#   make leaks       a million rounds of what a group can go through, and of every test in a debug build
#   make faults      memory runs out at every allocation
#   make soak        ten million tasks through groups of every kind, and the extremes; make growth counts instructions
#   make stress      threads and interpreters, each scenario in a process of its own (STRESS=... for its runner)
#   make namesake    the tests of the pure-Python package of the same name (its sdist, from the index) on ours
#
# Every test once more, with the C built for it:
#   make invariants  the group's state is checked after each transition (QUATTRO_DEBUG=1)
#   make asan        under AddressSanitizer and UBSan, after a planted error that has to be found
#   make valgrind    some of the tests under memcheck: memory that is read before it is written (TESTS=... for others)
#   make coverage    the lines and branches of the C that are reached: fails if a line was missed
#   make mutations   break the C in each of a list of ways, and see that a test notices (MUTATIONS=... for some)
#
#   make bench       measure, keep the results and print tables (QUICK=1: only the rows with floors; BENCH=...)
#   make pictures    redraw docs/performance.md from the results; make budget counts where a task's instructions go
#   make guard       fail if a task costs more instructions than recorded (valgrind; Python 3.14); make guard-record
#   make docs        build the pages into docs/_build/html
#   make lint        ruff, mypy, basedpyright and codespell
#   make dist        build the sdist and this interpreter's wheel, for Linux, into dist/
#   make dist-test   and test them: the sdist's tests on the installed wheel (TESTS=... as for test)
#   make clean       remove what was built

PYTHON ?= python3
SUFFIX := $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
TAG := $(shell $(PYTHON) -c 'import sys, sysconfig; print(sys.implementation.cache_tag + sysconfig.get_config_var("ABIFLAGS"))')
VENV ?= .venv/$(TAG)
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed$(if $(QUATTRO_DEBUG),-debug)
STAGE := build/dist/$(TAG)
SOURCES := $(wildcard src/*.c src/*.h quattro/*.py quattro/*.pyi) setup.py pyproject.toml
TESTS ?=
EXAMPLES ?= 2000
SEED ?= $(shell date +%s)
BENCH ?=
BENCHER = PYTHONPATH=. $(VENV)-bench/bin/python

.PHONY: run test model invariants leaks faults asan valgrind coverage mutations soak growth stress namesake
.PHONY: lint docs dist dist-test bench pictures budget guard guard-record clean

run: $(INSTALLED)
# The site that it serves itself has broken links, which is status 1 and no failure of this target.
	$(BIN)/python examples/linkcheck.py $(URL) || [ $$? -eq 1 -a -z "$(URL)" ]

test: $(INSTALLED)
	$(BIN)/pytest $(TESTS)

model: $(INSTALLED)
	QUATTRO_MODEL_EXAMPLES=$(EXAMPLES) $(BIN)/pytest tests/parity/test_model.py --hypothesis-seed=$(SEED) --durations=4

invariants:
	$(MAKE) test QUATTRO_DEBUG=1

leaks: $(INSTALLED)
	QUATTRO_LEAK_ROUNDS=10000 $(BIN)/pytest tests/hostile/test_leaks.py
	$(BIN)/python tools/refleaks.py

NAMESAKE := build/namesake-sdist/quattro-26.1.0.tar.gz

namesake: $(INSTALLED) $(NAMESAKE)
	$(BIN)/python tools/namesake.py $(NAMESAKE)

$(NAMESAKE): | $(VENV)/tools
	$(BIN)/python -m pip download --quiet --no-deps --no-binary quattro --dest $(@D) quattro==26.1.0

mutations: $(INSTALLED)
	$(BIN)/python tools/mutations.py $(MUTATIONS)

soak: $(INSTALLED)
	$(BIN)/python tools/soak.py $(SOAK)

growth: $(INSTALLED)
	$(BIN)/python tools/soak.py growth $(SOAK)

stress: $(INSTALLED)
	$(BIN)/python tools/stress/runner.py $(STRESS)

faults: $(INSTALLED)
	QUATTRO_FAULTS=0 $(BIN)/pytest tests/hostile/test_faults.py tests/hostile/test_hostile.py tests/hostile/test_calls.py

asan: $(VENV)/tools
	tools/sanitized.sh $(BIN)/python $(TESTS)

valgrind: $(VENV)/tools
	tools/memcheck.sh $(BIN)/python $(TESTS)

coverage: $(VENV)/tools
	$(BIN)/python -m pip install --quiet --group coverage
	tools/covered.sh $(BIN)/python $(TESTS)

lint: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --group lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell $$(git ls-files)
	$(BIN)/basedpyright --pythonversion 3.11
	$(BIN)/basedpyright --pythonversion 3.15

# QUICK=1 for the rows that have floors; otherwise the results are kept, for make pictures.
bench: $(INSTALLED) $(VENV)-bench/tools build/namesake
	$(BENCHER) benchmarks/bench.py $(if $(QUICK),--rows,--processes 3 --repeat 4 --json $(RESULTS)) $(BENCH)

RESULTS = benchmarks/results/$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])').json

# The pictures and tables of docs/performance.md, from the results.
pictures: $(INSTALLED) $(VENV)-bench/tools build/namesake
	$(BENCHER) benchmarks/pictures.py
	$(BENCHER) benchmarks/report.py

budget: $(INSTALLED)
	$(BIN)/python benchmarks/instructions.py budget

guard: $(INSTALLED)
	$(BIN)/python benchmarks/instructions.py check

guard-record: $(INSTALLED)
	$(BIN)/python benchmarks/instructions.py record

# The wheel is built from the sdist; auditwheel says on which Linuxes it runs, and tags it so.
dist: $(VENV)/dist
	rm -rf $(STAGE)
	QUATTRO_WERROR=1 $(BIN)/python -m build --quiet --outdir $(STAGE)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --strip --wheel-dir dist $(STAGE)/*.whl
	cp $(STAGE)/*.tar.gz dist/

# An environment that has never seen the source: the sdist without the package.
dist-test: dist
	mkdir $(STAGE)/sdist
	tar -xzf $(STAGE)/*.tar.gz -C $(STAGE)/sdist --strip-components 1
	rm -r $(STAGE)/sdist/quattro
	$(PYTHON) -m venv $(STAGE)/venv
	$(STAGE)/venv/bin/python -m pip install --quiet --upgrade pip
	$(STAGE)/venv/bin/python -m pip install --quiet --no-index --find-links dist --only-binary quattro quattro
	$(STAGE)/venv/bin/python -m pip install --quiet --group test
	cd $(STAGE)/sdist && ../venv/bin/pytest $(TESTS)
	cd $(STAGE)/sdist && ../venv/bin/python benchmarks/imports.py --processes 10

docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --group docs
	$(BIN)/python -m sphinx -n -W --keep-going -q -b html docs docs/_build/html

clean:
	rm -rf .venv build dist docs/_build *.egg-info quattro/*.so

# In place, so that a Python that is started here finds what was built; every compiler warning is an error.
$(INSTALLED): $(VENV)/tools $(SOURCES)
	rm -f quattro/_quattro$(SUFFIX) $(VENV)/installed $(VENV)/installed-debug
	QUATTRO_WERROR=1 $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@

$(VENV)/tools: pyproject.toml $(VENV)/pip
	$(BIN)/python -m pip install --quiet --group test
	touch $@

$(VENV)/pip:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	touch $@

$(VENV)/dist: pyproject.toml $(VENV)/pip
	$(BIN)/python -m pip install --quiet --group dist
	touch $@

# In an environment of its own: hypothesis, in that of the tests, warns about Trio.
$(VENV)-bench/tools: pyproject.toml
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-bench/bin/python -m pip install --quiet --group bench
	touch $@

# The pure-Python project of our name on the package index, which benchmarks/ loads under another one.
build/namesake: | $(VENV)/tools
	$(BIN)/python -m pip install --quiet --no-deps --target $@ quattro==26.1.0
