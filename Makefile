# Everything lives in .venv; paths stay relative, so a checkout may sit under a path with spaces.
PYTHON ?= python3
PY := .venv/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lab check format clean

demo: .venv/demo.stamp  ## seed the embedded demo database and report on it
	$(PY) -m queue_insights demo

lab: .venv/demo.stamp  ## open JupyterLab on notebooks/ against the demo database
	$(PY) -m queue_insights lab

test: .venv/dev.stamp  ## run the tests
	$(PY) -m pytest

check: .venv/dev.stamp  ## lint, formatting, types, notebooks without outputs
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m nbstripout --keep-id --verify notebooks/*.ipynb

format: .venv/dev.stamp
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(PY) -m nbstripout --keep-id notebooks/*.ipynb

clean:
	rm -rf .venv

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[demo]'
	touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[dev]'
	touch $@ .venv/demo.stamp
