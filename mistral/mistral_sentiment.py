"""Fine-tune Mistral-7B-Instruct-v0.2 with QLoRA on IMDB: classify a review as negative or positive.

It uses 900 training, 100 validation and 2,500 test reviews, balanced; no review is in two of them:
    python mistral/mistral_sentiment.py
Run the whole experiment with the embedded 135M model and the sample, on any machine, in minutes:
    python mistral/mistral_sentiment.py --demo

It scores both classes by log-likelihood, and records each class' accuracy, the confusion matrix, and training and
validation loss by epoch. If the study does not name a setting, it is that of the study's other tasks.
"""

import sys

import model
import prompts

from common import budget, data, encoding, evaluation, qlora, training
from common.runs import experiment
from common.settings import Settings

SETTINGS = Settings(
    max_train_samples=900,
    max_validation_samples=100,
    max_test_samples=2500,
    max_document_tokens=512,  # study: 512 with the prompt, cut on the right, which loses the label
    max_new_tokens=5,
    prompt_tokens=1900,  # of a prompt with examples
    trainer="SFTTrainer",
    quantization="nf4, double",
    lora_r=64,
    lora_alpha=16,
    dropout=0.1,
    targets=model.ATTENTION_TARGETS,
    epochs=4,
    learning_rate=2e-4,
    lr_scheduler="linear",
    warmup_ratio=0.03,
    optimizer="adamw_torch",
    weight_decay=0.0,
    max_grad_norm=0.3,
    batch_size=8,
    micro_batch_size=4,
    keep="last",  # as in the study, whose validation loss rises from the first epoch on
    seed=42,  # study: none
)
EXPERIMENT = experiment.Experiment(
    __file__, __doc__, "sentiment", "training", SETTINGS, model, prompts, variant=model.INSTRUCT
)


def main(run):
    reviews = data.imdb(**run.rows)  # the same rows, in the same order, for every model
    prompter = encoding.prompter(run.tokenizer, run.template, run.format, run.settings, reviews.labels)
    base = qlora.base(run.checkpoint, run.execution)  # 4-bit, frozen
    tuned, report = training.tune(base, prompter, reviews, run.settings, run.execution, budget.before)
    scores = evaluation.labels(tuned, prompter, reviews, run.settings, run.execution)
    run.finish(reviews, prompter.truncated, scores, report)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main))
