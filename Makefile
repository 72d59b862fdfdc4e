# The commands of this project.  Each installs what it needs into .venv, from constraints.txt.
PYTHON ?= python3.11
BIN := .venv/bin
INSTALLED := .venv/.installed
INSTALLED_DEV := .venv/.installed-dev

.PHONY: help install demo check test test-reliability test-gpu clean

help:
	@echo "make demo     build a tiny model, tune it, and talk to it before and after (3 minutes on 2 cores)"
	@echo "make install  make .venv with tunesmith in it"
	@echo "make test     everything that must hold: the gate below, then all tests"
	@echo "make test-reliability  every promise of reliability, at length (20 minutes at most)"
	@echo "make test-gpu  what only a GPU can prove (4 minutes on one)"
	@echo "make check    the gate: formatting, lint, types, structure"
	@echo "make clean    remove .venv and caches (never runs or data)"

install: $(INSTALLED)

# torch first and by its exact version: a looser request would bring gigabytes of CUDA packages to a CPU machine.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		"$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable .
	touch $@

$(INSTALLED_DEV): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

check: $(INSTALLED_DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_floors.py

# Bytecode is kept even where the shell forbids it: else each process that a test starts compiles the package anew.
# Work is stolen: by files, one process would often wait for minutes for the other's last.
test: check
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal --durations 10 -m "not reliability"

test-reliability: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations 10 tests/reliability

test-gpu: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -n 0 --durations 10 tests/gpu tests/models/test_float8.py tests/losses/test_loss_by_liger.py tests/models/test_liger.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .hypothesis
