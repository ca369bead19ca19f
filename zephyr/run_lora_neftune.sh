#!/usr/bin/env bash
# run_lora.sh with NEFTune: adapter rank, dropout and epochs on SAMSum, 72 records, finished ones are skipped.
# Further flags are passed on to every cell; --full_tune makes it the last row of Table 2.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/run_lora.sh" --neftune 5 "$@"
