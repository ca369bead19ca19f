"""Fine-tune DistilBERT on 20 Newsgroups: classify a post into one of 20 classes.

Make a row of Table 1, on any machine; train every weight, or QLoRA on query and value:
    python distilbert/distilbert_classification.py --train_sample_fraction 0.025
    python distilbert/distilbert_classification.py --train_sample_fraction 0.025 --lora_r 16
`bash distilbert/sample_ablate.sh` makes all six rows, with or without --lora_r. Run it with the embedded 23M encoder:
    python distilbert/distilbert_classification.py --demo

The base model is a logistic regression on the features of the same encoder, untrained, fitted on the same rows.
"""

import sys

import model
import prompts

from common import budget, data, encoders
from common.runs import experiment
from common.settings import Settings

SETTINGS = Settings(
    max_document_tokens=512,
    cut="end",
    pooling="cls",  # position of the untrained encoder's features
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
ADAPTER = {  # with --lora_r: freeze the encoder in 4 bits, train an adapter and the head
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
    reader = encoders.reader(run.tokenizer, run.template, run.settings)
    network = encoders.network(run.checkpoint, posts.labels, run.settings, run.execution)  # with a new head
    network, report = encoders.tune(network, reader, posts, run.settings, run.execution, budget.before)
    scores = encoders.labels(network, reader, posts, run.settings, run.execution, run.checkpoint)
    run.finish(posts, reader.truncated, scores, report)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main))
