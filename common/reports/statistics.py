"""Two kinds of claim about scores, kept apart, and the smallest difference that a test set can show.

- `models_differ`: these two trained models differ, on rows like the tested ones. Paired by row; other seeds may say
  otherwise.
- `methods_differ`: these two methods differ, whichever seed and rows are drawn. It takes several seeds of each.

Scores are percentages of rows. `python -m common calibrate` measures how often each is wrong about runs that differ in
their seeds alone; the README of this package shows it.
"""

import dataclasses

from common.metrics import UNKNOWN

ALPHA = 0.05
POWER = 0.8
RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of two scores, second minus first. value, low, high: percentage points with a 95 % interval; p: of
    the two-sided test that there is none."""

    value: float
    low: float
    high: float
    p: float


def models_differ(first, second):
    """The Difference of two models by their scores of the same rows. first, second: arrays of shape (rows,).

    Right or wrong rows: McNemar's exact test. Other scores: a permutation test that swaps the two scores of a row. The
    interval is Student's, of the mean of the rows' differences."""
    import numpy
    from scipy import stats

    differences = numpy.asarray(second, dtype=float) - numpy.asarray(first, dtype=float)
    n, value = len(differences), float(differences.mean())
    if n < 2 or not differences.any():
        return Difference(value, value, value, 1.0)
    error = differences.std(ddof=1) / n**0.5
    reach = float(stats.t.ppf(1 - ALPHA / 2, n - 1) * error)
    if set(numpy.unique(numpy.abs(differences))) <= {0.0, 100.0}:
        gains, losses = int((differences > 0).sum()), int((differences < 0).sum())
        p = stats.binomtest(gains, gains + losses).pvalue
    else:
        rng = numpy.random.default_rng(0)
        # scipy's permutation_test says the same and takes ten times as long
        swapped = lambda size: differences * (2.0 * rng.integers(2, size=size, dtype=numpy.int8) - 1)  # noqa: E731
        options = {"n_resamples": RESAMPLES, "batch": max(1, 4_000_000 // n)}
        p = stats.monte_carlo_test(differences, swapped, numpy.mean, **options).pvalue
    return Difference(value, value - reach, value + reach, float(p))


def groups_differ(first, second):
    """The Difference of the means of two groups of rows that have nothing in common (Welch)."""
    from scipy import stats

    value = float(sum(second) / len(second) - sum(first) / len(first))
    if len({*first}) == len({*second}) == 1:  # no spread to compare with
        return Difference(value, value, value, float(value == 0))
    test = stats.ttest_ind(second, first, equal_var=False)
    interval = test.confidence_interval(1 - ALPHA)
    return Difference(value, float(interval.low), float(interval.high), float(test.pvalue))


def methods_differ(first, second, fixed=False):
    """The Difference of two methods by runs of several seeds on the same rows. first, second: arrays of shape (seeds,
    rows), two seeds or more; one row is enough for the first method if it is `fixed`, the same with every seed. Raises
    ValueError with fewer.

    Seeds and rows are both drawn, so their variances add: of the runs' means, pooled over both methods and divided by
    each number of seeds, and of the rows' mean differences, divided by the number of rows. Degrees of freedom are
    Satterthwaite's. It is the two-way model that readers and cases have in diagnostic studies (Obuchowski and Rockette
    1995); three seeds are too few to resample.
    """
    import numpy
    from scipy import stats

    first, second = numpy.asarray(first, dtype=float), numpy.asarray(second, dtype=float)
    n = first.shape[1]
    drawn = [second] if fixed else [first, second]
    if min(map(len, drawn)) < 2:
        raise ValueError("a claim about methods takes two seeds of each, or more")
    value, of_seeds_freedom = float(second.mean() - first.mean()), sum(len(runs) - 1 for runs in drawn)
    pooled = sum((len(runs) - 1) * runs.mean(axis=1).var(ddof=1) for runs in drawn) / of_seeds_freedom
    of_seeds = pooled * sum(1 / len(runs) for runs in drawn)
    of_rows = (second.mean(axis=0) - first.mean(axis=0)).var(ddof=1) / n if n > 1 else 0.0
    variance = of_seeds + of_rows
    if variance <= 0:
        return Difference(value, value, value, 1.0 if value == 0 else 0.0)
    freedom = variance**2 / (of_seeds**2 / of_seeds_freedom + of_rows**2 / max(1, n - 1))
    reach = float(stats.t.ppf(1 - ALPHA / 2, freedom) * variance**0.5)
    p = float(2 * stats.t.sf(abs(value) / variance**0.5, freedom))
    return Difference(value, value - reach, value + reach, p)


def over_seeds(metrics, most=100.0):
    """The metric of a method from those of runs with several seeds: their mean, with an interval for another seed and
    other rows. Variances add as in `methods_differ`; that of the rows is taken from the runs' own intervals. The
    interval ends at 0 and at `most`, as the metric does."""
    from scipy import stats

    if any(metric["value"] is None for metric in metrics):
        return UNKNOWN
    values, count, n = [metric["value"] for metric in metrics], len(metrics), metrics[0]["n"]
    value = sum(values) / count
    if any(metric["ci95"] is None for metric in metrics):
        return {"value": value, "ci95": None, "n": n}
    normal = stats.norm.ppf(1 - ALPHA / 2)
    of_rows = (sum(metric["ci95"][1] - metric["ci95"][0] for metric in metrics) / count / 2 / normal) ** 2
    of_seeds = sum((each - value) ** 2 for each in values) / (count - 1) / count
    freedom = (of_rows + of_seeds) ** 2 * (count - 1) / of_seeds**2 if of_seeds else float("inf")
    reach = float(stats.t.ppf(1 - ALPHA / 2, freedom)) * (of_rows + of_seeds) ** 0.5
    return {"value": value, "ci95": [max(0.0, value - reach), min(most, value + reach)], "n": n}


def holm(p_values):
    """The p-values adjusted for their number (Holm 1979), in the same order."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def word(difference, p=None):
    """ "better", "worse" or "no difference seen". p: the adjusted one, if several are compared."""
    if (difference.p if p is None else p) >= ALPHA:
        return "no difference seen"
    return "better" if difference.value > 0 else "worse"


def smallest(deviation, n):
    """The smallest difference, in points, that a paired test on n rows shows with a power of 80 %. deviation: the
    standard deviation of the rows' differences, in points."""
    from scipy import stats

    return float((stats.norm.ppf(1 - ALPHA / 2) + stats.norm.ppf(POWER)) * deviation / n**0.5)
