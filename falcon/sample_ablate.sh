#!/usr/bin/env bash
# Table 1: accuracy against the share of the training rows, all six fractions; finished ones are skipped.
# Smaller fractions are subsets of larger ones. Further flags are passed on to every cell.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "${PYTHON:-python}" -m common sweep "$here/falcon_classification.py" \
  --train_sample_fraction 0.025 0.05 0.1 0.25 0.5 1.0 --no_before "$@"
