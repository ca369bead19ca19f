"""Fine-tune Zephyr-7B with QLoRA on SAMSum: messenger dialogues to one-sentence summaries.

The row "fine-tuning + QLoRA" of Table 2 (a 24 GB GPU) and those with NEFTune, with all modules, with both:
    python zephyr/zephyr_summarization.py --lora_r 64
    python zephyr/zephyr_summarization.py --lora_r 64 --neftune 5
    python zephyr/zephyr_summarization.py --lora_r 64 --full_tune
    python zephyr/zephyr_summarization.py --lora_r 64 --neftune 5 --full_tune
On any machine, with the embedded 135M model:
    python zephyr/zephyr_summarization.py --demo

Scores the base and the tuned model with ROUGE on the test split. The record goes to zephyr/results/,
adapter and predictions to zephyr/experiments/.
"""

import sys

import model
import prompts

from common import data, evaluation, experiment, flags, records, training


def arguments():
    return flags.summarization(flags.training(__doc__)).parse_args()


def main(run):
    dialogues = data.samsum(run)  # the same rows, in the same order, for every model
    network = training.tune(run, run.model(), dialogues)  # 4-bit base, new adapter; learns the summaries alone
    scores = evaluation.summaries(run, network, dialogues)  # one decoding, one scorer for every row of a table
    records.finish(run, dialogues, scores)


if __name__ == "__main__":
    sys.exit(experiment.start(main, arguments(), model, prompts, "training"))
