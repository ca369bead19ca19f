"""Score DistilBERT without fine-tuning, both tasks: frozen features under a logistic regression, and a dummy.

All four with `bash distilbert/baseline_inference.sh`:
    python distilbert/distilbert_baseline_inference.py --task_type summarization --baseline frozen-features
With the embedded 23M encoder:
    python distilbert/distilbert_baseline_inference.py --task_type classification --demo

The dummy knows nothing of the text: the most frequent class, the first three utterances.
"""

import sys

import model
import prompts

from common import data, encoders, experiment, flags, records


def arguments():
    return flags.untrained(__doc__).parse_args()


def main(run):
    rows = data.of_task(run)
    scores = encoders.baseline(run, rows)
    records.finish(run, rows, scores)


if __name__ == "__main__":
    sys.exit(experiment.start(main, arguments(), model, prompts, "baseline"))
