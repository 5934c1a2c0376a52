# The Python that .venv is made from: make PYTHON=python3.12 test
PYTHON ?= python3
# More arguments for pytest: make test ARGS="-k codec"
ARGS ?=
# How long to disturb, and the seed of the disturbances: make soak MINUTES=30 SEED=1
MINUTES ?= 10
SEED ?=

VENV := .venv
BIN := $(VENV)/bin
# Python compiles what it imports when it first does; most of what is installed never is.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --no-compile

.PHONY: install test test-dtypes soak lint types docs demo train-bundled clean

install: $(VENV)/installed

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# The suite in each dtype that "auto" can be on a CPU; one without bfloat16 instructions emulates them, slowly.
test-dtypes: $(VENV)/installed-dev
	MAGNET_AUTO_DTYPE=float32 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)
	MAGNET_AUTO_DTYPE=bfloat16 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# Random kills, small disks, broken servers and damaged files, for minutes or a night; ends with counts. Not in CI.
soak: $(VENV)/installed-dev
	$(BIN)/python benchmarks/soak.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

lint: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/installed-dev
	$(BIN)/mypy

docs: $(VENV)/installed
	$(BIN)/python -m magnet_cli.cli.reference > docs/cli.md.new
	mv docs/cli.md.new docs/cli.md
	$(BIN)/python -m magnet_cli.cli.manual_page > docs/magnet.1.new
	mv docs/magnet.1.new docs/magnet.1

demo: $(VENV)/installed
	@echo
	@echo 'The small model inside this package makes the demo; it knows twelve simple styles (examples/bundled/README.md).'
	@echo "Meta's models are far better, and downloaded when first used: $(BIN)/magnet generate \"disco beat\" -o out.wav"
	@echo
	@mkdir -p demo
	$(BIN)/magnet generate "disco beat, 125 bpm" --model bundled --seed 1 -o demo/disco-beat.wav --force

# The bundled model from nothing: examples/bundled/README.md. Needs Debian's fluidsynth, fluid-soundfont-gm and
# musescore-general-soundfont-small.
# What was stopped goes on where it stopped; more steps make a better model.
BUNDLED := build/bundled
CODEC_STEPS ?= 2200
DECODER_STEPS ?= 26000

train-bundled: $(VENV)/installed-train
	test -f $(BUNDLED)/data/held-out/prompts.jsonl || $(BIN)/python examples/bundled/render.py $(BUNDLED)/data --clips 9000
	$(BIN)/magnet train codec $(BUNDLED)/data -o $(BUNDLED)/codec --begin phase-free --steps $(CODEC_STEPS) \
	    --held-out $(BUNDLED)/data/held-out \
	    --ratios 4,4,5,8 --filters 24 --dimension 96 --lstm 2 --codebooks 4 --codes 1024 --seed 1 \
	    --batch-size 6 --seconds 1.12 --learning-rate 3e-4 --warmup 20 --last-rate 0.1 \
	    --adversarial-from 200 --adversarial-every 3 --discriminator-filters 4 --discriminator-windows 1024,512,256
	$(BIN)/magnet train decoder $(BUNDLED)/data -o $(BUNDLED)/model --codec $(BUNDLED)/codec --text-encoder own \
	    --text-width 128 --text-layers 1 --vocabulary 2200 --round-numbers 2 \
	    --synonyms examples/bundled/synonyms.txt \
	    --width 192 --heads 3 --layers 6 --feed-forward 768 --max-period 20 --clip-seconds 10 \
	    --steps $(DECODER_STEPS) --batch-size 8 --learning-rate 1.5e-3 --warmup 100 --last-rate 0.02 \
	    --weight-decay 0.05 --text-dropout 0.12 --all-hidden 0.4 --codebook-shares 6,2,1,1 --ema 0.995 --ema-every 1 --seed 1 \
	    --name bundled --licence MIT
	$(BIN)/magnet models defaults $(BUNDLED)/model --steps 12,4,4,4 --temperature 1 --guidance 3
	$(BIN)/magnet models convert $(BUNDLED)/model $(BUNDLED)/shipped --force
	$(BIN)/python examples/bundled/report.py $(BUNDLED)/shipped $(BUNDLED)/data --out $(BUNDLED)/report

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

$(VENV)/installed-train: pyproject.toml | $(BIN)/pip
	$(PIP) -e '.[train]' 'pyfluidsynth>=1.3'
	@touch $(VENV)/installed $@

$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || { echo 'error: no $(PYTHON) here; name one: make PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = "%d.%d" % sys.version_info[:2]; sys.version_info >= (3, 10) or \
	    sys.exit("error: magnet needs Python 3.10 or newer, and $(PYTHON) is " + v + "; name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
