"""Score MiniLM on IMDB without fine-tuning: a logistic regression on its mean features or on TF-IDF, and a dummy that
picks the most frequent class.

    python minilm/minilm_features.py --max_train_samples 4000 --max_test_samples 2000
    python minilm/minilm_features.py --max_train_samples 4000 --max_test_samples 2000 --baseline tfidf
Run it on the sample:
    python minilm/minilm_features.py --demo
"""

import sys

import model
import prompts

from common import data, encoders
from common.runs import experiment
from common.settings import Settings

SETTINGS = Settings(
    max_document_tokens=384,
    cut="middle",  # drop the middle of a long review, because its end concludes
    pooling="mean",  # position of the features
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
