# Everything lives in .venv; paths stay relative, so a checkout may sit under a path with spaces.
PYTHON ?= python3
PY := .venv/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-airflow lab check format clean

demo: .venv/demo.stamp  ## seed the embedded demo database and report on it
	$(PY) -m queue_insights demo

lab: .venv/demo.stamp  ## open JupyterLab on notebooks/ against the demo database
	$(PY) -m queue_insights lab

test: .venv/dev.stamp  ## run the tests
	$(PY) -m pytest

test-airflow: .venv/dev.stamp .venv-airflow/stamp  ## run the Airflow example, by Airflow itself
	AIRFLOW="$(CURDIR)/.venv-airflow/bin/airflow" $(PY) -m pytest -n 0 tests/test_airflow.py

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
	rm -rf .venv .venv-airflow

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/demo.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[demo]'
	touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[dev]'
	touch $@ .venv/demo.stamp

.venv-airflow/stamp:
	$(PYTHON) -m venv .venv-airflow
	.venv-airflow/bin/python -m pip install --quiet --disable-pip-version-check 'apache-airflow==3.3.2'
	touch $@
