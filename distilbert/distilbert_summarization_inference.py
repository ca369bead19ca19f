"""Use what distilbert_summarization.py trained: score the test dialogues, or pick from one.

    python distilbert/distilbert_summarization_inference.py --experiment_dir distilbert/experiments/<run>
    python distilbert/distilbert_summarization_inference.py --text "Ann: keys? Bob: on the shelf, help yourself"

Without --experiment_dir the newest trained run of this folder is used.
"""

import sys

import model
import prompts

from common import data, encoders, experiment, flags, records


def arguments():
    return flags.summarization(flags.inference(__doc__)).parse_args()


def main(run):
    dialogues = data.samsum(run)
    scores = encoders.summaries(run, encoders.network(run, []), dialogues)
    records.finish(run, dialogues, scores)


if __name__ == "__main__":
    sys.exit(experiment.start(main, arguments(), model, prompts, "inference"))
