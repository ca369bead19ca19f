"""Use the model that distilbert_summarization.py trained: score the test dialogues, or pick utterances from one.

    python distilbert/distilbert_summarization_inference.py --experiment_dir distilbert/experiments/<run>
    python distilbert/distilbert_summarization_inference.py --text "Ann: keys? Bob: on the shelf, help yourself"
    python distilbert/distilbert_summarization_inference.py --input new.csv --output answers.csv

Without --experiment_dir it uses the newest trained run of this folder.
"""

import sys

import model
import prompts

from common import data, encoders
from common.runs import experiment

EXPERIMENT = experiment.Experiment(__file__, __doc__, "summarization", "inference", None, model, prompts)


def main(run):
    dialogues = data.samsum(**run.rows)
    reader = encoders.reader(run.tokenizer, run.template, run.settings)
    network = encoders.network(run.checkpoint, [], run.settings, run.execution, run.trained)
    scores = encoders.summaries(network, reader, dialogues, run.settings, run.execution, run.checkpoint)
    run.finish(dialogues, reader.truncated, scores)


def answers(run):
    """What the model says to --text, or to each row of --input."""
    reader = encoders.reader(run.tokenizer, run.template, run.settings)
    network = encoders.network(run.checkpoint, run.labels, run.settings, run.execution, run.trained)
    return encoders.answers(network, reader, run.questions, run.labels, run.execution)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main, answers))
