"""Use a Phi-2 adapter that phi2_summarization.py trained: score the test dialogues, or summarize one.

    python phi2/phi2_summarization_inference.py --experiment_dir phi2/experiments/RUN
    python phi2/phi2_summarization_inference.py --text "Ann: keys? Bob: on the shelf, help yourself"
    python phi2/phi2_summarization_inference.py --input new.csv --output answers.csv

Without --experiment_dir it uses the newest trained run of this folder. It keeps the settings of that training; flags
change only the scoring and the decoding.
"""

import sys

import model
import prompts

from common import data, encoding, evaluation, qlora
from common.runs import experiment

EXPERIMENT = experiment.Experiment(__file__, __doc__, "summarization", "inference", None, model, prompts)


def main(run):
    dialogues = data.samsum(**run.rows)
    prompter = encoding.prompter(run.tokenizer, run.template, run.format, run.settings, dialogues.labels)
    tuned = qlora.trained(run.checkpoint, run.execution, run.trained)
    scores = evaluation.summaries(tuned, prompter, dialogues, run.settings, run.execution)
    run.finish(dialogues, prompter.truncated, scores)


def answers(run):
    """What the model says to --text, or to each row of --input."""
    prompter = encoding.prompter(run.tokenizer, run.template, run.format, run.settings, run.labels)
    tuned = qlora.trained(run.checkpoint, run.execution, run.trained)
    return evaluation.answers(tuned, prompter, run.questions, run.settings, run.execution)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main, answers))
