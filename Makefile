# One environment, built from the lock; every target needs nothing else.
PYTHON3 ?= python3
UV ?= uv
PRESET ?= quick
DEVICE ?= auto
DATA_DIR ?=
ARGS ?=

comma := ,

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
WHERE = $(if $(DATA_DIR),data_dir=$(abspath $(DATA_DIR))) device=$(DEVICE) $(ARGS)
REPRODUCE = $(PYTHON) scripts/reproduce.py artefact=$(1) preset=$(PRESET) $(WHERE)
STUDY = $(PYTHON) scripts/$(1).py preset=$(PRESET) $(WHERE)

.DEFAULT_GOAL := help
.PHONY: help setup test test-all lint demo reproduce-fig2 reproduce-table2 reproduce-fig3 reproduce-fig6 reproduce-fig7 reproduce-fig8 reproduce-fig9 reproduce-drawings reproduce-meters reproduce-label-smoothing reproduce-nj-expansion reproduce-nj-histogram reproduce-nj-questions reproduce-nj-table reproduce-phases reproduce-precision reproduce-table1 reproduce-toy reproduce-weight-noise paper-scale report bench lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9%-]+:.*## / { printf "  %-26s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  PRESET=smoke|quick|short|cpu|paper, quick unless said   DEVICE=auto|cpu|cuda   DATA_DIR=<folder of prepared <dataset>.npz>"
	@echo "  ARGS='<further settings>'  PYTHON3=<Python 3.11 to 3.13 to build the environment with>"

setup: $(STAMP) ## Create .venv with exactly the locked packages (done on demand by every other target)

# The stamp goes first and comes last: an installation that was interrupted is never taken for a finished one.
$(STAMP): requirements.lock pyproject.toml
	@rm -f $@
	@$(PYTHON3) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "Python 3.11, 3.12 or 3.13 is needed, $(PYTHON3) is: $$($(PYTHON3) --version 2>&1)." >&2; \
		echo "Name another one: make PYTHON3=python3.12 ..." >&2; exit 1; }
	$(PYTHON3) -m venv $(VENV)
	$(PYTHON) -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

test: $(STAMP) ## Run the tests (at most 10 minutes on 2 cores)
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n auto --maxprocesses 4 --dist worksteal -m 'not slow'

test-all: $(STAMP) ## Run the slow tests too
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n auto --maxprocesses 4 --dist worksteal

lint: $(STAMP) ## Check style, formatting and types
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

demo: $(STAMP) ## Nine methods x ten seeds (and two runs with the exact loss) on embedded data, Fig. 2 and its table, into results/demo (3 minutes, no network)
	$(PYTHON) scripts/reproduce.py artefact=demo preset=demo $(ARGS)

reproduce-fig2: $(STAMP) ## Fig. 2: accuracy against input noise, beside the paper's claims (PRESET, DATA_DIR, DEVICE)
	$(call REPRODUCE,fig2)

reproduce-table2: $(STAMP) ## Table 2: clean accuracies beside the paper's (PRESET, DATA_DIR, DEVICE)
	$(call REPRODUCE,table2)

reproduce-fig3: $(STAMP) ## Fig. 3: the four phases of the noise node, with both losses (PRESET, DATA_DIR, DEVICE)
	$(call REPRODUCE,fig3)

reproduce-fig6: $(STAMP) ## Fig. 6: accuracy under FGSM and PGD, with the attacks' certificate (PRESET, DATA_DIR, DEVICE)
	$(call REPRODUCE,fig6)

reproduce-fig7: $(STAMP) ## Fig. 7: NINR with noise of other distributions (PRESET, DATA_DIR, DEVICE)
	$(call REPRODUCE,fig7)

reproduce-fig8: $(STAMP) ## Fig. 8 and Table 3: RMSprop and Adam (PRESET, DATA_DIR, DEVICE)
	$(call REPRODUCE,fig8)

reproduce-fig9: $(STAMP) ## Fig. 9: the VGG-style network on CIFAR-10 (PRESET, DATA_DIR, DEVICE)
	$(call REPRODUCE,fig9)

reproduce-phases: $(STAMP) ## The phase diagram: the noise swept, the catapult's onset bracketed (PRESET=quick|cpu|smoke, DATA_DIR, DEVICE)
	$(call STUDY,phases)

reproduce-precision: $(STAMP) ## bf16 (or tf32) against fp32: do accuracies, curves, failures depend on it? (PRESET=quick|cpu|smoke, DATA_DIR, DEVICE)
	$(call STUDY,precision)

reproduce-drawings: $(STAMP) ## Figs 1, 4 and 5: perturbations, the nodes' topologies, the toy network (seconds, no data)
	$(PYTHON) scripts/drawings.py $(ARGS)

reproduce-meters: $(STAMP) ## Section 2.1: R_k, local gradient and Hessian along training (PRESET=quick|cpu|smoke, DATA_DIR, DEVICE)
	$(call STUDY,meters)

reproduce-label-smoothing: $(STAMP) ## Label smoothing: confidence, calibration and robustness by epsilon (PRESET=quick|cpu|smoke, DATA_DIR, DEVICE)
	$(call STUDY,label_smoothing)

reproduce-nj-table: $(STAMP) ## N+J: strengths searched, then test errors of tanh MLPs on MNIST, MNIST-Binary, USPS (PRESET=quick|cpu|smoke, DATA_DIR, DEVICE)
	$(call STUDY,nj)

reproduce-nj-expansion: $(STAMP) ## N+J: what noise in the Jacobian's input adds, against the Hessian (PRESET=quick|cpu|smoke, DATA_DIR, DEVICE)
	$(call STUDY,nj_expansion)

reproduce-nj-questions: $(STAMP) ## N+J: what its summary leaves open: cost, strengths, losses, noises, perturbations (PRESET=quick|cpu|smoke, DATA_DIR, DEVICE)
	$(call STUDY,nj_questions)

reproduce-nj-histogram: reproduce-nj-table ## N+J: the activations of the same runs

reproduce-table1: $(STAMP) ## Table 1: trained on MNIST, tested on USPS (PRESET, DATA_DIR, DEVICE)
	$(call REPRODUCE,table1)

reproduce-toy: $(STAMP) ## Appendix B: the linear toy model, its equations and phases (seconds, no data)
	$(PYTHON) scripts/study.py study=toy $(ARGS)

reproduce-weight-noise: $(STAMP) ## Deep Learning 7.5: weight noise as a gradient penalty, flat and sharp minima (PRESET=quick|cpu|smoke, DATA_DIR, DEVICE)
	$(call STUDY,weight_noise)

reproduce-%: $(STAMP) ## Any other figure or table, by its name in conf/artefact
	$(call REPRODUCE,$*)

paper-scale: $(STAMP) ## Every figure and table of trained runs at the paper's scale, 9 minutes a call, gone on with by the next (DATA_DIR, DEVICE)
	$(PYTHON) scripts/paper_scale.py 'overrides=["device=$(DEVICE)"$(if $(DATA_DIR),$(comma)"data_dir=$(abspath $(DATA_DIR))")]' $(ARGS)

report: $(STAMP) ## One HTML page of everything under results/
	$(PYTHON) scripts/report.py $(ARGS)

bench: $(STAMP) ## Time stacked training against plain loops, vmap and processes (PRESET=quick|smoke|full, DATA_DIR, DEVICE)
	$(call STUDY,benchmark)

lock: ## Regenerate requirements.lock from pyproject.toml (needs uv); then update environment.yml
	$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate -o requirements.lock

clean: ## Remove caches and build leftovers; .venv, runs and results stay
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
