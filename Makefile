# The two commands: `make demo` and `make test`. Both set up .venv first, once.
#   make demo [DATA=/path/to/folder/with/train/and/val, or an archive of it: docs/data.md]
#   PYTHON=python3.12 make test        (to choose the interpreter: 3.11 to 3.14)
#   make dist                          (a source archive and a wheel in dist/: docs/install.md)
# On a GPU: tests, benchmarks and Imagenette, tables in gpu_results/ (docs/gpu.md says more), and the same without one, small:
#   make gpu IMAGES=/path/to/images [IMAGENETTE=/path/to/folder/with/train/and/val] [DEADLINE=3600]
#   make rehearse

.PHONY: setup demo test lint fuzz soak dist gpu rehearse
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#//p' Makefile

setup:
	@scripts/setup.sh

demo: setup
	@scripts/demo.sh $(if $(DATA),"$(DATA)")

# Without setup: a GPU machine may have no package index, and what is missing there is named.
gpu:
	@scripts/gpu_session.sh --images "$(IMAGES)" $(if $(IMAGENETTE),--imagenette "$(IMAGENETTE)") \
		--deadline "$(or $(DEADLINE),3600)" $(PARTS)

rehearse:
	@scripts/rehearse_gpu_session.sh

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/clang-format --dry-run --Werror ffcv_imagenet/native/*.[ch] ffcv_imagenet/native/*.cu fuzz/*.[ch] scripts/*.c scripts/without_root/include/*.h scripts/without_root/include/*/*.hpp tests/helpers/*.[ch]

# Feed the decoder damaged files, a million times each way (clang with libFuzzer).
fuzz: setup
	$(MAKE) -C fuzz fuzz

# Faults in large numbers (kills, damage), of which the tests try a few; a line per kind. Takes tens of minutes.
soak: setup
	@set -e; for script in soak/*.py; do .venv/bin/python $$script; done

# The wheel is built from the archive, so that the archive is known to be complete.
dist: setup
	rm -rf dist
	.venv/bin/python -c "from setuptools import build_meta; build_meta.build_sdist('dist')" >/dev/null
	.venv/bin/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist dist/*.tar.gz
	@ls dist/*

test: lint
	.venv/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
