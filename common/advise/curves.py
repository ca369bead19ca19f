"""Learning curves: what a score will be with more training rows, from scores at fewer.

Four forms are fitted to the error (100 - score, in points) by the number n of training rows. None of them is true; they
are weighted by how well each has predicted other tasks (assets/advice.json, by `python -m common advise check`).
"""

import dataclasses

# name -> (error of the parameters at n, bounds of the parameters, where the fit begins). n is in units of the largest n
# that was seen, so that parameters of all tasks have one scale. E: what is left with endless rows.
DRAWS = 30
LEVEL = 0.9
LIMITS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
PRIOR = 1.0  # points by which the pull of a parameter to its start weighs as much as a wrong score


def power(n, rest, gain, slope):
    """rest + gain * n ** -slope: a power law with an offset (Hestness et al. 2017, arXiv 1712.00409)."""
    return rest + gain * n**-slope


def rectified(n, rest, gain, slope, known):
    """The rectified law of Lin et al. 2024 (arXiv 2402.02314): known is what pre-training is worth, in rows."""
    return rest + gain * (1 + known) / (known + n**slope)


def saturating(n, rest, gain, slope):
    """rest + gain * exp(-n ** slope), scaled to `gain` at n = 1: faster than any power law at the end (Weibull)."""
    import numpy

    return rest + gain * numpy.exp(1 - n**slope)


def logarithmic(n, rest, gain):
    """A straight line over the logarithm of n: no end in sight."""
    import numpy

    return rest + gain * (1 - numpy.log(n) / numpy.log(16))


# form -> (function, lower bounds, upper bounds, start as shares of the last error or as numbers)
FORMS = {
    "power": (power, (0, 0, 0.02), (100, 200, 2), (0.5, 0.5, 0.5)),
    "rectified": (rectified, (0, 0, 0.1, 0), (100, 200, 2, 10), (0.4, 0.6, 0.8, 0.3)),
    "saturating": (saturating, (0, 0, 0.02), (100, 200, 2), (0.7, 0.3, 0.4)),
    "logarithmic": (logarithmic, (-50, 0), (100, 200), (0.6, 0.4)),
}


@dataclasses.dataclass(frozen=True)
class Point:
    """Scores at n training rows. scores: array of shape (runs, test rows), 0 to 100; all points have the same rows."""

    n: int
    scores: object

    @property
    def mean(self):
        return float(self.scores.mean())


@dataclasses.dataclass(frozen=True)
class Forecast:
    """A score that was not measured: value with the interval low to high, in points; by_form: {form: value}."""

    n: int
    value: float
    low: float
    high: float
    by_form: dict


def fitted(form, sizes, errors, deviations):
    """The function error(n) of a form fitted to errors at sizes. deviations: of the errors, in points; the last sizes
    weigh more, because they are nearer to what is asked."""
    import numpy
    from scipy.optimize import least_squares

    function, low, high, start = FORMS[form]
    scale, last = float(sizes[-1]), max(float(errors[-1]), 0.5)
    n, errors = numpy.asarray(sizes) / scale, numpy.asarray(errors, dtype=float)
    weights = (n**0.25) / numpy.maximum(deviations, 0.3)
    begin = numpy.array([value * last if i < 2 else value for i, value in enumerate(start)])
    begin = numpy.clip(begin, numpy.add(low, 1e-6), numpy.subtract(high, 1e-6))
    pull = numpy.array([last * 2 if i < 2 else 1.0 for i in range(len(begin))])

    def residuals(parameters):
        return numpy.append((function(n, *parameters) - errors) * weights, (parameters - begin) / pull / PRIOR)

    found = least_squares(residuals, begin, bounds=(low, high)).x
    return lambda size: float(function(size / scale, *found))


def drawn(points, n):
    """({form: score at n}, {form: array of DRAWS such scores}): of the points as they are, and of draws of the test
    rows and of the runs. points: [Point] by n."""
    import numpy

    draw, sizes = numpy.random.default_rng(0), [point.n for point in points]
    deviations, rows = [spread(point) for point in points], points[0].scores.shape[1]
    found = {form: [] for form in FORMS}
    for _ in range(DRAWS):
        chosen = draw.integers(rows, size=rows)
        means = [resampled(point, chosen, draw, deviations) for point in points]
        for form in FORMS:
            found[form].append(score(form, sizes, means, deviations, n))
    means = [point.mean for point in points]
    return {form: score(form, sizes, means, deviations, n) for form in FORMS}, found


def forecast(points, n, kept):
    """The Forecast at n training rows, with a LEVEL interval. kept: {"weights": {form: share}, "reach": points} of
    assets/advice.json: how the forms count, and by how much the interval is widened at each end."""
    return combined(n, *drawn(points, n), kept)


def combined(n, by_form, draws, kept):
    """The Forecast from what `drawn` returns."""
    import numpy

    total = sum(kept["weights"].values())
    values = numpy.concatenate([draws[form] for form in by_form])
    weights = numpy.concatenate([numpy.full(len(draws[form]), kept["weights"][form] / total) for form in by_form])
    order = values.argsort()
    reached = weights[order].cumsum() / weights.sum()
    low, high = (float(values[order][min(reached.searchsorted(q), len(values) - 1)]) for q in LIMITS)
    value = sum(share * by_form[form] for form, share in kept["weights"].items()) / total
    low, high = min(value, low) - kept["reach"], max(value, high) + kept["reach"]
    return Forecast(n, value, max(0.0, low), min(100.0, high), by_form)


def score(form, sizes, means, deviations, n):
    """The score at n by one form, between 0 and 100."""
    return min(100.0, max(0.0, 100 - fitted(form, sizes, [100 - mean for mean in means], deviations)(n)))


def spread(point):
    """The standard deviation of the point's mean over its runs, in points; 1 if there is one run."""
    runs = point.scores.mean(axis=1)
    return float(runs.std(ddof=1) / len(runs) ** 0.5) if len(runs) > 1 else 1.0


def resampled(point, rows, draw, deviations):
    """The mean score of drawn runs on the drawn rows."""
    runs = draw.integers(len(point.scores), size=len(point.scores))
    mean = float(point.scores[runs][:, rows].mean())
    return mean + (draw.normal(0, max(deviations)) if len(point.scores) == 1 else 0)
