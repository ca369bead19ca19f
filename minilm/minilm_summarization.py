"""Teach MiniLM to pick the utterances of a SAMSum dialogue that stand for its summary.

An encoder cannot write, so the summary is extractive: three utterances as they were said. It learns from oracle
labels, the utterances that a greedy search finds closest to the written summary by ROUGE. A row of Table 2:
    python minilm/minilm_summarization.py
    python minilm/minilm_summarization.py --lora_r 16
On the sample:
    python minilm/minilm_summarization.py --demo

Scored with ROUGE against the written summaries, as the models that write. The base model beside the tuned one is
the same encoder untrained, under a logistic regression on the same labels.
"""

import sys

import model
import prompts

from common import budget, data, encoders, qlora
from common.runs import experiment
from common.settings import Settings

SETTINGS = Settings(
    max_document_tokens=512,
    picks=3,  # utterances in a summary: SAMSum's summaries have 23 words, its utterances 9
    pooling="mean",  # where the untrained encoder's features are read
    trainer="Trainer",  # of transformers
    epochs=3,
    learning_rate=2e-4,
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
    "learning_rate": 2e-3,
    "max_grad_norm": 0.3,
}
DEMO = {"batch_size": 4, "micro_batch_size": 4}  # the sample has a few dozen rows
EXPERIMENT = experiment.Experiment(
    __file__, __doc__, "summarization", "training", SETTINGS, model, prompts, adapter=ADAPTER, demo=DEMO
)


def main(run):
    dialogues = data.samsum(**run.rows)  # the same rows, in the same order, for every model
    reader = encoders.reader(qlora.tokenizer(run.checkpoint), run.template, run.settings)
    network = encoders.network(run.checkpoint, [], run.settings, run.execution)  # with a new head
    network, report = encoders.tune(network, reader, dialogues, run.settings, run.execution, budget.before)
    scores = encoders.summaries(network, reader, dialogues, run.settings, run.execution, run.checkpoint)
    run.finish(dialogues, reader.truncated, scores, report)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main))
