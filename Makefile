# Two commands for a newcomer: `make demo` and `make test`. VENV and PYTHON may be set from outside.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUN ?= runs/demo
PORT ?= 8000

.PHONY: demo test check reference docs bench serve wheel clean

demo: $(READY)
	$(BIN)/bart demo --out $(RUN)

# Two processes, a core each: threads that wait for each other would only be in their way. Each starts with a half of
# the files and what these share is made once; who has finished takes from the other.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/vulture

reference: $(READY)
	$(BIN)/python docs/generated.py

docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

bench: $(READY)
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python -m benchmarks

serve: $(READY)
	$(BIN)/bart serve --run $(RUN) --port $(PORT)

wheel: $(READY)
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	ls -l dist

clean:
	rm -rf build dist docs/_build artefacts .mypy_cache .pytest_cache .ruff_cache

# Not compiled by pip: two thirds of these modules nobody imports, and Python compiles the others when it does.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13) and "bart needs Python 3.10 to 3.12; set PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[all,test,dev,docs]'
	touch $(READY)
