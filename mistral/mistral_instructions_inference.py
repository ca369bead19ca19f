"""Use a Mistral-7B adapter that mistral_instructions.py trained: answer the held-out instructions, or one.

Make a row of the decoding tables (`bash mistral/decoding_sweep.sh` makes all twelve):
    python mistral/mistral_instructions_inference.py --temperature 0.25
    python mistral/mistral_instructions_inference.py --num_beams 4
    python mistral/mistral_instructions_inference.py --text "Name three uses of a paper clip."
    python mistral/mistral_instructions_inference.py --input new.csv --output answers.csv

Without --experiment_dir it uses the newest trained run of this folder. It keeps the settings of that training; flags
change only the scoring and the decoding.
"""

import sys

import model
import prompts

from common import data, encoding, evaluation, qlora
from common.runs import experiment

EXPERIMENT = experiment.Experiment(__file__, __doc__, "instructions", "inference", None, model, prompts)


def main(run):
    rows = data.alpaca(**run.rows)
    prompter = encoding.prompter(run.tokenizer, run.template, run.format, run.settings, rows.labels)
    tuned = qlora.trained(run.checkpoint, run.execution, run.trained)
    scores = evaluation.instructions(tuned, prompter, rows, run.settings, run.execution)
    run.finish(rows, prompter.truncated, scores)


def answers(run):
    """What the model says to --text, or to each row of --input."""
    prompter = encoding.prompter(run.tokenizer, run.template, run.format, run.settings, run.labels)
    tuned = qlora.trained(run.checkpoint, run.execution, run.trained)
    return evaluation.answers(tuned, prompter, run.questions, run.settings, run.execution)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main, answers))
