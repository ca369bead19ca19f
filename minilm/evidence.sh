#!/usr/bin/env bash
# Every run behind this folder's tables, the cheap ones first: hours on two cores; finished cells are skipped.
# Further flags are passed on to every cell; `--slots 2` runs two cells at once, a core each.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
sweep() { local script=$1; shift; "${PYTHON:-python}" -m common sweep "$here/minilm_$script.py" "$@"; }
small=(0.025 0.05 0.1) large=(0.25 0.5 1.0) seeds=(42 43 44)

# Baselines: 20 Newsgroups by the share of the training posts, IMDB, SAMSum (extractive)
sweep baseline_inference --task_type classification --baseline dummy "$@"
sweep baseline_inference --task_type classification --baseline tfidf frozen-features \
  --train_sample_fraction "${small[@]}" "${large[@]}" "$@"
sweep baseline_inference --task_type summarization --baseline dummy tfidf frozen-features "$@"
sweep features --max_train_samples 900 4000 20000 --baseline tfidf frozen-features "$@"
sweep features --baseline dummy "$@"

# Fine-tuning on few rows
sweep classification --train_sample_fraction "${small[@]}" --seed "${seeds[@]}" --no_before "$@"
sweep classification --lora_r 16 --train_sample_fraction "${small[@]}" --seed "${seeds[@]}" --no_before "$@"
sweep sentiment --max_train_samples 900 --seed "${seeds[@]}" --no_before "$@"
sweep baseline_inference --task_type classification --baseline setfit --train_sample_fraction 0.025 \
  --seed "${seeds[@]}" "$@"
sweep summarization --seed "${seeds[@]}" --no_before "$@"
sweep summarization --train_sample_fraction 0.1 0.25 0.5 --no_before "$@"
sweep summarization --lora_r 16 --train_sample_fraction 0.1 0.25 0.5 1.0 --no_before "$@"
sweep summarization --lora_r 2 4 8 16 --dropout 0.1 0.2 0.5 --train_sample_fraction 0.25 --epochs 2 --no_before "$@"

# On many
sweep classification --train_sample_fraction "${large[@]}" --no_before "$@"
sweep classification --lora_r 16 --train_sample_fraction "${large[@]}" --no_before "$@"
sweep sentiment --max_train_samples 4000 --seed "${seeds[@]}" --no_before "$@"
sweep sentiment_loop --max_train_samples 4000 --seed "${seeds[@]}" --no_before "$@"
sweep baseline_inference --task_type classification --baseline setfit --train_sample_fraction 0.05 \
  --seed "${seeds[@]}" "$@"
sweep sentiment --max_train_samples 20000 --no_before "$@"
