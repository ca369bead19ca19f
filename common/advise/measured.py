"""What is measured for an advice: scores of methods at several numbers of training rows, all on the same test rows.

A logistic regression on TF-IDF costs seconds, one on the embedded encoder's frozen features a reading of all rows; both
learn from draws of the training rows. Probes are trainings of that encoder, run by the sweep on nested shares with
three seeds, so that what is finished is not run again.
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
FROZEN = "frozen MiniLM features + logistic regression"
TOKENS = 128  # that the encoder reads of a text
SAMPLE = 64  # texts that tell how long all will take
QUICK = 30  # seconds of reading that need no --max_minutes
RUNS = 3  # draws of training rows for each size but all
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

    def predict(drawn):
        return probe.of_words(replace(rows, train=[rows.train[i] for i in drawn]), Settings().seed)

    return by_size(rows, "TF-IDF + logistic regression", predict)


def features(rows, seconds):
    """The Method of a regression on the embedded encoder's frozen features; None if its reading of all rows would take
    longer than so many seconds."""
    import numpy

    texts, targets = ([row[name] for row in (*rows.train, *rows.test)] for name in ("text", "target"))
    some = texts[:: -(-len(texts) // SAMPLE)]
    probe.embedded(some[:1], TOKENS)  # the first reading is slower
    began = time.monotonic()
    probe.embedded(some, TOKENS)
    expected = (time.monotonic() - began) / len(some) * len(texts)
    if expected > seconds:
        took = console.duration(expected)
        console.say(f"{FROZEN}: left out, its reading would take {took}; a higher --max_minutes measures it")
        return None
    began = time.monotonic()
    vectors = probe.embedded(texts, TOKENS)
    taken, test = time.monotonic() - began, vectors[len(rows.train) :]

    def predict(drawn):
        seen = [targets[i] for i in drawn]
        if len(set(seen)) == 1:
            return seen[:1] * len(test)
        return probe.regression(Settings()).fit(vectors[drawn], numpy.array(seen)).predict(test)

    method = by_size(rows, FROZEN, predict)
    method.seconds += taken
    return method


def by_size(rows, name, predict):
    """The Method of this name by draws of the training rows of SHARES sizes. predict: function of the indices of drawn
    training rows -> the classes of all test rows."""
    import numpy

    n, truth = len(rows.train), numpy.array([row["target"] for row in rows.test])
    method = Method(name)
    sizes = sorted({round(share * n) for share in SHARES if share * n >= FEWEST} | {n})
    bar = console.progress(len(sizes), name, "size")
    for size in sizes:
        runs = []
        for indices in draws(n, size):
            began = time.monotonic()
            predicted = predict(indices)
            runs.append(100.0 * (numpy.array(predicted) == truth))
            method.seconds = time.monotonic() - began
        method.points.append(Point(size, numpy.array(runs)))
        bar.update(1)
    bar.close()
    return method


def draws(n, size):
    """[array of `size` indices below n], of RUNS draws; one where all n are taken."""
    import numpy

    return [numpy.random.default_rng(seed).permutation(n)[:size] for seed in range(RUNS if size < n else 1)]


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
