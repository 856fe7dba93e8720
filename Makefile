# Each target sets up .venv by itself where it is missing or older than what it is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup demo bench torture test check format claims dist lock clean

setup: $(STAMP)

# uv rather than pip: it takes torch and torchvision builds that belong together.
$(STAMP): requirements.lock pyproject.toml src/headwise/augment/views.c
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock -e .
	touch $@

# A second call goes on with the first, or shows it again. HEADS="mlp ffn" compares other heads.
OUT ?= runs/demo
HEADS ?= identity mlp transformer
demo: $(STAMP)
	$(BIN)/headwise compare $(if $(wildcard $(OUT)/config.json),--resume $(OUT),--recipe demo --heads $(HEADS) --out $(OUT))

# Some fifteen minutes on two cores; the machine should have nothing else to do.
bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

# Some fifteen minutes on two cores: kills, damage, full disks, sanitizers.
torture: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/torture

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check
	$(BIN)/python -m pytest tests/test_house.py

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# docs/claims.md, from the presets and the findings.json of docs/studies.
claims: $(STAMP)
	$(BIN)/headwise study claims $(sort $(wildcard docs/studies/*)) --out build/claims
	cp build/claims/claims.md docs/claims.md

# Builds, then installs both into fresh environments and trains there; see the script.
dist: $(STAMP)
	rm -rf build dist
	$(BIN)/uv build --quiet --out-dir dist
	$(BIN)/python tests/installed.py dist

# Names and versions only: where they come from is the machine's own setting.
lock:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --no-annotate --no-header --extra dev \
		--python-version 3.11 --universal pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) build dist src/*.egg-info
