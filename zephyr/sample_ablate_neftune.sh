#!/usr/bin/env bash
# sample_ablate.sh with NEFTune: the second column of Table 1; with --full_tune the fourth.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/sample_ablate.sh" --neftune 5 "$@"
