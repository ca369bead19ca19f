"""Score MPT-7B as it is, without fine-tuning: zero-, one- and few-shot prompts, both tasks.

The zero- and few-shot rows of Table 2 (a GPU with 8 GB); all six with `bash mpt/baseline_inference.sh`:
    python mpt/mpt_baseline_inference.py --task_type summarization --prompt_type few-shot
On any machine, with the embedded 135M model:
    python mpt/mpt_baseline_inference.py --task_type summarization --prompt_type few-shot --demo

Examples come from the training split and are shortened until the longest prompt fits.
"""

import sys

import model
import prompts

from common import data, evaluation, experiment, flags, records


def arguments():
    return flags.baseline(__doc__).parse_args()


def main(run):
    rows = data.of_task(run)
    scores = evaluation.of_task(run, run.model(), rows)
    records.finish(run, rows, scores)


if __name__ == "__main__":
    sys.exit(experiment.start(main, arguments(), model, prompts, "baseline"))
