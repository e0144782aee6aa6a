# Two commands do everything: `make conformance` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: conformance test check benchmarks benchmarks-long clean

# Judge the bundled models on both runtimes; writes junit.xml, edge.json and edge.html.
conformance: $(INSTALLED)
	$(BIN)/python -m pytest suites --edge-targets=ort,tflite \
		--junitxml=junit.xml --edge-json=edge.json --edge-html=edge.html

# Lint, types, the tests of edgecheck itself spread over workers, and the bundled models alone.
test: check
	$(BIN)/python -m pytest tests -n 2 --dist loadfile
	$(BIN)/python -m pytest suites --edge-targets=ort,tflite

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What edgecheck costs, against doing the same by hand; about half an hour.
benchmarks: $(INSTALLED)
	$(BIN)/python -m benchmarks

# The same and the error rates of latency comparisons; more than an hour.
benchmarks-long: $(INSTALLED)
	$(BIN)/python -m benchmarks --long

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .edgecheck .mypy_cache .pytest_cache .ruff_cache junit.xml edge.json edge.html
