"""Use a Zephyr-7B adapter that zephyr_classification.py trained: score the test posts, or classify one text.

    python zephyr/zephyr_classification_inference.py --experiment_dir zephyr/experiments/RUN
    python zephyr/zephyr_classification_inference.py --text "The goalie stopped 41 shots last night."
    python zephyr/zephyr_classification_inference.py --input new.csv --output answers.csv

Without --experiment_dir it uses the newest trained run of this folder. It keeps the settings of that training; flags
change only the scoring and the decoding.
"""

import sys

import model
import prompts

from common import data, encoding, evaluation, qlora
from common.runs import experiment

EXPERIMENT = experiment.Experiment(__file__, __doc__, "classification", "inference", None, model, prompts)


def main(run):
    posts = data.newsgroups(**run.rows)
    prompter = encoding.prompter(run.tokenizer, run.template, run.format, run.settings, posts.labels)
    tuned = qlora.trained(run.checkpoint, run.execution, run.trained)
    scores = evaluation.labels(tuned, prompter, posts, run.settings, run.execution)
    run.finish(posts, prompter.truncated, scores)


def answers(run):
    """What the model says to --text, or to each row of --input."""
    prompter = encoding.prompter(run.tokenizer, run.template, run.format, run.settings, run.labels)
    tuned = qlora.trained(run.checkpoint, run.execution, run.trained)
    return evaluation.answers(tuned, prompter, run.questions, run.settings, run.execution)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main, answers))
