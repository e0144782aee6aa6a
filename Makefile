# Two commands do everything: `make conformance` and `make test`. `make quick` is for while you work.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

TARGETS := ort,tflite,coreml,executorch,trt,ort-web
SLICE := "(TestDigits and not (Transformer or pruned or student)) or (TestSeries and not (latency or memory))"

# Every child process imports edgecheck: compiled once, not each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: conformance conformance-web test test-long quick check verdicts hostile benchmarks benchmarks-long architectures clean

# Judge the bundled models on all targets; writes junit.xml, edge.json and edge.html.
# What this machine can't check is skipped, with the reason.
conformance: $(INSTALLED) node_modules/.installed
	$(BIN)/python -m pytest suites --edge-targets=$(TARGETS) --edge-missing=skip \
		--junitxml=junit.xml --edge-json=edge.json --edge-html=edge.html

# The same in a browser, all of it required; installs Chromium where there is none. Needs npm.
conformance-web: $(INSTALLED) node_modules/.installed
	$(BIN)/python -c "import sys; from edgecheck.targets.ort_web.browser import find_browser; sys.exit(not find_browser())" \
		|| $(BIN)/python -m playwright install chromium
	$(BIN)/python -m pytest suites --edge-targets=ort-web \
		--junitxml=junit-web.xml --edge-json=edge-web.json --edge-html=edge-web.html

# Lint, types, the tests of edgecheck itself but the long ones, and a slice of the bundled models,
# of which one is timed and weighed: `make conformance` has all of them.
test: check node_modules/.installed
	$(BIN)/python -m pytest tests -n 3 --dist loadfile --durations 20 -m "not long"
	$(BIN)/python -m pytest suites -n 2 --edge-targets=$(TARGETS) --edge-missing=skip --durations 20 -k $(SLICE)

# The tests that `make test` leaves out: no path is tested by them alone.
test-long: $(INSTALLED) node_modules/.installed
	$(BIN)/python -m pytest tests -n 2 --dist loadfile --durations 20 -m long

# Under a minute: the tests that need no converter, runtime or browser.
quick: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest tests --quick -n 2 --dist loadfile

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Over 200 planted faults and over 1,000 sound files: what is found, named, and wrongly failed. Hours.
verdicts: $(INSTALLED)
	$(BIN)/python -m tests.faults

# Thousands of mutated model files and reports, and runs stopped at random moments; hours.
hostile: $(INSTALLED)
	$(BIN)/python -m tests.hostile

# What edgecheck costs, against doing the same by hand; about half an hour.
benchmarks: $(INSTALLED)
	$(BIN)/python -m benchmarks

# The same and the error rates of latency comparisons; more than an hour.
benchmarks-long: $(INSTALLED)
	$(BIN)/python -m benchmarks --long

# The reference executor of Core ML on architectures of torchvision, timm and transformers.
architectures: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-deps --target .architectures torchvision==0.28.0 timm
	PYTHONPATH=.architectures $(BIN)/python -m benchmarks.architectures

# The browser's runtime; where there is no npm, ort-web is skipped.
node_modules/.installed: package.json package-lock.json
	if command -v npm >/dev/null; then npm ci --ignore-scripts --no-audit --no-fund; fi
	mkdir -p node_modules
	touch $@

# Every package is pinned, so that nothing is left to resolve.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --requirement constraints.txt --editable .
	touch $@

clean:
	rm -rf $(VENV) node_modules .architectures .edgecheck .mypy_cache .pytest_cache .ruff_cache junit*.xml edge*.json edge*.html
