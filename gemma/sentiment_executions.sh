#!/usr/bin/env bash
# Zero-shot in three executions: sampled answers of three seeds; finished ones are skipped. Further flags are passed on.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "${PYTHON:-python}" -m common sweep "$here/gemma_sentiment.py" \
  --prompt_type zero-shot --temperature 1 --seed 1 2 3 "$@"
