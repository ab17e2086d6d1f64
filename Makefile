# The two commands: `make demo` and `make test`. Both set up .venv first, once.
#   make demo [DATA=/path/to/folder/with/train/and/val]
#   PYTHON=python3.12 make test        (to choose the interpreter: 3.11 or 3.12)
# On a GPU: tests, benchmarks and Imagenette, tables in gpu_results/ (scripts/gpu_session.sh says more):
#   make gpu IMAGES=/path/to/images IMAGENETTE=/path/to/folder/with/train/and/val

.PHONY: setup demo test lint fuzz soak gpu
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#//p' Makefile

setup:
	@scripts/setup.sh

demo: setup
	@scripts/demo.sh $(if $(DATA),"$(DATA)")

gpu: setup
	@scripts/gpu_session.sh "$(IMAGES)" "$(IMAGENETTE)" gpu_results $(PARTS)

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# Feed the decoder damaged files, a million times each way (clang with libFuzzer).
fuzz: setup
	$(MAKE) -C fuzz fuzz

# Faults in large numbers (kills, damage), of which the tests try a few; a line per kind. Takes tens of minutes.
soak: setup
	@set -e; for script in soak/*.py; do .venv/bin/python $$script; done

test: lint
	.venv/bin/python -m pytest -n auto --dist loadfile
