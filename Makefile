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
	@$(BIN)/mlq book --profile $(PROFILE)

test: .venv/test
	$(BIN)/python -m pytest -n 2 --dist worksteal

env: .venv/book

# Written last: an interrupted installation is taken up again, a finished one only when pins change.
.venv/book: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "make: $(PYTHON) is Python " + sys.version.split()[0] + "; 3.11 or later is needed (PYTHON=...)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[book]'
	@touch $@

.venv/test: .venv/book
	$(BIN)/python -m pip install -c constraints.txt -e '.[test]'
	@touch $@

bench: env
	$(BIN)/python -m benchmarks

lint: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell
	$(BIN)/nbstripout --verify --keep-id notebooks/*.ipynb book/*.ipynb

# The build of torch is left out, and so is what torch brings for NVIDIA's accelerators, because
# torch pins these packages itself.
lock: .venv/test
	$(BIN)/python -m pip install -c constraints.txt -e '.[lab]'
	$(BIN)/python -m pip freeze --all --exclude-editable | tr 'A-Z_' 'a-z-' \
	    | sed -E -e 's/\+(cpu|cu[0-9]+)$$//' -e '/^(nvidia|cuda|triton|pip=)/d' \
	    | LC_ALL=C sort > constraints.txt

clean:
	rm -rf _build .pytest_cache .hypothesis .ruff_cache
