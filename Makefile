# Everything lives in .venv; paths stay relative, so a checkout may sit under a path with spaces.
PYTHON ?= python3
PY := .venv/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test proof test-pg15 test-airflow queues bench lab check format clean

demo: .venv/demo.stamp  ## seed the embedded demo database and report on it
	$(PY) -m queue_insights demo

lab: .venv/demo.stamp  ## open JupyterLab on notebooks/ against the demo database
	$(PY) -m queue_insights lab

test: .venv/dev.stamp  ## run the tests; the slow ones are in proof. COVERAGE=--cov: and what they reach
	$(PY) -m pytest -m "not proof" $(COVERAGE)

proof: .venv/dev.stamp test-pg15 .venv-airflow/stamp queues  ## kills, a browser, JupyterLab, a pooler, long fuzz, ...
	AIRFLOW="$(CURDIR)/.venv-airflow/bin/airflow" $(PY) -m pytest -m "proof or hypothesis" --hypothesis-profile=proof

# What the version of the server may change: SQL, its catalogue, locks, privileges.
SERVER := $(foreach name,actions batches doctor earlier_version everywhere failures flow grants \
	hostile_names jobs printed_sql queries trigger trigger_verify undo views,tests/test_$(name).py)

test-pg15: .venv/dev.stamp  ## run the tests that depend on the server on Debian's PostgreSQL 15
	$(PY) tests/servers.py $(PY) -m pytest -m "database and not proof" $(SERVER)

bench: .venv/dev.stamp  ## run all benchmarks; TRACKS=1000000, LARGE=1 for growth to ten times that
	$(PY) benchmarks/all.py --tracks $(or $(TRACKS),1000000) $(if $(LARGE),--large)

test-airflow: .venv/dev.stamp .venv-airflow/stamp  ## run the Airflow example, by Airflow itself
	AIRFLOW="$(CURDIR)/.venv-airflow/bin/airflow" $(PY) -m pytest -n 0 tests/test_airflow.py

queues: .venv-queues/stamp .venv-oban/stamp tests/vendors/node/node_modules/stamp  ## other people's queues, for tests

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
	rm -rf .venv .venv-airflow .venv-queues .venv-oban tests/vendors/node/node_modules

# What fails here leaves nothing behind, so that the next try starts anew.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Python 3.11 or newer is \
	needed, and this is %d.%d. Name another, such as: make demo PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/demo.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "filling .venv with packages: about 600 MB, which takes a few minutes"
	$(PIP) --editable '.[demo]'
	touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable '.[dev]'
	touch $@ .venv/demo.stamp

.venv-airflow/stamp:
	$(PYTHON) -m venv .venv-airflow
	.venv-airflow/bin/python -m pip install --quiet --disable-pip-version-check --no-compile 'apache-airflow==3.3.2'
	touch $@

.venv-queues/stamp:
	$(PYTHON) -m venv .venv-queues
	.venv-queues/bin/python -m pip install --quiet --disable-pip-version-check --no-compile 'procrastinate==3.10.0' \
		'pgqueuer==1.6.0' 'asyncpg==0.32.0' 'chancy==0.26.0' 'django-tasks-db[compat]==0.13.0' 'psycopg[binary,pool]==3.3.9'
	touch $@

# Oban for Python needs Python 3.12 or newer: the first that runs, pyenv's or another. Without one its
# tests are skipped, which says so.
.venv-oban/stamp:
	for python in "$$HOME"/.pyenv/versions/3.1[2-9]*/bin/python python3.12 python3.13 python3.14; do \
		if "$$python" -c '' 2>/dev/null; then "$$python" -m venv .venv-oban && break; fi; done
	if [ ! -d .venv-oban ]; then mkdir .venv-oban; else .venv-oban/bin/python -m pip install --quiet \
		--disable-pip-version-check --no-compile 'oban==0.7.0' 'psycopg[binary,pool]==3.3.9'; fi
	touch $@

tests/vendors/node/node_modules/stamp: tests/vendors/node/package.json
	cd tests/vendors/node && npm install --no-package-lock --no-audit --no-fund --silent
	touch $@
