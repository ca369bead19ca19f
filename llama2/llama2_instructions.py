"""Fine-tune Llama 2 with QLoRA on Alpaca: an instruction, sometimes with an input, to a response.

The model behind the decoding study (a 24 GB GPU); a tenth of the rows is held out and scored, greedily:
    python llama2/llama2_instructions.py --lora_r 64
On any machine, with the embedded 135M model:
    python llama2/llama2_instructions.py --demo

BLEU, ROUGE and BERTScore of the response alone, for base and tuned model, beside the scores of an echo of the prompt.
The record goes to llama2/results/, adapter and answers to llama2/experiments/.
"""

import sys

import model
import prompts

from common import data, evaluation, experiment, flags, records, training


def arguments():
    return flags.instructions(flags.training(__doc__)).parse_args()


def main(run):
    rows = data.alpaca(run)  # the same rows, in the same order, for every model
    network = training.tune(run, run.model(), rows)  # 4-bit base, new adapter; learns the responses alone
    scores = evaluation.instructions(run, network, rows)  # one pass of generation, all metrics
    records.finish(run, rows, scores)


if __name__ == "__main__":
    sys.exit(experiment.start(main, arguments(), model, prompts, "training"))
