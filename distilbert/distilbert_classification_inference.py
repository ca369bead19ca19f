"""Use the model that distilbert_classification.py trained: score the test posts, or classify one text.

    python distilbert/distilbert_classification_inference.py --experiment_dir distilbert/experiments/<run>
    python distilbert/distilbert_classification_inference.py --text "The goalie stopped 41 shots last night."
    python distilbert/distilbert_classification_inference.py --input new.csv --output answers.csv

Without --experiment_dir it uses the newest trained run of this folder.
"""

import sys

import model
import prompts

from common import data, encoders
from common.runs import experiment

EXPERIMENT = experiment.Experiment(__file__, __doc__, "classification", "inference", None, model, prompts)


def main(run):
    posts = data.newsgroups(**run.rows)
    reader = encoders.reader(run.tokenizer, run.template, run.settings)
    network = encoders.network(run.checkpoint, posts.labels, run.settings, run.execution, run.trained)
    scores = encoders.labels(network, reader, posts, run.settings, run.execution, run.checkpoint)
    run.finish(posts, reader.truncated, scores)


def answers(run):
    """What the model says to --text, or to each row of --input."""
    reader = encoders.reader(run.tokenizer, run.template, run.settings)
    network = encoders.network(run.checkpoint, run.labels, run.settings, run.execution, run.trained)
    return encoders.answers(network, reader, run.questions, run.labels, run.execution)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main, answers))
