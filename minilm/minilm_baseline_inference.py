"""Score MiniLM untuned, both tasks: a logistic regression on frozen features or TF-IDF, SetFit, a dummy.

Make one of six rows (`bash minilm/baseline_inference.sh` makes all):
    python minilm/minilm_baseline_inference.py --task_type summarization --baseline frozen-features
For few labels, an encoder tuned on pairs of posts (`pip install -e '.[setfit]'`):
    python minilm/minilm_baseline_inference.py --baseline setfit --train_sample_fraction 0.025
Run it on the sample:
    python minilm/minilm_baseline_inference.py --task_type classification --demo

The dummy does not read the text: it picks the most frequent class, or the first three utterances.
"""

import sys

import model
import prompts

from common import data, encoders
from common.runs import experiment
from common.settings import Settings

SETTINGS = {
    "classification": Settings(
        max_document_tokens=256,
        cut="end",
        pooling="mean",  # position of the features
        baseline="frozen-features",
    ),
    "summarization": Settings(
        max_document_tokens=512,
        picks=3,  # utterances in a summary: a SAMSum summary has 23 words, an utterance 9
        pooling="mean",  # position of the features
        baseline="frozen-features",
    ),
}
EXPERIMENT = experiment.Experiment(__file__, __doc__, None, "untrained", SETTINGS, model, prompts)


def main(run):
    rows = data.of_task(run.task, **run.rows)  # the same rows, in the same order, for every model
    reader = encoders.reader(run.tokenizer, run.template, run.settings)
    scores = encoders.baseline(run.checkpoint, reader, rows, run.settings, run.execution)
    run.finish(rows, reader.truncated, scores)


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main))
