"""Fine-tune Phi-2 with QLoRA on 20 Newsgroups: a post to one of 20 classes.

A row of Table 1 (a GPU with 10 GB); all six with `bash phi2/sample_ablate.sh`:
    python phi2/phi2_classification.py --train_sample_fraction 0.025
On any machine, with the embedded 135M model:
    python phi2/phi2_classification.py --demo

Scores base and tuned model on the test split: every label by its full log-likelihood, and beside it what
the model writes by itself. The record goes to phi2/results/, adapter and predictions to
phi2/experiments/.
"""

import sys

import model
import prompts

from common import data, evaluation, experiment, flags, records, training


def arguments():
    return flags.classification(flags.training(__doc__)).parse_args()


def main(run):
    posts = data.newsgroups(run)  # the same rows, in the same order, for every model
    network = training.tune(run, run.model(), posts)  # 4-bit base, new adapter; learns the class, not the post
    scores = evaluation.labels(run, network, posts)  # every label scored, for every row of a table alike
    records.finish(run, posts, scores)


if __name__ == "__main__":
    sys.exit(experiment.start(main, arguments(), model, prompts, "training"))
