"""Fine-tune DistilBERT on 20 Newsgroups: a post to one of 20 classes.

A row of Table 1 (any machine), every weight trained, or QLoRA on query and value:
    python distilbert/distilbert_classification.py --train_sample_fraction 0.025
    python distilbert/distilbert_classification.py --train_sample_fraction 0.025 --lora_r 16
All six fractions with `bash distilbert/sample_ablate.sh`, which takes --lora_r too. With the embedded 23M encoder:
    python distilbert/distilbert_classification.py --demo

The base model beside the tuned one is the same encoder untrained, under a logistic regression on the same rows.
"""

import sys

import model
import prompts

from common import budget, data, encoders, qlora
from common.runs import experiment
from common.settings import Settings

SETTINGS = Settings(
    max_document_tokens=512,
    cut="end",
    pooling="cls",  # where the untrained encoder's features are read
    trainer="Trainer",  # of transformers
    epochs=10,
    learning_rate=5e-5,
    lr_scheduler="cosine",
    warmup_ratio=0.03,
    optimizer="adamw_torch",
    weight_decay=0.0,
    max_grad_norm=1.0,
    batch_size=16,
    micro_batch_size=16,
    keep="last",
    seed=42,
)
ADAPTER = {  # with --lora_r: the encoder stays frozen in 4 bits, an adapter and the head are trained
    "quantization": "nf4, double",
    "lora_alpha": 16,
    "dropout": 0.1,
    "targets": model.ATTENTION_TARGETS,
    "learning_rate": 5e-4,
    "max_grad_norm": 0.3,
}
EXPERIMENT = experiment.Experiment(
    __file__, __doc__, "classification", "training", SETTINGS, model, prompts, adapter=ADAPTER
)


def main(run):
    posts = data.newsgroups(**run.rows)  # the same rows, in the same order, for every model
    reader = encoders.reader(qlora.tokenizer(run.checkpoint), run.template, run.settings)
    network = encoders.network(run.checkpoint, posts.labels, run.settings, run.execution)  # with a new head
    network, report = encoders.tune(network, reader, posts, run.settings, run.execution, budget.before)
    scores = encoders.labels(network, reader, posts, run.settings, run.execution, run.checkpoint)
    run.finish(posts, reader.truncated, scores, report)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main))
