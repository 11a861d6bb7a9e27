# One command does each thing. Everything is set up in .venv; nothing has to be prepared but Python 3.11 or newer.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Debian packages for the tests with a real microphone and a real browser, installed where that is possible.
SYSTEM_PACKAGES := libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins chromium mosquitto espeak-ng flite

.PHONY: run test check format bench setup system clean

# The model that this machine carries is fetched once; without a connection it is the bundled nano, with its own demo.
run: $(READY)
	$(BIN)/python run_stream.py --input demo --stay

# tiny.en is fetched once, for the captions of people's voices; without a connection those tests are skipped.
test: $(READY) system
	@$(BIN)/streamer pull tiny.en >/dev/null || echo 'tiny.en could not be fetched: tests of captions of real speech are skipped'
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# faster-whisper is a peer to measure against, not a part: it comes with the first bench.
SCENES ?= $(wildcard ../shared/scenes)
RECORDINGS ?= $(wildcard ../shared/real/manifest.csv)
bench: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]' \
	  || echo 'faster-whisper could not be installed: the bench goes without this peer'
	$(BIN)/streamer bench hop || $(BIN)/streamer bench hop --models nano
	$(BIN)/streamer bench ceilings --sizes tiny,base
	$(BIN)/streamer bench throughput || $(BIN)/streamer bench throughput --model nano
	$(BIN)/streamer bench soak --hours 0.5
	$(BIN)/streamer bench busy
	$(if $(SCENES),$(BIN)/streamer bench speech --data $(SCENES) --model nano --plain --peers --paced 20)
	$(if $(RECORDINGS),$(BIN)/streamer bench sounds --data $(RECORDINGS) --model nano --sets sounds --limit 3)
	$(if $(RECORDINGS),$(BIN)/streamer bench speech --data $(RECORDINGS) --model tiny.en --sets en_short --out build/bench/recordings)

setup: $(READY)

# torch first and by its exact version: a looser request can fetch gigabytes of CUDA libraries.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Streamer needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,dev,eval,notify,openai,phone,cluster]'
	touch $(READY)

system:
	@missing=; for tool in pulseaudio paplay chromium mosquitto espeak-ng flite; do command -v $$tool >/dev/null || missing=1; done; \
	ldconfig -p 2>/dev/null | grep -q libportaudio || missing=1; \
	if [ -z "$$missing" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo 'installing Debian packages for the microphone and browser tests'; \
	  apt-get update -qq >/dev/null 2>&1; \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SYSTEM_PACKAGES) >/dev/null 2>&1 \
	    || echo 'some could not be installed: the tests that need them are skipped'; \
	else echo 'without $(SYSTEM_PACKAGES) the tests that need them are skipped'; fi

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
