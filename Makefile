# The Python that .venv is made from: make PYTHON=python3.12 test
PYTHON ?= python3
# More arguments for pytest: make test ARGS="-k codec"
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# Python compiles what it imports when it first does; most of what is installed never is.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --no-compile

.PHONY: install test lint types demo clean

install: $(VENV)/installed

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/installed-dev
	$(BIN)/mypy

demo: $(VENV)/installed
	@echo
	@echo 'The demo runs the whole program on tests/golden/music, a tiny UNTRAINED test fixture: the sound is noise.'
	@echo 'For real music (downloads a trained model the first time): $(BIN)/magnet generate "disco beat" -o out.wav'
	@echo
	@mkdir -p demo
	$(BIN)/magnet generate "disco beat" --model tests/golden/music --seed 1 -o demo/disco-beat.wav --force

clean:
	rm -rf $(VENV) build dist demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# pip is needed, but a newer one is no reason to install everything again.
$(VENV)/installed: pyproject.toml | $(BIN)/pip
	$(PIP) -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/pip
	$(PIP) -e '.[dev]'
	@touch $(VENV)/installed $@

$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || { echo 'error: no $(PYTHON) here; name one: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; sys.version_info >= (3, 10) or \
	    sys.exit("error: magnet needs Python 3.10 or newer, and $(PYTHON) is " + v + "; name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
