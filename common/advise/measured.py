"""What is measured for an advice: scores of methods at several numbers of training rows, all on the same test rows.

Words cost seconds: a logistic regression on TF-IDF, on draws of the training rows. Probes are trainings of the embedded
encoder, run by the sweep on nested shares with three seeds, so that what is finished is not run again.
"""

import subprocess
import sys
import time
from dataclasses import dataclass, field, replace

from common import checkpoints, console, files
from common.advise.curves import Point
from common.encoders import probe
from common.evaluation.kept import row_scores
from common.runs import folders, records
from common.settings import Settings

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
FEWEST = 20  # training rows of a point
RUNS = 3
PROBED = ("0.25", "0.5", "1.0")
SEEDS = ("42", "43", "44")
PLANNED = 0.85  # of the minutes: trainings can take longer than expected


@dataclass
class Method:
    """A way to classify. points: [Point] by n; seconds: of learning at the last point; memory: bytes at its peak, None
    if it was not measured."""

    name: str
    points: list = field(default_factory=list)
    seconds: float = 0.0
    memory: int | None = None

    @property
    def score(self):
        return self.points[-1].mean


def words(rows):
    """The Method of a regression on TF-IDF. rows: data.Data."""
    import numpy

    n, truth = len(rows.train), numpy.array([row["target"] for row in rows.test])
    method = Method("TF-IDF + logistic regression")
    sizes = sorted({round(share * n) for share in SHARES if share * n >= FEWEST} | {n})
    bar = console.progress(len(sizes), method.name, "size")
    for size in sizes:
        runs = []
        for seed in range(RUNS if size < n else 1):
            drawn = [rows.train[i] for i in numpy.random.default_rng(seed).permutation(n)[:size]]
            began = time.monotonic()
            predicted = probe.of_words(replace(rows, train=drawn), Settings().seed)
            runs.append(100.0 * (numpy.array(predicted) == truth))
            method.seconds = time.monotonic() - began
        method.points.append(Point(size, numpy.array(runs)))
        bar.update(1)
    bar.close()
    return method


def probes(flags, minutes):
    """The Method of fine-tuning the embedded encoder, from runs of its script with these flags; None if none ended.
    Starts those that are missing and should end within so many minutes (0: none)."""
    import numpy

    experiment = folders.script(folders.home_path(checkpoints.stand_in("encoder")), "training", "classification")
    words = [*flags, "--no_before"]
    if minutes:
        axes = ["--train_sample_fraction", *PROBED, "--seed", *SEEDS]
        limit = ["--max_hours", str(PLANNED * minutes / 60)]
        command = [sys.executable, "-m", "common", "sweep", experiment.file, *words, *axes, *limit]
        subprocess.run(command, cwd=files.ROOT, check=False, stdout=subprocess.DEVNULL)
    method = Method("fine-tuned encoder")
    for share in PROBED:
        found = [recorded(experiment, [*words, "--train_sample_fraction", share, "--seed", seed]) for seed in SEEDS]
        found = [record for record in found if record]
        if found:
            scores = [row_scores(record["row_scores"]["tuned"]["accuracy"]) for record in found]
            method.points.append(Point(found[0]["data"]["n"]["train"], numpy.array(scores)))
            method.seconds = found[-1]["training"]["seconds"]
            method.memory = found[-1]["training"]["peak_memory_bytes"]
    return method if method.points else None


def recorded(experiment, words):
    """The finished record of a command line; None without one."""
    with console.silenced():  # the rows were described before
        run = experiment.resolve(words)
    return records.checked(run.record_path) if run.finished() else None
