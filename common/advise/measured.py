"""What is measured for an advice: scores of methods at several numbers of training rows, all on the same test rows.

Words cost seconds: a logistic regression on TF-IDF, on draws of the training rows. Probes are trainings of the embedded
encoder, run by the sweep on nested shares with three seeds, so that what is finished is not run again.
"""

import subprocess
import sys
import time
from dataclasses import dataclass, field

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


@dataclass
class Method:
    """A way to classify. points: [Point] by n; seconds: of learning at the last point; memory: bytes at its peak, None
    if it was not measured; command: that makes the last point."""

    name: str
    points: list = field(default_factory=list)
    seconds: float = 0.0
    memory: int | None = None
    command: str = ""

    @property
    def score(self):
        return self.points[-1].mean


def words(rows, limit=None):
    """The Method of a regression on TF-IDF. rows: data.Data; limit: of training rows."""
    import numpy

    train = rows.train[:limit]
    truth = numpy.array([row["target"] for row in rows.test])
    method = Method("TF-IDF + logistic regression")
    sizes = sorted({round(share * len(train)) for share in SHARES if share * len(train) >= FEWEST} | {len(train)})
    bar = console.progress(len(sizes), method.name, "size")
    for size in sizes:
        runs = []
        for seed in range(RUNS if size < len(train) else 1):
            drawn = [train[i] for i in numpy.random.default_rng(seed).permutation(len(train))[:size]]
            began = time.monotonic()
            runs.append(100.0 * (predicted(drawn, rows) == truth))
            method.seconds = time.monotonic() - began
        method.points.append(Point(size, numpy.array(runs)))
        bar.update(1)
    bar.close()
    return method


def predicted(train, rows):
    """The predicted class of every test row."""
    targets = [row["target"] for row in train]
    if len(set(targets)) == 1:
        return targets[0]
    texts = ([row["text"] for row in part] for part in (train, rows.test))
    fitted, tested = probe.words(*texts, pairs=len(rows.labels) == 2)
    return probe.regression(Settings(), probe.TFIDF_STRENGTH).fit(fitted, targets).predict(tested)


def probes(flags, minutes):
    """The Method of fine-tuning the embedded encoder, from runs of its script with these flags; None if none ended.
    Starts those that are missing and should end within so many minutes (0: none)."""
    import numpy

    facts, _ = folders.home(checkpoints.stand_in("encoder"))
    home = files.Path(facts.__file__).parent
    script = home / f"{home.name}_classification.py"
    words = [*flags, "--no_before"]
    if minutes:
        axes = ["--train_sample_fraction", *PROBED, "--seed", *SEEDS]
        command = [
            sys.executable,
            "-m",
            "common",
            "sweep",
            str(script),
            *words,
            *axes,
            "--max_hours",
            str(minutes / 60),
        ]
        subprocess.run(command, cwd=files.ROOT, check=False, stdout=subprocess.DEVNULL)
    experiment, method = folders.experiment(script), Method("fine-tuned encoder")
    for share in PROBED:
        found = [recorded(experiment, [*words, "--train_sample_fraction", share, "--seed", seed]) for seed in SEEDS]
        found = [record for record in found if record]
        if found:
            scores = [row_scores(record["row_scores"]["tuned"]["accuracy"]) for record in found]
            method.points.append(Point(found[0]["data"]["n"]["train"], numpy.array(scores)))
            method.seconds = found[-1]["training"]["seconds"]
            method.memory = found[-1]["training"]["peak_memory_bytes"]
            method.command = found[-1]["command"]
    return method if method.points else None


def recorded(experiment, words):
    """The finished record of a command line; None without one."""
    run = experiment.resolve(words)
    return records.checked(run.record_path) if run.finished() else None
