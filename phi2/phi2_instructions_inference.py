"""Use a Phi-2 adapter that phi2_instructions.py trained: answer the held-out instructions, or one.

A row of the decoding tables; all twelve with `bash phi2/decoding_sweep.sh`:
    python phi2/phi2_instructions_inference.py --temperature 0.25
    python phi2/phi2_instructions_inference.py --num_beams 4
    python phi2/phi2_instructions_inference.py --text "Name three uses of a paper clip."

Without --experiment_dir the newest trained run of this folder is used.
"""

import sys

import model
import prompts

from common import data, evaluation, experiment, flags, records


def arguments():
    return flags.instructions(flags.inference(__doc__)).parse_args()


def main(run):
    rows = data.alpaca(run)
    scores = evaluation.instructions(run, run.model(), rows)
    records.finish(run, rows, scores)


if __name__ == "__main__":
    sys.exit(experiment.start(main, arguments(), model, prompts, "inference"))
