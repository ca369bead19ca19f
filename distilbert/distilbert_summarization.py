"""Teach DistilBERT to pick the utterances of a SAMSum dialogue that stand for its summary.

An encoder cannot write, so the summary is extractive: three utterances as they were said. It learns from oracle
labels, the utterances that a greedy search finds closest to the written summary by ROUGE. A row of Table 2:
    python distilbert/distilbert_summarization.py
    python distilbert/distilbert_summarization.py --lora_r 16
With the embedded 23M encoder:
    python distilbert/distilbert_summarization.py --demo

Scored with ROUGE against the written summaries, as the models that write. The base model beside the tuned one is
the same encoder untrained, under a logistic regression on the same labels. The record goes to distilbert/results/,
weights and predictions to distilbert/experiments/.
"""

import sys

import model
import prompts

from common import data, encoders, experiment, flags, records


def arguments():
    return flags.summarization(flags.training(__doc__)).parse_args()


def main(run):
    dialogues = data.samsum(run)  # the same rows, in the same order, for every model
    network = encoders.tune(run, encoders.network(run, []), dialogues)  # new head that picks utterances
    scores = encoders.summaries(run, network, dialogues)  # one scorer for every row of a table
    records.finish(run, dialogues, scores)


if __name__ == "__main__":
    sys.exit(experiment.start(main, arguments(), model, prompts, "training"))
