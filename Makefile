# Two commands set everything up on a machine with Python 3.11 or later: make demo, make test.
PYTHON ?= python3
BIN := .venv/bin
# One thread a process: the tests and the demo run in parallel processes instead.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test tests soak lint dist publish docs clean

demo: .venv/installed
	$(BIN)/warmstart compare --seeds 10 --out out/demo \
	  --methods 'cold,warm,shrink-perturb,shrink-perturb[noise_std=0],dash'

test: .venv/installed lint tests dist docs

tests: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Trials of all that may go wrong: make soak MINUTES=60 SEED=1 ONLY=kills,data; FIRST=N COUNT=1 tries one again.
soak: .venv/installed
	PYTHONPATH=tests:tests/data $(BIN)/python tests/soak/soak.py --minutes $(or $(MINUTES),30) \
		$(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY)) $(if $(FIRST),--first $(FIRST)) $(if $(COUNT),--count $(COUNT))

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What a release is: built, checked, and used in empty environments, with torch alone and with what [lab] needs.
dist: .venv/installed
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tests/install_archives.py dist/*

# One person's command, with a token of PyPI in TWINE_PASSWORD.
publish: dist
	$(BIN)/twine upload --username __token__ dist/*

# The site, out/site/index.html; any warning ends it, and any cell of a notebook that fails. Its search needs a server:
# python -m http.server -d out/site.
docs: .venv/installed
	$(BIN)/python docs/make_site.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -f out/mkdocs.yml

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "warmstart needs Python 3.11 or later")'
	@echo 'installing into .venv, for some minutes'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lab,dev,docs]'
	touch $@

clean:
	rm -rf .venv dist build out .pytest_cache .mypy_cache .ruff_cache
