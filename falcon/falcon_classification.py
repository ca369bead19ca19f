"""Fine-tune Falcon-7B with QLoRA on 20 Newsgroups: classify a post into one of 20 classes.

Make a row of Table 1 (`bash falcon/sample_ablate.sh` makes all six; --neftune 5 and --full_tune give the variants):
    python falcon/falcon_classification.py --train_sample_fraction 0.025
Run the whole experiment with the embedded 135M model and the sample, on any machine, in minutes:
    python falcon/falcon_classification.py --demo

It scores the base and the tuned model on the test posts: every label by its full log-likelihood, and the answers of
free generation. A comment says why a setting differs from the study's.
"""

import sys

import model
import prompts

from common import budget, data, encoding, evaluation, qlora, training
from common.runs import experiment
from common.settings import Settings

SETTINGS = Settings(
    max_document_tokens=512,  # study: 512 with the prompt, cut on the right, which loses the class
    max_new_tokens=20,  # of free generation; the longest class name has 10
    trainer="SFTTrainer",
    quantization="nf4, double",  # study: trained on NF4, scored on FP4
    lora_r=8,
    lora_alpha=16,  # study: 32 for this model alone; one scale for all models, to compare them
    dropout=0.1,
    targets=model.ATTENTION_TARGETS,  # study: peft's choice, which differs from model to model
    epochs=5,
    learning_rate=2e-4,
    lr_scheduler="constant",
    warmup_ratio=0.0,  # study: 0.03, which "constant" ignores
    optimizer="adamw_torch",  # study: paged_adamw_32bit, the same steps with pages for a full GPU
    weight_decay=0.0,
    max_grad_norm=0.3,
    batch_size=8,  # study: 4 for this model alone
    micro_batch_size=4,  # study: 1
    keep="last",
    seed=42,  # study: none
)
EXPERIMENT = experiment.Experiment(__file__, __doc__, "classification", "training", SETTINGS, model, prompts)


def main(run):
    posts = data.newsgroups(**run.rows)  # the same rows, in the same order, for every model
    prompter = encoding.prompter(run.tokenizer, run.template, run.format, run.settings, posts.labels)
    base = qlora.base(run.checkpoint, run.execution)  # 4-bit, frozen
    tuned, report = training.tune(base, prompter, posts, run.settings, run.execution, budget.before)
    scores = evaluation.labels(tuned, prompter, posts, run.settings, run.execution)
    run.finish(posts, prompter.truncated, scores, report)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main))
