# Every target has one comment, which `make help` lists, and at most three lines.
PYTHON ?= python3
DATA ?= data
PROOFS ?= tests/system
.DEFAULT_GOAL := help
.PHONY: help run test test-system fast lint format docs docs-site train-commands speech-embedding zoo bench wheel lock deb release clean

# List the targets.
help:
	@awk '/^# /{text=substr($$0,3)} /^[a-z-]+:/&&text{sub(/:.*/,""); printf "%-15s %s\n",$$0,text; text=""}' Makefile

# Play the bundled recordings to the bundled models; installs only the runtime, into .venv.
run: .venv/runtime
	@.venv/bin/kws demo

# Run all tests but those of test-system; installs all dependencies, as root also Debian packages.
test: debian-packages .venv/workbench
	.venv/bin/pytest --ignore=tests/system --durations=10

# Test the daemon with sound servers, systemd and emulated boards; without root, some are skipped.
test-system: debian-packages .venv/workbench
	@tests/system/debian-packages
	@.venv/bin/python -c 'import pyaudio' 2>/dev/null || \
	.venv/bin/python -m pip install --quiet --editable '.[mic]' || \
	echo "Tests with PyAudio are skipped: it cannot be built here." >&2
	.venv/bin/pytest -m system --durations=10 $(PROOFS)

# Run the tests that take less than a minute together.
fast: .venv/workbench
	.venv/bin/pytest -m "not slow and not system"

# Check style, types and the direction of imports.
lint: .venv/workbench
	.venv/bin/ruff check . && .venv/bin/ruff format --check .
	.venv/bin/mypy kws train/kws_train export/kws_export
	.venv/bin/lint-imports

# Format the code.
format: .venv/workbench
	.venv/bin/ruff check --fix . && .venv/bin/ruff format .

# Regenerate docs/commands.md, man pages and completion from the commands.
docs: .venv/workbench
	.venv/bin/python docs/regenerate.py

# Build the documentation as a site in build/site/html, for a browser without a network.
docs-site: .venv/workbench
	.venv/bin/python docs/build_site.py

# Train the bundled models of commands again, or resume that: make train-commands DATA=folder.
train-commands: .venv/workbench
	for name in commands commands-small; do PATH=.venv/bin:$$PATH train/kws_train/recipes/commands.sh \
		$$name $(DATA) runs/$$name kws/models/$$name.tflite || exit; done

# Make the bundled speech embedding from its published weights: make speech-embedding DATA=folder.
speech-embedding: .venv/workbench
	.venv/bin/python -m kws_export.speech_embedding --data $(DATA)

# Train, export and evaluate every architecture, for docs/zoo.md: make zoo DATA=folder.
zoo: .venv/workbench
	.venv/bin/python benchmarks/zoo.py --data $(DATA)

# Measure CPU, memory and start-up on this machine.
bench: .venv/runtime
	@.venv/bin/kws bench

# Build the wheel into dist/.
wheel: .venv/bin/python
	.venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# Choose the releases, with hashes, that the Debian package and the container install.
lock: .venv/workbench
	.venv/bin/python deploy/lock.py

# Build a Debian package into dist/, for this machine or ARCHITECTURE=arm64.
deb: .venv/bin/python
	PYTHON=.venv/bin/python deploy/debian/build

# Make a release, into dist/, with a commit and a tag: make release VERSION=1.2.3 [DRY=--dry-run].
release: .venv/workbench
	.venv/bin/python deploy/release.py "$(VERSION)" $(DRY)

# Remove the products of the other targets, except runs/ and data/.
clean:
	rm -rf .venv build dist *.egg-info .coverage*
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './data/*' -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "Python >= 3.11 with its venv module is needed. Run: sudo apt install python3-venv"; exit 2; }
	$(PYTHON) -m venv .venv

.venv/runtime: pyproject.toml | .venv/bin/python
	.venv/bin/python -m pip install --quiet --editable .
	@touch $@

.venv/workbench: pyproject.toml | .venv/bin/python
	.venv/bin/python -m pip install --quiet --editable '.[test]'
	@touch $@ .venv/runtime

.PHONY: debian-packages
debian-packages:
	@PYTHON=$(PYTHON) tests/debian-packages

