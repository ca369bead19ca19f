#!/usr/bin/env bash
# run_lora.sh with NEFTune: adapter rank, epochs and dropout on SAMSum, 72 cells, finished ones are skipped.
# Further flags are passed on to every cell; --full_tune makes it the last row of Table 2.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/run_lora.sh" --neftune 5 "$@"
