"""Fine-tune Mistral-7B-Instruct-v0.2 with QLoRA on IMDB: a review is negative or positive.

900 training, 100 validation and 2,500 test reviews, balanced, none in two of them (a 24 GB GPU):
    python mistral/mistral_sentiment.py
On any machine, with the embedded 135M model:
    python mistral/mistral_sentiment.py --pretrained_ckpt smollm2 --max_train_samples 300 --max_test_samples 300
    python mistral/mistral_sentiment.py --demo

Both classes scored by log-likelihood, before and after, with each class' own accuracy, the confusion matrix, and
training and validation loss an epoch. The record goes to mistral/results/, adapter and predictions to
mistral/experiments/.
"""

import sys

import model
import prompts

from common import data, evaluation, experiment, flags, records, training


def arguments():
    return flags.sentiment(flags.training(__doc__)).parse_args()


def main(run):
    reviews = data.imdb(run)  # the same rows, in the same order, for every model
    network = training.tune(run, run.model(), reviews)  # 4-bit base, new adapter; learns the one word
    scores = evaluation.labels(run, network, reviews)  # both labels scored, free answers beside
    records.finish(run, reviews, scores)


if __name__ == "__main__":
    sys.exit(experiment.start(main, arguments(), model, prompts, "training"))
