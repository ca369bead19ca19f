"""How far raters agree: 1 always, 0 as often as by chance, below 0 less often. Pure numbers, no files."""

import collections
import itertools


def nominal(a, b, count):
    return float(a != b)


def ordinal(a, b, count):
    """Squared number of ratings that lie between two values, half of those at either value included."""
    low, high = min(a, b), max(a, b)
    between = sum(count[value] for value in count if low <= value <= high)
    return (between - (count[a] + count[b]) / 2) ** 2


def interval(a, b, count):
    return (a - b) ** 2


def alpha(units, distance=ordinal):
    """Krippendorff's alpha, as in his "Computing Krippendorff's Alpha-Reliability" (2011).

    units: for each rated thing the list of the values it was given, by however many raters. distance: one of the
    functions above. None where alpha is not defined: nothing was rated twice, or all values are the same.
    """
    pairable = [values for values in units if len(values) > 1]
    count = collections.Counter(itertools.chain.from_iterable(pairable))
    if len(count) < 2:
        return None
    together = collections.Counter()  # the coincidence matrix: every unit weighs as much as it has values
    for values in pairable:
        for pair in itertools.permutations(values, 2):
            together[pair] += 1 / (len(values) - 1)
    observed = sum(weight * distance(a, b, count) for (a, b), weight in together.items())
    chance = sum(count[a] * count[b] * distance(a, b, count) for a, b in itertools.product(count, repeat=2))
    return 1 - observed * (count.total() - 1) / chance


def kappa(first, second, scale):
    """Cohen's kappa of two raters, quadratically weighted: their values for the same things in the same order.

    scale: every value there could be; without it one that nobody gave would bring its neighbours closer.
    None where it is not defined: no values, or all the same.
    """
    if len({*first, *second}) < 2:
        return None
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(first, second, labels=list(scale), weights="quadratic"))
