# Everything starts here: `make demo` and `make test` do the set-up themselves.

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
# Nothing in these goes by a clock: they have what others leave of the machine, while those wait.
BESIDE_DEMO := $(addprefix tests/edge/test_,drift.py selector.py wire.py) \
	$(addprefix tests/server/test_,api.py backtest.py fleet_drift.py gates.py gates_catch.py lineage.py pages_access.py rollout_properties.py)
BESIDE_FLEETS := tests/models tests/end_to_end/test_arm_alike.py
SETUP = $(PYTHON) scripts/setup.py $(if $(filter-out python3,$(PYTHON)),--python $(PYTHON))
export PYTHONUNBUFFERED := 1
unexport PYTHONDONTWRITEBYTECODE  # the tests start hundreds of programs, each a third faster from bytecode

.DEFAULT_GOAL := help
.PHONY: help setup python programs checked installed agent310 arm measured beside-demo fleets beside-fleets browser demo demo-quick test test-arm test-postgres test-s3 lint docs screenshots bench soak fuzz test-ray label-studio wheels deb test-deb clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: python  ## .venv, mosquitto, data; seconds when they are there (PYTHON=python3.12 names another Python)
	@$(SETUP)

python:
	@command -v $(PYTHON) > /dev/null || { echo "setup: no $(PYTHON) in PATH: install Python 3.11 or newer (Debian, Ubuntu: sudo apt-get install python3 python3-venv)"; exit 1; }

programs: python
	@$(SETUP) --programs

browser: setup  ## a browser for the tests of the pages
	@$(PYTHON) scripts/browser.py

demo: setup  ## the whole loop on real images, under 5 minutes (ARGS="--task watch" and others)
	@$(BIN)/winnow-server demo $(ARGS)

demo-quick: setup  ## the same in two to three minutes
	@$(BIN)/winnow-server demo --quick $(ARGS)

# pip works for one core at most, the demo and the fleets wait for their streams: something is done beside each of them.
test: programs  ## set-up, lint, types, every test (the agent's under Python 3.10 too, where it is installed)
	@$(MAKE) --no-print-directory -j 2 installed agent310
ifeq ($(ARGS),)  # in the middle a third waits with many; three at once need no threads of their own
	@$(MAKE) --no-print-directory -j 2 measured beside-demo
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --ignore tests/end_to_end $(addprefix --ignore ,$(BESIDE_DEMO) $(BESIDE_FLEETS))
	@$(MAKE) --no-print-directory -j 2 fleets beside-fleets
else
	@$(MAKE) --no-print-directory checked arm
	$(BIN)/python -m pytest $(ARGS)
endif

test-arm: setup  ## the agent on aarch64, under emulation as a Raspberry Pi 4 and 5 (a part of `make test`)
	@$(BIN)/python scripts/arm.py
	$(BIN)/python -m pytest tests/end_to_end/test_arm.py tests/end_to_end/test_arm_alike.py $(ARGS)

test-s3: setup  ## the tests of the server with the bytes in a bucket, all of them (what holds blobs is tested over both in `make test`)
	$(BIN)/python -m pytest -n 3 --dist loadfile tests/server --blobs bucket $(ARGS)

test-postgres: setup  ## the tests of the server with the catalogue in PostgreSQL, all of them (some run over both in `make test`)
	$(BIN)/python -m pytest -n 3 --dist loadfile tests/server --catalogue postgresql $(ARGS)

lint: setup  ## ruff and mypy
	@$(MAKE) --no-print-directory checked

# The agent supports Python 3.10: ruff takes all code as such (pyproject.toml), mypy the agent, a second time.
checked:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 -p edge_agent

# Without a prerequisite: one that ends while make begins the other goal is noticed when that has ended, minutes later.
installed:
	@$(MAKE) --no-print-directory browser

agent310:
	@$(PYTHON) scripts/py310.py

arm:
	@$(BIN)/python scripts/arm.py --where-possible

measured:
	$(BIN)/python -m pytest tests/end_to_end/test_demo.py

beside-demo:
	@nice -n 19 $(MAKE) --no-print-directory checked arm
	nice -n 19 $(BIN)/python -m pytest $(BESIDE_DEMO)

fleets:  # in the order of their names: by the number of their tests, the emulated boards, two of minutes, would be last
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore tests/end_to_end/test_demo.py $(addprefix --ignore ,$(BESIDE_FLEETS)) tests/end_to_end

beside-fleets:
	nice -n 19 $(BIN)/python -m pytest $(BESIDE_FLEETS)

docs: setup  ## regenerate docs/reference/ from the code
	@$(BIN)/python scripts/docs.py

screenshots: setup browser  ## docs/img/*.png of the pages, from a quick demo
	@$(BIN)/python tests/pages/screenshots.py

bench: setup  ## every benchmark, one after the other
	@set -e; for file in benchmarks/*.py; do echo "== $$file"; case $$file in */_*) ;; *) $(BIN)/python $$file $(ARGS);; esac; done

soak: setup  ## everything fails for minutes, nothing is lost; large nets learn, leaders die (ARGS="--seconds 600 --seed 7" and others)
	@$(BIN)/python tests/end_to_end/chaos.py $(ARGS)
	@$(BIN)/python tests/end_to_end/killed_workers.py
	@$(BIN)/python scripts/gstreamer.py
	@$(BIN)/python scripts/pedestrians.py
	$(BIN)/python -m pytest -m long

fuzz: setup  ## properties with new draws, then random messages at every decoder, guided by coverage (ARGS="--seconds 600")
	$(BIN)/python -m pytest -n 2 -m hypothesis --hypothesis-profile exploring
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[fuzz]'
	@PYTHONPATH=. $(BIN)/python tests/fuzz/decoders.py $(ARGS)

test-ray: setup  ## install Ray, and hold rounds in ranks, two machines and a real Ray against one process (minutes)
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[ray]'
	$(BIN)/python -m pytest tests/end_to_end/launchers.py

label-studio: setup  ## install a real Label Studio beside us (1 GB, minutes) and hold ours against it
	@$(PYTHON) scripts/label_studio.py
	$(BIN)/python -m pytest tests/end_to_end/test_real_label_studio.py

wheels: setup  ## wheels for an agent without a network, in dist/ (ARGS="--arch arm64 --python 3.10")
	@$(BIN)/python scripts/wheelhouse.py $(ARGS)

deb: setup  ## the agent's Debian package, in dist/ (ARGS="--arch arm64 --python 3.13")
	@$(BIN)/python scripts/deb.py $(ARGS)

test-deb: setup  ## install, run, upgrade, hang, remove and purge it in a Debian of its own (root, debootstrap)
	@$(BIN)/python tests/deploy/in_chroot.py $(ARGS)

clean:  ## remove what was built here; the cache folder stays
	rm -rf .venv .venv310 build dist ./*.egg-info demo-report .mypy_cache .ruff_cache .pytest_cache .hypothesis
