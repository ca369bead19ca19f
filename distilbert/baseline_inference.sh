#!/usr/bin/env bash
# The untrained model: both tasks, a dummy, TF-IDF and frozen features; finished cells are skipped.
# Further flags are passed on to every cell.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "${PYTHON:-python}" -m common sweep "$here/distilbert_baseline_inference.py" \
  --task_type classification summarization --baseline dummy tfidf frozen-features "$@"
