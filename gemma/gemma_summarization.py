"""Fine-tune Gemma with QLoRA on SAMSum: messenger dialogues to one-sentence summaries.

The rows "fine-tuning + QLoRA" of Table 2 (a GPU with 10 GB), 2B, 7B and the chat variant:
    python gemma/gemma_summarization.py --lora_r 64
    python gemma/gemma_summarization.py --lora_r 64 --pretrained_ckpt google/gemma-7b
    python gemma/gemma_summarization.py --lora_r 64 --pretrained_ckpt google/gemma-2b-it
On any machine, with the embedded 135M model:
    python gemma/gemma_summarization.py --demo

Scores the base and the tuned model with ROUGE on the test split. The record goes to gemma/results/,
adapter and predictions to gemma/experiments/.
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
