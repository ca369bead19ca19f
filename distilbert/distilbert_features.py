"""What DistilBERT knows of IMDB's reviews without fine-tuning: frozen [CLS] features under a logistic regression, and
a dummy that says the most frequent class.

    python distilbert/distilbert_features.py
    python distilbert/distilbert_features.py --baseline dummy
    python distilbert/distilbert_features.py --pretrained_ckpt minilm --max_train_samples 4000 --max_test_samples 2000
"""

import sys

import model
import prompts

from common import data, encoders, experiment, flags, records


def arguments():
    return flags.sentiment(flags.untrained(__doc__, ["sentiment"])).parse_args()


def main(run):
    reviews = data.imdb(run)
    scores = encoders.baseline(run, reviews)
    records.finish(run, reviews, scores)


if __name__ == "__main__":
    sys.exit(experiment.start(main, arguments(), model, prompts, "baseline"))
