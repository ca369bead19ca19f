"""The advice itself: from measured methods to sentences, and to the same as data."""

from common import console, files, metrics
from common.advise import FEWEST_POINTS, TOO_WIDE, curves
from common.advise.check import ERRORS
from common.reports import statistics

TRIVIAL = "most frequent class"


def point(rows, predicted):
    """The curves.Point of predictions of the test rows by all training rows."""
    import numpy

    right = [100.0 * (guess == row["target"]) for guess, row in zip(predicted, rows.test, strict=True)]
    return curves.Point(len(rows.train), numpy.array([right]))


def told(methods):
    """A line for each method: its scores by number of rows, the last one with its interval."""
    lines = []
    for method in methods:
        path = ", ".join(f"{each.mean:.1f} at {each.n:,}" for each in method.points[:-1])
        last = method.points[-1]
        score = f"{metrics.figure(accuracy(last))} at {last.n:,} rows" + (f" ({path})" if path else "")
        lines.append(f"{method.name}: {score}, {console.duration(method.seconds)}")
    return "\n".join(lines)


def accuracy(last):
    """The accuracy of a point's first run as a metric."""
    return metrics.share([int(right) for right in last.scores[0] / 100])


def of(methods, args, next_command):
    """{"text": sentences, "use", "ties", "forecasts"} of methods within the limits of args. next_command: what measures
    more."""
    allowed = [method for method in methods if within(method, args)]
    if not allowed:
        return {"text": [f"Nothing that was measured is within the limits; measure next: {next_command}"], "use": None}
    best = max(allowed, key=lambda method: method.score)
    ties = [method for method in allowed if method is not best and not differ(method, best)]
    trivial = [method for method in ties if method.name == TRIVIAL]
    use = min([best, *(method for method in ties if method not in trivial)], key=lambda method: method.seconds)
    text = [f"Use now: {use.name}, {metrics.figure(accuracy(use.points[-1]))} % of the test rows, {costs(use, args)}."]
    if trivial:
        text.append("These test rows cannot tell it from the most frequent class: label more before you train more.")
    others = [method.name for method in [best, *ties] if method is not use and method not in trivial]
    if others:
        text.append(f"It cannot be told apart from {', '.join(others)}, and is the quickest of them.")
    few = [sentence for method in allowed if (sentence := on_fewer_rows(method, use))]
    text += few
    kept, forecasts = files.read_json(ERRORS), []
    for method in allowed:
        if len(method.points) >= FEWEST_POINTS:
            forecasts += [forecast(method, n, kept) for n in asked(method.points[-1].n, args.max_labels)]
    text += sentences(forecasts, best)
    if few or len(best.points) < FEWEST_POINTS or any(each["high"] - each["low"] > TOO_WIDE for each in forecasts):
        text.append(f"To know more, measure next: {next_command}")
    return {"text": text, "use": use.name, "ties": others, "forecasts": forecasts,
            "methods": [{"name": method.name, "seconds": method.seconds, "memory_bytes": method.memory,
                         "points": [{"n": each.n, "score": round(each.mean, 2), "runs": len(each.scores)}
                                    for each in method.points]} for method in methods]}  # fmt: skip


def costs(method, args):
    """What learning takes, and costs where the machine's price is known."""
    spent = f"learned in {console.duration(method.seconds)}"
    if not args.price_per_hour:
        return spent
    return f"{spent} for {args.price_per_hour * method.seconds / 3600:.4f} USD, about in proportion to the rows"


def on_fewer_rows(method, use):
    """The sentence on a method that was measured with fewer rows than the one to use; None if it was not."""
    n, most = method.points[-1].n, use.points[-1].n
    if n >= most:
        return None
    near = min(use.points, key=lambda each: abs(each.n - n))
    return (
        f"{method.name} was measured with {n:,} of the {most:,} rows: {method.score:.1f}; with {near.n:,} rows "
        f"{use.name} has {near.mean:.1f}."
    )


def within(method, args):
    cost = args.price_per_hour and args.price_per_hour * method.seconds / 3600
    too_large = args.max_memory and method.memory and method.memory > args.max_memory
    return not too_large and not (args.max_cost and cost > args.max_cost)


def differ(first, second):
    """Whether the tests tell two methods apart: by seeds and rows if both have several runs, else these two models."""
    one, two = first.points[-1].scores, second.points[-1].scores
    if len(one) > 1 and len(two) > 1:
        return statistics.methods_differ(one, two).p < statistics.ALPHA
    return statistics.models_differ(one[0], two[0]).p < statistics.ALPHA


def asked(n, most):
    """Numbers of labels to forecast."""
    return sorted({2 * n, 4 * n} | ({most} if most and most > n else set()))


def forecast(method, n, kept):
    found = curves.forecast(method.points, n, kept)
    values = {name: round(getattr(found, name), 1) for name in ("value", "low", "high")}
    return {"method": method.name, "now": round(method.score, 1), "n": n} | values


def sentences(forecasts, best):
    """A sentence for each forecast. An interval that is too wide is no forecast."""
    lines = []
    for each in forecasts:
        interval = f"[{each['low']:.1f}, {each['high']:.1f}]"
        if each["high"] - each["low"] > TOO_WIDE:
            lines.append(f"With {each['n']:,} labels, {each['method']}: cannot tell, between {interval}.")
        else:
            lines.append(
                f"With {each['n']:,} labels, {each['method']}: {each['value']:.1f} {interval}, {each['now']} now."
            )
    if not any(each["method"] == best.name for each in forecasts):
        lines.append(f"What more labels would bring to {best.name} cannot be told from {len(best.points)} points.")
    return lines
