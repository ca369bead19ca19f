#!/usr/bin/env bash
# Adapter rank, epochs and dropout on SAMSum: 4 x 6 x 3 = 72 cells, finished ones are skipped.
# bash zephyr/run_lora.sh --dry_run lists them; further flags are passed on to every cell.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "${PYTHON:-python}" -m common sweep "$here/zephyr_summarization.py" \
  --epochs 2 5 10 20 30 50 --lora_r 2 4 8 16 --dropout 0.1 0.2 0.5 --no_before "$@"
