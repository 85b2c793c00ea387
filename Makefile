# make demo        the whole audit on scikit-learn's digits: a table and figures in minutes, no download
# make audit-demo  an audit of two ONNX files and two folders of images, with its report
# make test        the test suite, but for the slow tests
# make test-slow   the slow tests: benchmarks, Ray, several seeds, every command of the pages
# make reproduce   the paper's grid on CIFAR-10 (hours on a CPU, minutes on a GPU)
# make bench       what everything costs on this machine: results/benchmarks/<machine>.md
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python

.PHONY: demo audit-demo test test-slow lint reproduce bench clean

demo: $(VENV)/.ready
	$(PY) reproduce.py --preset smoke --dataset_name digits

audit-demo: $(VENV)/.ready
	$(PY) examples/ship_models.py --out results/shipped
	$(PY) audit.py results/shipped/original.onnx results/shipped/int8.onnx \
		--members results/shipped/data/train --nonmembers results/shipped/data/test --name demo

test: $(VENV)/.ready-test
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(VENV)/.ready-test
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist worksteal -m slow

lint: $(VENV)/.ready-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

reproduce: $(VENV)/.ready
	$(PY) reproduce.py --preset paper --dataset_name cifar10

bench: $(VENV)/.ready
	$(PY) benchmarks/bench.py

clean:
	rm -rf $(VENV)

$(VENV)/.ready: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.ready-test: tests/requirements.txt pyproject.toml $(VENV)/.ready
	$(PY) -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@
