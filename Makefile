# `make demo` and `make test` are all that is needed on a bare machine with Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test slow claims lint types docs digit-net clean

demo: $(VENV)/.installed
	$(BIN)/ganvas train

test: $(VENV)/.installed-dev lint docs
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations 15

slow: $(VENV)/.installed-dev  # toy claims over several seeds, 30 kills: half an hour
	$(BIN)/python -m pytest -m slow

claims: $(VENV)/.installed-dev  # every statement of every system again, and what changed; more than an hour
	GANVAS_CLAIMS=1 $(BIN)/python -m pytest tests/systems -m "slow or not slow" || true
	$(BIN)/python scripts/claims.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

digit-net: $(VENV)/.installed  # the bundled classifier, from its data
	$(BIN)/python scripts/train_digit_net.py

clean:
	rm -rf $(VENV) site dist build .mypy_cache .ruff_cache .pytest_cache

# The constraints keep torch at its CPU build where there is one, and every other version at the tested one.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e ".[dev]"
	touch $@
