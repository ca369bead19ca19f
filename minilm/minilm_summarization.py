"""Fine-tune MiniLM on SAMSum: pick the utterances of a dialogue that summarize it.

An encoder cannot generate text, so the summary is extractive: three utterances, unchanged. The training labels are the
utterances that a greedy search finds closest to the reference summary by ROUGE. Make a row of Table 2:
    python minilm/minilm_summarization.py
    python minilm/minilm_summarization.py --lora_r 16
Run it on the sample:
    python minilm/minilm_summarization.py --demo

It is scored by ROUGE against the reference summaries, like the models that generate text. The base model is a logistic
regression on the features of the same encoder, untrained, fitted on the same labels.
"""

import sys

import model
import prompts

from common import budget, data, encoders
from common.runs import experiment
from common.settings import Settings

SETTINGS = Settings(
    max_document_tokens=512,
    picks=3,  # utterances in a summary: a SAMSum summary has 23 words, an utterance 9
    pooling="mean",  # position of the untrained encoder's features
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
ADAPTER = {  # with --lora_r: freeze the encoder in 4 bits, train an adapter and the head
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
    reader = encoders.reader(run.tokenizer, run.template, run.settings)
    network = encoders.network(run.checkpoint, [], run.settings, run.execution)  # with a new head
    network, report = encoders.tune(network, reader, dialogues, run.settings, run.execution, budget.before)
    scores = encoders.summaries(network, reader, dialogues, run.settings, run.execution, run.checkpoint)
    run.finish(dialogues, reader.truncated, scores, report)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main))
