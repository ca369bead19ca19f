"""Score DistilBERT on IMDB without fine-tuning: a logistic regression on its frozen [CLS] features or on TF-IDF, and a
dummy that picks the most frequent class.

    python distilbert/distilbert_features.py
    python distilbert/distilbert_features.py --baseline dummy
Run it with the embedded 23M encoder:
    python distilbert/distilbert_features.py --demo
"""

import sys

import model
import prompts

from common import data, encoders
from common.runs import experiment
from common.settings import Settings

SETTINGS = Settings(
    max_document_tokens=256,
    cut="middle",  # drop the middle of a long review, because its end concludes
    pooling="cls",  # position of the features
    baseline="frozen-features",
)
EXPERIMENT = experiment.Experiment(__file__, __doc__, "sentiment", "untrained", SETTINGS, model, prompts)


def main(run):
    reviews = data.imdb(**run.rows)  # the same rows, in the same order, for every model
    reader = encoders.reader(run.tokenizer, run.template, run.settings)
    scores = encoders.baseline(run.checkpoint, reader, reviews, run.settings, run.execution)
    run.finish(reviews, reader.truncated, scores)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main))
