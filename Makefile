# The two commands to know: make book, make test.
#   PYTHON=python3.12   the interpreter that .venv is made with (3.11 or later)
#   PROFILE=smoke       the folder of notebooks/params that the book is run with
#   MLQ_DATA=folder     where FLORES-200 and tokenizers are looked for before anything is downloaded
#   MLQ_STORE=folder    where the records of runs are kept, _build/store if not given

PYTHON ?= python3
PROFILE ?= mini
PROFILES := $(notdir $(wildcard notebooks/params/*))
BIN := .venv/bin

ifeq ($(filter $(PROFILE),$(PROFILES)),)
$(error unknown PROFILE '$(PROFILE)'; there are: $(PROFILES))
endif

.PHONY: book test env bench lint lock clean
.DELETE_ON_ERROR:

book: env
	@$(BIN)/python -m mlq_utils.book.pipeline --profile $(PROFILE)

test: env
	$(BIN)/python -m pytest -n 2 --dist loadfile

env: .venv/installed

# Written last: an interrupted installation is taken up again, a finished one only when pins change.
.venv/installed: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "make: $(PYTHON) is Python " + sys.version.split()[0] + "; 3.11 or later is needed (PYTHON=...)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -r requirements.txt -c constraints.txt
	$(BIN)/python -m pip install --no-deps -e .
	@touch $@

bench: env
	$(BIN)/python -m benchmarks.bench

lint: env
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/nbstripout --verify --keep-id notebooks/*.ipynb book/*.ipynb

# What torch brings for NVIDIA's accelerators it pins itself, on the machines that have them.
lock: env
	$(BIN)/python -m pip freeze --exclude-editable \
	    | sed -E -e 's/\+(cpu|cu[0-9]+)$$//' -e '/^(nvidia|cuda|triton)/d' \
	    | grep -vxFf requirements.txt > constraints.txt

clean:
	rm -rf _build .pytest_cache .hypothesis .ruff_cache
