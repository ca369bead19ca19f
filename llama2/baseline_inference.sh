#!/usr/bin/env bash
# The untrained model: both tasks, zero-, one- and few-shot prompts; finished cells are skipped.
# Further flags are passed on to every cell.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "${PYTHON:-python}" -m common sweep "$here/llama2_baseline_inference.py" \
  --task_type classification summarization --prompt_type zero-shot one-shot few-shot "$@"
