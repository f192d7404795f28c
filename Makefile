# make demo: a recorded pack through the whole controller.   make test: the tests.
# Both set up everything themselves in .venv; needed before: git make python3-venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test campaign slow coverage mutation pi-test wheels lint types verify diagrams docs recording bench clean

demo: $(VENV)/.installed
	@mkdir -p out
	$(BIN)/controller verify
	$(BIN)/controller sim --replay m3-michael.log --plot out/m3-michael.html --trace out/m3-michael.jsonl
	@echo
	@echo "Open out/m3-michael.html in a browser. A recording of your own: $(BIN)/controller sim --replay FILE"

test: $(VENV)/.developing
	$(BIN)/pytest -n auto -m "not slow and not campaign and not pi"

campaign: $(VENV)/.developing
	$(BIN)/pytest -s -m campaign

slow: $(VENV)/.developing
	$(BIN)/pytest -n auto -m slow

coverage: $(VENV)/.developing
	@rm -rf out/coverage && mkdir -p out/coverage
	$(BIN)/coverage run --rcfile tests/coverage.ini -m pytest -n auto -m "not slow and not campaign and not pi" \
	    tests/controller tests/statecharts
	$(BIN)/coverage combine --quiet --rcfile tests/coverage.ini
	$(BIN)/coverage report --rcfile tests/coverage.ini

mutation: $(VENV)/.developing
	$(BIN)/pip install --quiet --disable-pip-version-check 'cosmic-ray>=8.7,<9'
	$(BIN)/python -m tests.mutation.run $(MUTATION)

pi-test: $(VENV)/.developing
	$(BIN)/pytest -v -x -rs -m pi --durations=15 tests/pi

wheels: $(VENV)/.installed
	$(BIN)/pip wheel --quiet --disable-pip-version-check --wheel-dir out/wheels '.[pi,gateway]'

lint: $(VENV)/.developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.developing
	$(BIN)/mypy

verify: $(VENV)/.installed
	$(BIN)/controller verify

diagrams: $(VENV)/.installed
	$(BIN)/controller diagram --format mermaid -o docs/statechart/supervisor.mmd
	$(BIN)/controller diagram --format dot -o docs/statechart/supervisor.dot
	$(BIN)/controller diagram --format scxml -o docs/statechart/supervisor.scxml
	$(BIN)/controller diagram --format plantuml -o docs/statechart/supervisor.puml
	$(BIN)/controller diagram --format svg -o docs/statechart/supervisor.svg
	$(BIN)/controller diagram --format markdown -o statecharts/supervisor.md
	$(BIN)/controller diagram --chart shadow --format markdown -o statecharts/shadow.md

docs: $(VENV)/.developing
	$(BIN)/python -m controller.reference docs
	$(BIN)/python -m tests.requirements.matrix docs

recording: $(VENV)/.installed
	$(BIN)/python -m sim.closed_loop sim/logs/m3-michael.log

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/replay.py $(or $(LOGS),sim/logs/m3-michael.log)

clean:
	rm -rf $(VENV) out build *.egg-info

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.developing: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
