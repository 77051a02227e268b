# Everything happens in .venv; the environment is made once and again when its inputs change.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

# How long: TORTURE_ARGS="--hours 8", or --minutes 10; --part races, --seed 7.
TORTURE_ARGS ?= --hours 1

# What image-check makes; all for those with torch, too.
IMAGES ?= server

# What tests run beside Centra, each in an environment of its own; see tests/peers.
PEERS := $(patsubst tests/peers/%.txt,build/peers/%/ready,$(wildcard tests/peers/*.txt))

.PHONY: demo test peers weights image-check torture check bench docs man dist sbom setup clean

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	# torch first and by itself, so that no other requirement can pull in another build of it.
	$(BIN)/pip install --quiet "torch$$(sed -n 's/^torch//p' constraints.txt)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[demo]" --group dev
	# Its models are read as text, for KServe's schemas; nothing of it runs, and its requirements are not ours.
	$(BIN)/pip install --quiet --no-deps "kserve$$(sed -n 's/^kserve//p' constraints.txt)"
	touch $@

demo: setup
	$(BIN)/centra demo

# Its own packages come first, and all that they do not bring is found where Centra's are: no second torch.
peers: $(PEERS)

$(PEERS): build/peers/%/ready: tests/peers/%.txt $(VENV)/ready
	rm -rf build/peers/$*
	$(PYTHON) -m venv --without-pip build/peers/$*
	$(BIN)/pip --python build/peers/$*/bin/python install --quiet --no-deps --requirement $<
	$(BIN)/python -c 'import sys; print(*(p for p in sys.path if p.endswith("site-packages")), sep="\n")' \
	  > $$(build/peers/$*/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/centra.pth
	touch $@

# One process more than processors, as many a test waits for servers and children of its own.
test: WORKERS = $$($(BIN)/python -c "from centra.system.processors import processors; print(processors() + 1)")
# Compiled once, not again in each process that runs tests or that a test starts.
test: export PYTHONDONTWRITEBYTECODE =
test: setup peers
	# In memory where there is plenty, and gone in the end.
	TMPDIR=$$($(BIN)/python -m tests.scratch) && export TMPDIR && trap 'rm -rf "$$TMPDIR"' EXIT INT TERM && \
	  $(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal

# Real weights of base size, which tests and benchmarks find by CENTRA_WEIGHTS=.weights.
weights: setup
	$(BIN)/python -m benchmarks.tools.weights .weights

# The images' steps, carried out without Docker: takes root, and a minute or two.
image-check: setup
	IMAGE_CHECK=$(IMAGES) $(BIN)/pytest tests/deploy/test_image.py tests/deploy/test_compose.py

torture: setup
	mkdir -p build
	$(BIN)/python -m tests.torture --json build/torture.json --report benchmarks/RELIABILITY.md $(TORTURE_ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	rm -rf build/check && mkdir -p build/check
	CENTRA_DATABASE_URL=sqlite:///build/check/registry.db CENTRA_STORE=build/check/store \
	  sh -c '$(BIN)/centra db upgrade && $(BIN)/alembic check'

bench: setup
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script $(BENCH_ARGS) || exit 1; done

# The documentation, in build/site: first the page of what --json prints, with examples taken anew, then the site with all
# other references. Any warning, and any link that leads nowhere, is an error.
docs: setup
	RECORD_EXAMPLES=tests/json_examples.json $(BIN)/pytest -q tests/cli/test_documents.py -k prints
	$(BIN)/python -m tests.json_page > docs/json.md
	$(BIN)/python -m docs_site

# A page for each command in build/man; a wheel brings them along. man -l build/man/centra.1
man: setup
	rm -rf build/man
	$(BIN)/python hatch_build.py build/man

# What a release publishes. The same commit gives the same bytes, whatever else lies in the checkout.
dist: export SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
dist: setup
	rm -rf dist build/source && mkdir -p build/source
	git archive HEAD | tar -x -C build/source
	cd build/source && $(abspath $(BIN))/python -m hatchling build -d $(CURDIR)/dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	cd dist && sha256sum centra-* > SHA256SUMS

# The bill of materials (CycloneDX), taken from an environment with what users install and nothing of the tests.
sbom: setup
	rm -rf build/sbom && mkdir -p dist
	$(PYTHON) -m venv --without-pip build/sbom
	$(BIN)/pip --python build/sbom/bin/python install --quiet "torch$$(sed -n 's/^torch//p' constraints.txt)"
	$(BIN)/pip --python build/sbom/bin/python install --quiet --constraint constraints.txt \
	  ".[datasets,files,load,mlflow,openvino,ray,serve,sign,trace,train,triton]"
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	  --output-file dist/centra.cdx.json build/sbom/bin/python

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
