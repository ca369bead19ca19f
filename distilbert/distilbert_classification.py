"""Fine-tune DistilBERT on 20 Newsgroups: a post to one of 20 classes.

A row of Table 1 (any machine), every weight trained, or QLoRA on query and value:
    python distilbert/distilbert_classification.py --train_sample_fraction 0.025
    python distilbert/distilbert_classification.py --train_sample_fraction 0.025 --lora_r 16
All six fractions with `bash distilbert/sample_ablate.sh`, which takes --lora_r too. With the embedded 23M encoder:
    python distilbert/distilbert_classification.py --demo

The base model beside the tuned one is the same encoder untrained, under a logistic regression on the same rows.
The record goes to distilbert/results/, weights and predictions to distilbert/experiments/.
"""

import sys

import model
import prompts

from common import data, encoders, experiment, flags, records


def arguments():
    return flags.classification(flags.training(__doc__)).parse_args()


def main(run):
    posts = data.newsgroups(run)  # the same rows, in the same order, for every model
    network = encoders.tune(run, encoders.network(run, posts.labels), posts)  # new head; all weights or LoRA
    scores = encoders.labels(run, network, posts)  # every label scored, for every row of a table alike
    records.finish(run, posts, scores)


if __name__ == "__main__":
    sys.exit(experiment.start(main, arguments(), model, prompts, "training"))
