# make repro            install what is missing, reproduce the study in params.yaml, print its table
# make repro STUDY=x    put studies/x.yaml in place as params.yaml first
# make repro JOBS=1     one stage after the other; else those that do not need each other side by
#                       side, two at once on a CPU and one a GPU, or as many as JOBS says
# make plan STUDY=x     what a study takes: memory, disk, operations, time; DEVICES=4 MEMORY=80 (GiB)
# make doctor           whether a run on this machine gives the bytes of the results that lie here
# make report           the results that lie here as one page, report.html; with STUDY=x, made first
# make csqa-full        every study of studies/csqa-full*.yaml, its results kept in results/csqa-full
# make half             the same of studies/half*.yaml, in the order in which they matter
# make edge             the study's models in llama.cpp: files, scores, speed here, and the frontier
# make measure          the speed of those files on this machine, measured again
# make bench            the benchmarks, in a .venv-bench of their own, after `make repro`
# make test             the tests; make test-slow: those that need the real model or minutes
# make coverage         the tests, and how much of src/ they run, by lines and by branches
# make mutation         would the tests notice a mistake? changes src/, a copy of it, at random
# make audit            known vulnerabilities of the pinned packages; needs the network
# make lint             formatting, style and types
#
# Commands go through `.venv/bin/python -m …`: scripts in .venv/bin start with a `#!` line, which
# cannot hold a path with spaces. For the same reason no rule here names an absolute path.

PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
STUDY ?=

# The stages' commands say `python`; this makes it the one in .venv.
ACTIVATE := PATH="$$PWD/.venv/bin:$$PATH"

.PHONY: repro plan edge measure doctor report csqa-full half bench test test-slow coverage mutation audit lint study
.DELETE_ON_ERROR:

repro: study .venv/installed
	@$(ACTIVATE) python -m regrow check
	@$(ACTIVATE) python -m $(if $(filter 1,$(JOBS)),dvc repro,regrow repro $(if $(JOBS),--jobs $(JOBS)))
	@git diff --quiet HEAD -- dvc.lock 2> /dev/null || test environment.json -nt dvc.lock \
	  || $(ACTIVATE) python -m regrow doctor --record environment.json
	@$(ACTIVATE) python -m regrow show --metrics metrics/compare --plots plots/compare

plan: .venv/installed
	@$(ACTIVATE) python -m regrow plan $(if $(STUDY),--study 'studies/$(STUDY).yaml') \
	  $(if $(DEVICES),--devices $(DEVICES)) $(if $(MEMORY),--memory $(MEMORY)) $(ARGS)

doctor: .venv/installed
	@$(ACTIVATE) python -m regrow doctor

# Without STUDY nothing is run: the page is of the results that are there.
report: $(if $(STUDY),repro,.venv/installed)
	@$(ACTIVATE) python -m regrow report --results . --out report.html

# What studies share is run once: DVC's cache knows it. The part that has no study of its own is
# the one that the others vary.
csqa-full: PARTS := seeds sparsity train-size teacher-choices answer random activation
half: PARTS := primary data-steps l2 curve gold-branch ce-rows teacher-choices \
  reverse-kl jensen-shannon temperature-2 teacher-1860 gradual

csqa-full half:
	@for part in $(PARTS); do \
	  study=$@-$$part; test -f studies/$$study.yaml || study=$@; \
	  $(MAKE) --no-print-directory repro STUDY=$$study || exit 1; \
	  $(ACTIVATE) python -m regrow collect --out results/$@/$$part || exit 1; \
	done
	@$(ACTIVATE) python -m regrow controls --results results/$@ \
	  --controls results/$@/controls.yaml --out results/$@/controls.json
	@$(ACTIVATE) python -m regrow report --results results/$@ --out results/$@/report.html

# After `make repro`; two questions are scored side by side.
edge: .venv/installed-edge
	@$(ACTIVATE) python -m regrow runs
	@export $(ACTIVATE); cd edge && python -m dvc repro
	@$(ACTIVATE) python -m regrow measure
	@$(ACTIVATE) python -m regrow frontier

measure: .venv/installed-edge
	@$(ACTIVATE) python -m regrow measure --again $(ARGS)

bench: .venv-bench/installed
	@PATH="$$PWD/.venv-bench/bin:$$PATH" python -m benchmarks.run $(ARGS)

.venv-bench/installed: constraints.txt benchmarks/constraints.txt pyproject.toml
	@test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	@cat constraints.txt benchmarks/constraints.txt pyproject.toml | cmp -s - $@ \
	  || .venv-bench/bin/python -m pip install --constraint constraints.txt \
	    --constraint benchmarks/constraints.txt --editable '.[bench]'
	@cat constraints.txt benchmarks/constraints.txt pyproject.toml > $@

# Two at a time, for a good part of the tests waits for DVC.
PARALLEL := --numprocesses 2 --dist worksteal

test: .venv/installed-test
	$(ACTIVATE) python -m pytest $(PARALLEL) $(ARGS)

test-slow: .venv/installed-test
	$(ACTIVATE) python -m pytest -m slow $(ARGS)

# OUT=docs/coverage.json keeps the figures.
coverage: .venv/installed-test
	@rm -f .coverage .coverage.*
	$(ACTIVATE) python -m pytest --cov $(PARALLEL) $(ARGS)
	@$(ACTIVATE) python tests/covered.py $(if $(OUT),--out $(OUT))

mutation: .venv/installed-trust
	$(ACTIVATE) python tests/mutation/run.py $(if $(OUT),--out $(OUT)) $(ARGS)

audit: .venv/installed-trust
	@status=0; for file in constraints.txt constraints-trust.txt benchmarks/constraints.txt; do \
	  $(ACTIVATE) python -m pip_audit --requirement $$file --no-deps --disable-pip --strict \
	    $(ARGS) || status=1; \
	done; exit $$status

lint: .venv/installed-test
	$(ACTIVATE) python -m ruff check
	$(ACTIVATE) python -m ruff format --check
	$(ACTIVATE) python -m mypy

# A study in params.yaml is only overwritten where it is also somewhere else.
study:
ifneq ($(STUDY),)
	@test -f 'studies/$(STUDY).yaml' || { \
	  echo "make: there is no studies/$(STUDY).yaml; choose one of" \
	    "$$(cd studies && ls *.yaml | sed 's/\.yaml$$//' | paste -sd' ' -)" >&2; exit 1; }
	@cmp -s 'studies/$(STUDY).yaml' params.yaml || { \
	  saved=no; \
	  if ! test -e params.yaml || git diff --quiet HEAD -- params.yaml; then saved=yes; fi; \
	  for file in studies/*.yaml; do if cmp -s "$$file" params.yaml; then saved=yes; fi; done; \
	  if test $$saved = no; then \
	    echo "make: params.yaml holds edits that are neither committed nor in studies/; commit" \
	      "them, or keep them with 'cp params.yaml studies/mine.yaml', and try again" >&2; exit 1; fi; \
	  cp 'studies/$(STUDY).yaml' params.yaml; \
	  echo "params.yaml is now studies/$(STUDY).yaml"; }
endif

# Each stamp holds what was installed for it, so that a file that was only touched, as by switching
# branches, installs nothing and needs no network.
.venv/installed: constraints.txt pyproject.toml .venv/bin/python
	@cat constraints.txt pyproject.toml | cmp -s - $@ \
	  || $(VENV_PYTHON) -m pip install --constraint constraints.txt --editable .
	@cat constraints.txt pyproject.toml > $@

.venv/installed-edge: .venv/installed
	@cat constraints.txt pyproject.toml | cmp -s - $@ \
	  || $(VENV_PYTHON) -m pip install --constraint constraints.txt --editable '.[edge]'
	@cat constraints.txt pyproject.toml > $@

.venv/installed-test: .venv/installed
	@cat constraints.txt pyproject.toml | cmp -s - $@ \
	  || $(VENV_PYTHON) -m pip install --constraint constraints.txt --editable '.[test]'
	@cat constraints.txt pyproject.toml > $@

.venv/installed-trust: .venv/installed-test constraints-trust.txt
	@cat constraints.txt constraints-trust.txt pyproject.toml | cmp -s - $@ \
	  || $(VENV_PYTHON) -m pip install --constraint constraints.txt \
	    --constraint constraints-trust.txt --editable '.[test,trust]'
	@cat constraints.txt constraints-trust.txt pyproject.toml > $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: regrow needs Python 3.11 or newer; name one with 'make PYTHON=python3.12 …'" >&2; \
	  exit 1; }
	$(PYTHON) -m venv --clear .venv
