# make demo:     install lamina, train the article's two nets and compare them
# make test:     lint, types and all tests
# make quick:    lint, types and the tests that take moments, for every save
# make coverage: the tests, and what they reach
# make kernels:  compile the C functions again, after a change of src/lamina/kernels/*.c, .h or .inc
PYTHON ?= python3
BIN := .venv/bin
# One worker more than there are processors, because some tests wait. Tests start in the order of
# tests/conftest.py, the longest first.
CORES := $(shell $(PYTHON) -c "import os; print(os.cpu_count() or 1)")
WORKERS := --numprocesses $$(($(CORES) + 1)) --dist loadgroup --no-loadscope-reorder

.PHONY: demo test quick coverage lint kernels install clean

demo: .venv/installed
	$(BIN)/lamina reproduce

test: lint kernels
	OMP_NUM_THREADS=1 $(BIN)/pytest $(WORKERS)

quick: lint kernels
	OMP_NUM_THREADS=1 $(BIN)/pytest $(WORKERS) -m "not (process or browser or slow)"

coverage: .venv/installed-test kernels
	$(BIN)/coverage erase
	OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest $(WORKERS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Without a compiler this only warns, and torch computes these layers.
kernels: .venv/installed-test
	$(BIN)/python setup.py --quiet build_ext --inplace

install: .venv/installed-test

.venv/installed: pyproject.toml setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf .venv build dist src/lamina/kernels/*.so .coverage* \
	    .mypy_cache .ruff_cache .pytest_cache .hypothesis
