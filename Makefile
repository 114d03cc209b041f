# make install | make quickstart | make test      (Linux, Python 3.11 or newer, pip; no GPU)
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: install quickstart test check

install: $(STAMP)

$(STAMP): requirements/lock-cpu.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make install: $(PYTHON) is not installed; name another one with PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make install: $(PYTHON) is $$($(PYTHON) -V); Python 3.11 or newer is needed (PYTHON=...)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make install: $(PYTHON) lacks the venv module (on Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --no-deps -r requirements/lock-cpu.txt || \
	  { echo "make install: a package of requirements/lock-cpu.txt could not be installed; pip names it above."; \
	    echo "If it is torch: its CPU build (+cpu) is not on PyPI. Set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU wheels,"; \
	    echo "which pytorch.org/get-started shows for Linux, pip, CPU; then run make again."; exit 1; }
	$(VENV)/bin/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(STAMP)

quickstart: install
	$(VENV)/bin/stepladder run recipes/quickstart.yaml

test: install
	$(VENV)/bin/python -m pytest

check: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
