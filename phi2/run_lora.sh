#!/usr/bin/env bash
# Adapter rank, dropout and epochs on SAMSum: 4 x 3 trainings, each scored after 2, 5, 10, 20, 30 and 50 epochs: 72
# records from 600 epochs. Finished ones are skipped.
# bash phi2/run_lora.sh --dry_run lists them; further flags are passed on to every cell.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "${PYTHON:-python}" -m common sweep "$here/phi2_summarization.py" \
  --score_after_epochs 2 5 10 20 30 50 --lora_r 2 4 8 16 --dropout 0.1 0.2 0.5 --no_before "$@"
