#!/usr/bin/env bash
# Every run behind this folder's tables, the most telling first: a day on two cores; finished cells are skipped.
# Further flags are passed on to every cell; `--slots 2` runs two cells at once, a core each.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
sweep() { local script=$1; shift; "${PYTHON:-python}" -m common sweep "$here/smollm2_$script.py" "$@"; }
cheap() { local script=$1; shift; "${PYTHON:-python}" -m common sweep "$here/../minilm/minilm_$script.py" "$@"; }
seeds=(42 43 44)

# SAMSum, all test dialogues: prompted, four methods, four shares of the training dialogues
sweep baseline_inference --task_type summarization --prompt_type zero-shot one-shot few-shot "$@"
sweep summarization --seed "${seeds[@]}" --no_before "$@"
sweep summarization --full_tune --seed "${seeds[@]}" --no_before "$@"
sweep summarization --neftune 5 --seed "${seeds[@]}" --no_before "$@"
sweep summarization --full_tune --neftune 5 --seed "${seeds[@]}" --no_before "$@"
sweep summarization --train_sample_fraction 0.1 0.25 0.5 --seed "${seeds[@]}" --no_before "$@"
cheap baseline_inference --task_type summarization --baseline tfidf frozen-features \
  --train_sample_fraction 0.1 0.25 0.5 "$@"

# 20 Newsgroups: prompted, 500 test posts; 2,000 of them: four shares, four methods at the two smallest
posts=(--max_test_samples 2000)
cheap baseline_inference --task_type classification --baseline dummy "${posts[@]}" "$@"
cheap baseline_inference --task_type classification --baseline tfidf frozen-features \
  --train_sample_fraction 0.025 0.05 0.1 0.25 "${posts[@]}" "$@"
sweep baseline_inference --task_type classification --prompt_type zero-shot few-shot --max_test_samples 500 "$@"
cheap baseline_inference --task_type classification --baseline dummy --max_test_samples 500 "$@"
cheap baseline_inference --task_type classification --baseline tfidf frozen-features --train_sample_fraction 0.025 \
  --max_test_samples 500 "$@"
sweep classification --train_sample_fraction 0.025 0.05 --seed "${seeds[@]}" --no_before "${posts[@]}" "$@"
sweep classification --full_tune --train_sample_fraction 0.025 0.05 --seed "${seeds[@]}" --no_before "${posts[@]}" "$@"
sweep classification --train_sample_fraction 0.1 --seed "${seeds[@]}" --no_before "${posts[@]}" "$@"
sweep classification --neftune 5 --train_sample_fraction 0.025 0.05 --seed "${seeds[@]}" --no_before "${posts[@]}" "$@"
sweep classification --full_tune --neftune 5 --train_sample_fraction 0.025 0.05 --seed "${seeds[@]}" --no_before \
  "${posts[@]}" "$@"
sweep classification --train_sample_fraction 0.25 --no_before "${posts[@]}" "$@"

# IMDB, 500 test reviews: prompted, a random head, sampled answers; all 2,500: trained, four epochs
for reviews in 500 2500; do
  cheap features --max_train_samples 900 --max_test_samples "$reviews" --baseline dummy tfidf frozen-features "$@"
done
sweep sentiment --prompt_type zero-shot one-shot few-shot --max_test_samples 500 "$@"
sweep sentiment --random_head --seed 1 2 3 --max_test_samples 500 "$@"
sweep sentiment --prompt_type zero-shot --temperature 1 --seed 1 2 3 --max_test_samples 500 "$@"
sweep sentiment --epochs 4 --no_before "$@"
sweep sentiment --seed "${seeds[@]}" --no_before "$@"

# Instructions
sweep instructions --max_train_samples 960 --max_test_samples 100 --no_before "$@"

# Rank and dropout of the adapter, on a quarter of SAMSum's training and of its test dialogues
sweep summarization --lora_r 2 4 8 16 --dropout 0.1 0.2 0.5 --train_sample_fraction 0.25 --epochs 2 --no_before \
  --max_test_samples 200 "$@"

# Twelve decodings of the instructions' adapter
bash "$here/decoding_sweep.sh" --max_test_samples 100 "$@"
