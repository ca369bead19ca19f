"""Use a MPT-7B adapter that mpt_summarization.py trained: score the test dialogues, or summarize one.

    python mpt/mpt_summarization_inference.py --experiment_dir mpt/experiments/<run>
    python mpt/mpt_summarization_inference.py --text "Ann: keys? Bob: on the shelf, help yourself"

Without --experiment_dir the newest trained run of this folder is used.
"""

import sys

import model
import prompts

from common import data, evaluation, experiment, flags, records


def arguments():
    return flags.summarization(flags.inference(__doc__)).parse_args()


def main(run):
    dialogues = data.samsum(run)
    scores = evaluation.summaries(run, run.model(), dialogues)
    records.finish(run, dialogues, scores)


if __name__ == "__main__":
    sys.exit(experiment.start(main, arguments(), model, prompts, "inference"))
