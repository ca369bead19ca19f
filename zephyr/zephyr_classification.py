"""Fine-tune Zephyr-7B with QLoRA on 20 Newsgroups: a post to one of 20 classes.

The first column of Table 1 (a 24 GB GPU); the other three add --neftune 5, --full_tune, or both:
    python zephyr/zephyr_classification.py --train_sample_fraction 0.025
    python zephyr/zephyr_classification.py --train_sample_fraction 0.025 --neftune 5 --full_tune
All six fractions with `bash zephyr/sample_ablate.sh` and `bash zephyr/sample_ablate_neftune.sh`, each also with
--full_tune.
On any machine, with the embedded 135M model:
    python zephyr/zephyr_classification.py --demo

Scores base and tuned model on the test split: every label by its full log-likelihood, and beside it what
the model writes by itself. The record goes to zephyr/results/, adapter and predictions to
zephyr/experiments/.
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
