"""Score Mistral-7B as it is, without fine-tuning: zero-, one- and few-shot prompts, both tasks.

Make the zero- and few-shot rows of Table 2 (`bash mistral/baseline_inference.sh` makes all six):
    python mistral/mistral_baseline_inference.py --task_type summarization --prompt_type few-shot
Run it with the embedded 135M model and the sample, on any machine:
    python mistral/mistral_baseline_inference.py --task_type summarization --prompt_type few-shot --demo

Examples come from the training rows and are shortened until the longest prompt fits. Answers are greedy (study: sampled
at temperature 0.001 and top-p 0.95, which is nearly greedy).
"""

import sys

import model
import prompts

from common import data, encoding, evaluation, qlora
from common.runs import experiment
from common.settings import Settings

SETTINGS = {
    "classification": Settings(
        max_document_tokens=512,
        max_new_tokens=20,
        prompt_type="zero-shot",
        prompt_tokens=1900,  # prompt and answer fit the smallest context here, 2,048 tokens
        quantization="nf4, double",
    ),
    "summarization": Settings(
        max_document_tokens=1024,
        max_new_tokens=100,  # study: 50, and 100 for tuned models
        prompt_type="zero-shot",
        prompt_tokens=1900,
        quantization="nf4, double",
    ),
}
SHOTS = {
    "classification": {"zero-shot": 0, "one-shot": 1, "few-shot": 20},  # few-shot: each class once
    "summarization": {"zero-shot": 0, "one-shot": 1, "few-shot": 3},
}
EXPERIMENT = experiment.Experiment(
    __file__, __doc__, "classification", "baseline", SETTINGS, model, prompts, shots=SHOTS
)


def main(run):
    rows = data.of_task(run.task, **run.rows)  # the same rows, in the same order, for every model
    prompter = encoding.prompter(run.tokenizer, run.template, run.format, run.settings, rows.labels, rows.train)
    base = qlora.base(run.checkpoint, run.execution)
    scores = evaluation.of_task(run.task, base, prompter, rows, run.settings, run.execution)
    run.finish(rows, prompter.truncated, scores)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main))
