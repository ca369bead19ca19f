#!/usr/bin/env bash
# The decoding study: one setting after the other on the adapter that phi2_instructions.py trained last, 4 + 4 + 4
# cells, finished ones are skipped. Further flags are passed on to every cell.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
sweep() { "${PYTHON:-python}" -m common sweep "$here/phi2_instructions_inference.py" "$@"; }
sweep --temperature 0.001 0.25 0.5 0.75 "$@"
sweep --num_beams 1 2 4 8 "$@"
sweep --top_k 2 4 8 16 "$@"
