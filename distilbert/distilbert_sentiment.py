"""Fine-tune DistilBERT on IMDB with transformers' Trainer: a review is negative or positive.

70/10/20 of all reviews, the same for the training loop beside it (distilbert_sentiment_loop.py); the epoch is chosen
on the validation rows, never on the test rows (a GPU, or a CPU and patience):
    python distilbert/distilbert_sentiment.py
On any machine, with the embedded 23M encoder:
    python distilbert/distilbert_sentiment.py --pretrained_ckpt minilm --max_train_samples 4000
    python distilbert/distilbert_sentiment.py --demo

The base model beside the tuned one is the same encoder untrained, under a logistic regression on the same rows. Loss,
gradient norm and learning rate stand in the record; `python -m common.plots` draws them.
"""

import sys

import model
import prompts

from common import data, encoders, experiment, flags, records


def arguments():
    return flags.sentiment(flags.training(__doc__)).parse_args()


def main(run):
    reviews = data.imdb(run)  # the same rows, in the same order, for every model
    network = encoders.tune(run, encoders.network(run, reviews.labels), reviews)  # the best epoch on validation
    scores = encoders.labels(run, network, reviews)
    records.finish(run, reviews, scores)


if __name__ == "__main__":
    sys.exit(experiment.start(main, arguments(), model, prompts, "training"))
