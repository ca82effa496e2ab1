# make setup   everything into .venv (needs Python 3.11+ and a package index)
# make demo    index sample_data, then search it
# make test    the tests, without the slow ones
# make check   lint, format, types
# make docs    build the documentation in site/; a broken link is an error
# make lock    pin today's versions in constraints.txt
#
# make test-slow          the slow tests: clusters, many records, large models
# make weaviate           a Weaviate server on localhost until Ctrl-C; its data persists
# make weaviate-cluster   the same, three nodes
# make test-compose       test the image and docker-compose.yml on a real engine; as root on
#                         Debian, installs one
# make weaviate-binary    find or build the server (with Go, about 5 minutes the first time)
# make test-lowest        tests with the lowest versions that pyproject.toml allows
# make browser            find a browser for the tests of the page; as root on Debian, install it
# make screenshots        take the screenshots of the documentation
# make map-viewer         bundle deck.gl for the viewer of maps; needs npm

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := .demo
# The installer; everything else is pinned in constraints.txt.
UV_VERSION := 0.13.9

# With bytecode even where the environment switches it off: else every worker compiles every test
# with its assertions, and every process that a test starts compiles imgsearch. `make setup`
# compiles the tests once, by collecting them.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

.PHONY: setup demo test test-slow check docs lock clean browser screenshots map-viewer weaviate weaviate-cluster weaviate-binary test-compose test-lowest

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "imgsearch needs Python 3.11 or newer: make setup PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode \
		-c constraints.txt -e '.[dev,docs,heic,map,raw,ray]'
	$(BIN)/python -m compileall -q imgsearch
	-$(PYTEST) --collect-only -q >/dev/null
	@touch $@

demo: $(READY)
	$(BIN)/imgsearch ingest sample_data --store $(DEMO) --model efficientnet-lite0
	$(BIN)/imgsearch query sample_data/images/10101.jpg --k 6 --store $(DEMO) \
		--exclude-self --gallery $(DEMO)/gallery.html

# In the order of tests/conftest.py, which starts the longest files first.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder

test: $(READY)
	$(PYTEST) $(PARALLEL) -m "not slow"

test-slow: $(READY)
	$(PYTEST) $(PARALLEL) -m slow

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -m tools.reference
	$(BIN)/zensical build --clean --strict

weaviate:
	@$(PYTHON) -m tools.weaviate start

weaviate-cluster:
	@$(PYTHON) -m tools.weaviate start --nodes 3

weaviate-binary:
	@$(PYTHON) -m tools.weaviate path

browser:
	@$(PYTHON) tools/browser.py

screenshots: $(READY)
	$(BIN)/python -m tools.screenshots

test-lowest: $(READY)
	$(BIN)/python tools/lowest.py

# In a folder of its own, so that no packages stay in the checkout.
map-viewer:
	folder=$$(mktemp -d) && mkdir -p $$folder/tools $$folder/imgsearch/map/static && \
		cp -r tools/map $$folder/tools && cd $$folder/tools/map && \
		npm install --silent --no-package-lock && npm run --silent build && \
		cp $$folder/imgsearch/map/static/deck.min.js $(CURDIR)/imgsearch/map/static/ && rm -r $$folder

test-compose:
	@$(PYTHON) -m tools.compose

lock: $(READY)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras \
		--no-annotate --no-header --no-emit-index-url --upgrade pyproject.toml -o constraints.txt

clean:
	rm -rf $(VENV) $(DEMO) site .cache .mypy_cache .ruff_cache .pytest_cache build dist
