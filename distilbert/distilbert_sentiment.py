"""Fine-tune DistilBERT on IMDB with transformers' Trainer: a review is negative or positive.

It splits all reviews 70/10/20, like distilbert_sentiment_loop.py, and chooses the epoch on the validation rows, never
on the test rows. It takes a GPU, or hours on a CPU:
    python distilbert/distilbert_sentiment.py
Run it with the embedded 23M encoder:
    python distilbert/distilbert_sentiment.py --demo

The base model is a logistic regression on the features of the same encoder, untrained, fitted on the same rows. Loss,
gradient norm and learning rate stand in the record; `python -m common plots` draws them.
"""

import sys

import model
import prompts

from common import budget, data, encoders
from common.runs import experiment
from common.settings import Settings

SETTINGS = Settings(
    max_document_tokens=256,
    cut="middle",  # drop the middle of a long review, because its end concludes
    pooling="cls",  # position of the untrained encoder's features
    trainer="Trainer",  # of transformers
    epochs=2,
    learning_rate=5e-5,
    lr_scheduler="linear",
    warmup_ratio=0.03,
    optimizer="adamw_torch",
    weight_decay=0.0,
    max_grad_norm=1.0,
    batch_size=16,
    micro_batch_size=16,
    keep="best",  # choose the epoch on the validation rows
    seed=42,
)
ADAPTER = {  # with --lora_r: freeze the encoder in 4 bits, train an adapter and the head
    "quantization": "nf4, double",
    "lora_alpha": 16,
    "dropout": 0.1,
    "targets": model.ATTENTION_TARGETS,
    "learning_rate": 5e-4,
    "max_grad_norm": 0.3,
}
EXPERIMENT = experiment.Experiment(
    __file__, __doc__, "sentiment", "training", SETTINGS, model, prompts, adapter=ADAPTER
)


def main(run):
    reviews = data.imdb(**run.rows)  # the same rows, in the same order, for every model
    reader = encoders.reader(run.tokenizer, run.template, run.settings)
    network = encoders.network(run.checkpoint, reviews.labels, run.settings, run.execution)  # with a new head
    network, report = encoders.tune(network, reader, reviews, run.settings, run.execution, budget.before)
    scores = encoders.labels(network, reader, reviews, run.settings, run.execution, run.checkpoint)
    run.finish(reviews, reader.truncated, scores, report)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main))
