"""Probabilities of classes from their scores: one temperature, fitted on validation rows (Guo et al. 2017, arXiv
1706.04599), and the expected calibration error, which says how far the probabilities can be taken at their word."""

import math

from common import files, metrics
from common.console import InputError

BINS = 15  # of the expected calibration error, as in Guo et al.
FEWEST = 20  # validation rows: below, the temperature stays 1
FILE = "calibration.json"


def probabilities(scores, temperature=1.0):
    """Array (rows, classes) of the softmax of scores / temperature. scores: log-likelihoods or logits."""
    import numpy
    from scipy.special import softmax

    return softmax(numpy.asarray(scores, dtype=float) / temperature, axis=1)


def temperature(scores, truth):
    """The temperature with the least mean negative log-likelihood of the true classes. scores: (rows, classes); truth:
    the number of each row's class. 1.0 for fewer than FEWEST rows.

    Each class counts as seen once more (Platt 1999): rows that are all right would ask for probabilities of 1."""
    import numpy
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    if len(scores) < FEWEST:
        return 1.0
    scores = numpy.asarray(scores, dtype=float)
    n, classes = scores.shape
    targets = numpy.full((n, classes), 1 / (n + classes))
    targets[numpy.arange(n), truth] = (n + 1) / (n + classes)

    def loss(log_temperature):
        return -(targets * log_softmax(scores / math.exp(log_temperature), axis=1)).sum(axis=1).mean()

    return math.exp(minimize_scalar(loss, bounds=(math.log(0.05), math.log(100)), method="bounded").x)


def error(shares, truth):
    """The expected calibration error as a metric in percent: the mean distance between the probability of the likeliest
    class and how often it is right, over BINS bins of equal width. shares: (rows, classes)."""
    import numpy

    confidence = shares.max(axis=1)
    right = shares.argmax(axis=1) == numpy.asarray(truth)
    bins = numpy.minimum((confidence * BINS).astype(int), BINS - 1)

    def statistic(rows):
        gaps = numpy.bincount(bins[rows], confidence[rows] - right[rows], BINS)
        return numpy.abs(gaps).sum() / len(rows)

    return metrics.bootstrap(statistic, numpy.arange(len(confidence)))


def calibrated(data, execution, scores, score):
    """{"ece", "ece_raw"}: the error of the tuned model's probabilities on the test rows, with and without the
    temperature that the validation rows give, which is written to the run's folder. Empty but for own data.

    scores: of the test rows; score(rows) returns those of other rows."""
    if data.kind != "own" or not data.validation:
        return {}
    truth = {name: metrics.numbers([row["target"] for row in rows], data.labels)
             for name, rows in (("validation", data.validation), ("test", data.test))}  # fmt: skip
    found = temperature(score(data.validation), truth["validation"])
    files.write_json(execution.folder / FILE, {"temperature": found, "rows": len(data.validation)})
    return {
        "ece": error(probabilities(scores, found), truth["test"]),
        "ece_raw": error(probabilities(scores), truth["test"]),
    }


def stored(folder):
    """The temperature of a trained run; 1.0 if none was fitted. Raises InputError."""
    path = folder / FILE
    if not path.is_file():
        return 1.0
    kept = files.read_json(path)
    value = kept.get("temperature") if isinstance(kept, dict) else None
    if not isinstance(value, float | int) or not 0 < value < math.inf:
        raise InputError(f"{files.display(path)} holds no temperature: remove it, and probabilities are not calibrated")
    return float(value)
