"""SmolLM2-135M on IMDB: fine-tuned with QLoRA, zero-, one- and few-shot, and with an untrained head.

    python smollm2/smollm2_sentiment.py                                    # fine-tuned, 900 reviews
    python smollm2/smollm2_sentiment.py --prompt_type few-shot             # label-scored and greedy
    python smollm2/smollm2_sentiment.py --prompt_type zero-shot --temperature 1 --seed 2   # one of three executions
    python smollm2/smollm2_sentiment.py --random_head --seed 2             # the setup of the study's zero-shot figures
    python smollm2/smollm2_sentiment.py --demo

The executions differ because --seed samples other answers; label scores and greedy answers are the same.

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
    max_document_tokens=256,  # study: 512 with the prompt, cut on the right, which loses the label
    max_new_tokens=5,
    prompt_tokens=1900,  # of a prompt with examples
    trainer="SFTTrainer",
    quantization="nf4, double",
    lora_r=64,
    lora_alpha=16,
    dropout=0.1,
    targets=model.ATTENTION_TARGETS,
    epochs=1,  # study: 4; an hour on two cores
    learning_rate=3e-3,  # a small model and few steps
    lr_scheduler="linear",
    warmup_ratio=0.03,
    optimizer="adamw_torch",
    weight_decay=0.0,
    max_grad_norm=0.3,
    batch_size=4,
    micro_batch_size=4,
    keep="last",  # as in the study, whose validation loss rises from the first epoch on
    seed=42,  # study: none
)
DEMO = {"epochs": 2}  # 48 training reviews
SHOTS = {"sentiment": {"zero-shot": 0, "one-shot": 1, "few-shot": 4}}
EXPERIMENT = experiment.Experiment(
    __file__, __doc__, "sentiment", "training", SETTINGS, model, prompts, demo=DEMO, shots=SHOTS, prompted=True
)


def main(run):
    reviews = data.imdb(**run.rows)  # the same rows, in the same order, for every model
    prompter = encoding.prompter(run.tokenizer, run.template, run.format, run.settings, reviews.labels, reviews.train)
    if run.settings.head == "random":
        scores = evaluation.random_head(run.checkpoint, prompter, reviews, run.settings, run.execution)
        return run.finish(reviews, prompter.truncated, scores)
    network, report = qlora.base(run.checkpoint, run.execution), None  # 4-bit, frozen
    if run.trains:
        network, report = training.tune(network, prompter, reviews, run.settings, run.execution, budget.before)
    scores = evaluation.labels(network, prompter, reviews, run.settings, run.execution)
    return run.finish(reviews, prompter.truncated, scores, report)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main))
