# Backdoor Anatomy: the commands a person types. `make help` lists them.

STUDY ?= embedded
CORES ?= all
TIER ?= full
PROFILE ?= default
# A folder of finished long jobs that several checkouts share (docs/provenance.md); none unless named.
CACHE ?=
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

# --- installation -----------------------------------------------------------------------------------------------
#
# The versions stand in requirements.lock. It was made on Python 3.11, so that one is taken where there is a choice;
# PYTHON=/path/to/python chooses another. One package needs a word, torch, because one version has several builds:
#
#   TORCH=cuda   for NVIDIA GPUs: torch as the package index has it, with the CUDA libraries it asks for.
#                The default where nvidia-smi is found.
#   TORCH=cpu    the default elsewhere. On Linux a package index commonly holds the CUDA build under the plain
#                version number, and that build cannot even be imported without its CUDA libraries (several GB), so
#                leaving those out is no way around them. PyTorch keeps CPU builds on an index of its own, which its
#                installation page names (pytorch.org/get-started/locally, "pip", "CPU"): TORCH_INDEX=<that index>
#                takes the build from there, about 0.2 GB and no CUDA library. Without TORCH_INDEX the study runs
#                as well, the download is only larger; on macOS, and where pip's own configuration (find-links, an
#                index) offers a CPU build, there is nothing to set.
#
# The lock names no CUDA library: pip adds them when, and only when, the build that is installed asks for them.
# What was chosen is kept in .venv/torch.mk, so that a later `make` without these variables does not change it.
-include $(VENV)/torch.mk
TORCH ?= $(if $(shell command -v nvidia-smi 2>/dev/null),cuda,cpu)
TORCH_INDEX ?=
CHOICE = $(strip $(TORCH) $(TORCH_INDEX))
TORCH_PIN = $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.lock)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DVC_NO_ANALYTICS := 1
# Where PYTHONPATH is set, the packages of .venv would not be the ones that are used.
unexport PYTHONPATH

INSTALLED := $(VENV)/.installed
# Which tests `make test` runs, by their markers.
SELECT ?= not cluster and not long
PIP = $(BIN)/python -m pip

.PHONY: help
help: ## list these commands
	@echo "usage: make COMMAND [STUDY=smoke|embedded|paper] [CORES=n] [PROFILE=default|slurm] [CACHE=folder]"
	@echo "       make reproduce TIER=audit|render|measure|full (the first three from an archive: docs/provenance.md)"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: reproduce
reproduce: $(INSTALLED) ## run a study, print published beside measured, and where the report is
	@$(BIN)/anatomy run $(STUDY) --profile $(PROFILE) --cores $(CORES) --tier $(TIER) \
		$(if $(CACHE),--cache "$(CACHE)") --with-parent
	@$(BIN)/anatomy summary $(STUDY)

.PHONY: test
test: $(INSTALLED) ## run the unit tests and the smoke study (TESTS="-k lexicon" runs some)
ifdef TESTS
	@$(BIN)/python -m pytest $(TESTS)
else
	@# Unit tests two at a time; then those that use both cores themselves.
	@$(BIN)/python -m pytest -m "$(SELECT)" -n 2 --dist loadfile --ignore tests/workflow --ignore tests/cluster
	@$(BIN)/python -m pytest -m "$(SELECT)" tests/workflow tests/cluster
endif

.PHONY: long-test
long-test: $(INSTALLED) ## run the tests that `make test` leaves out for their time (tiers, S3, ...)
	@$(BIN)/python -m pytest -m long $(TESTS)

.PHONY: cluster-test
cluster-test: $(INSTALLED) ## run a study through a Slurm on this machine (root; docs/cluster.md)
	@$(BIN)/python -m pytest -m cluster tests/cluster $(TESTS)

.PHONY: lint
lint: $(INSTALLED) ## check style, formatting, types and the workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/python -m snakemake --lint
	$(BIN)/mypy

.PHONY: cost
cost: $(INSTALLED) ## say what a run would do, why, and what it needs, before it is submitted
	@$(BIN)/anatomy cost $(STUDY) --profile $(PROFILE)

.PHONY: chaos
chaos: $(INSTALLED) ## kill, starve and disturb the smoke study, and print what it survived (an hour)
	@$(BIN)/python tests/chaos/run.py

.PHONY: bench
bench: $(INSTALLED) ## measure speed and memory against the plain ways, as ratios (ONLY="language audit" does some)
	@$(BIN)/python -m anatomy.bench $(if $(ONLY),--only $(ONLY))

.PHONY: audit
audit: $(INSTALLED) ## re-hash every result of a study and name what is not as it was made
	@$(BIN)/anatomy audit $(STUDY)

.PHONY: attest
attest: $(INSTALLED) ## write a statement about each phase of a study, signed where you have an SSH key set
	@$(BIN)/anatomy attest $(STUDY)

.PHONY: archive
archive: $(INSTALLED) ## bring dvc.lock level with a study's results, and push them where a DVC remote is set up
	@$(BIN)/anatomy archive $(STUDY)

.PHONY: restore
restore: $(INSTALLED) ## fetch an archived study in place of computing it
	@$(BIN)/anatomy restore $(STUDY)

.PHONY: recipes
recipes: $(INSTALLED) ## measure the fast recipe against the published one (an hour on two cores): docs/recipes.md
	@$(BIN)/anatomy run published-recipe localize --cores $(CORES)
	@$(BIN)/anatomy run embedded localize --cores $(CORES)
	@$(BIN)/python -m anatomy.report.recipes

.PHONY: schema
schema: $(INSTALLED) ## write config/schema.json and dvc.yaml anew from the code
	@$(BIN)/anatomy schema

.PHONY: clean
clean: ## delete the results of a study, after asking (YES=1 does not ask)
	@case "$(STUDY)" in ''|.|..|*[!a-z0-9_-]*) echo "error: STUDY=$(STUDY) is no study's name" >&2; exit 2;; esac
	@if [ ! -e results/$(STUDY) ]; then echo "results/$(STUDY) is not there"; exit 0; fi; \
	echo "results/$(STUDY) holds $$(find results/$(STUDY) -type f | wc -l | tr -d ' ') files," \
		"$$(du -sh results/$(STUDY) | cut -f1); making them again takes a whole run."; \
	if [ "$(YES)" != 1 ]; then printf 'Delete them? [y/N] '; read -r answer; [ "$$answer" = y ] || { echo kept; exit 0; }; fi; \
	rm -rf results/$(STUDY) && echo "deleted results/$(STUDY)"

.PHONY: venv
venv: $(INSTALLED) ## install into .venv (TORCH=cpu|cuda and TORCH_INDEX are explained in the Makefile)

# Another choice of torch than the installed one is a reason to install, like a newer lock.
ifneq ($(INSTALLED_TORCH),$(CHOICE))
$(INSTALLED): FORCE
endif
.PHONY: FORCE
FORCE:

$(INSTALLED): requirements.lock pyproject.toml
	@case "$(TORCH)" in cpu|cuda) ;; *) echo "error: TORCH=$(TORCH): expected cpu or cuda" >&2; exit 2;; esac
	@# pip is asked for, not python: an installation that was interrupted may have the one without the other.
	@if ! $(PIP) --version >/dev/null 2>&1; then \
		for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3); do \
			"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
			echo "creating $(VENV) with $$("$$python" --version)"; \
			"$$python" -m venv $(VENV) && exit 0; \
		done; \
		rm -rf $(VENV); \
		echo "error: no Python of version 3.11 or newer that can create a virtual environment" \
			"(looked for: $(or $(PYTHON),python3.11 python3.12 python3.13 python3))." >&2; \
		echo "Install one (on Debian and Ubuntu: python3 and python3-venv), or name it:" \
			"make PYTHON=/path/to/python ..." >&2; \
		exit 2; \
	fi
	@echo "installing into $(VENV): about 2 GB on the disk, two to five minutes"
	@if [ -n "$(INSTALLED_TORCH)" ] && [ "$(INSTALLED_TORCH)" != "$(CHOICE)" ]; then \
		echo "  torch was installed for '$(INSTALLED_TORCH)', wanted is '$(CHOICE)': taking another build"; \
		$(PIP) uninstall -qq --yes torch; \
	fi
	@# Alone and without dependencies: one look-up at TORCH_INDEX, and everything else from the usual places.
	@echo "  $(TORCH_PIN) for $(TORCH) ..."
	@$(PIP) install -qq --no-deps --retries 1 $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)") $(TORCH_PIN)
	@printf 'INSTALLED_TORCH := %s\nTORCH ?= %s\nTORCH_INDEX ?= %s\n' "$(CHOICE)" "$(TORCH)" "$(TORCH_INDEX)" \
		> $(VENV)/torch.mk
	@$(BIN)/python -c 'import sys; from importlib.metadata import requires; \
		from pip._vendor.packaging.requirements import Requirement; \
		asked = [r for r in map(Requirement, requires("torch")) if not r.marker or r.marker.evaluate({"extra": ""})]; \
		sys.exit("$(TORCH)" == "cpu" and any(r.name.startswith(("nvidia", "cuda")) for r in asked))' || { \
		echo "  note: pip found the CUDA build of torch, whose libraries (several GB) follow. To do without them,"; \
		echo "  stop here (Ctrl-C) and name PyTorch's CPU index: the head of the Makefile says how."; }
	@echo "  the other packages of requirements.lock ($(words $(shell cat requirements.lock))) ..."
	@$(PIP) install -qq -r requirements.lock
	@# After the lock, which holds the build tool: nothing is fetched that the lock does not name.
	@$(PIP) install -qq --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c 'import sys, torch; \
		print(f"installed: torch {torch.__version__}, with CUDA {torch.version.cuda}".replace("with CUDA None", "for CPU")); \
		sys.exit("error: TORCH=cuda, but pip found a build for CPU only; name an index with TORCH_INDEX=" \
		if "$(TORCH)" == "cuda" and not torch.version.cuda else 0)'
	@touch $@
