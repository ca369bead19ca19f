"""Use what distilbert_classification.py trained: score the test posts, or class one text.

    python distilbert/distilbert_classification_inference.py --experiment_dir distilbert/experiments/<run>
    python distilbert/distilbert_classification_inference.py --text "The goalie stopped 41 shots last night."

Without --experiment_dir the newest trained run of this folder is used.
"""

import sys

import model
import prompts

from common import data, encoders, experiment, flags, records


def arguments():
    return flags.classification(flags.inference(__doc__)).parse_args()


def main(run):
    posts = data.newsgroups(run)
    scores = encoders.labels(run, encoders.network(run, posts.labels), posts)
    records.finish(run, posts, scores)


if __name__ == "__main__":
    sys.exit(experiment.start(main, arguments(), model, prompts, "inference"))
