"""`python -m common advise check` (`make advice-check`): how good the advice is, on curves that it has not seen.

A task is a data set or some of its classes. Four cheap methods read it at six numbers of rows, three draws each; runs
recorded in the model folders are curves, too (heldout.py). The score at four times as many rows is predicted from the
smaller sizes of a curve, and compared. The weights of the forms and the reach of the intervals come from the other
tasks each time; assets/advice.json keeps those of all tasks. Killed and called again, it goes on after the last task.
"""

import os

from common import files
from common.advise import FEWEST_POINTS, curves, heldout
from common.console import InputError, say
from common.reports import speed
from common.runs import checks, flags, records

ERRORS = speed.ASSETS / "advice.json"
TIMES, NEAR = 4, 1.02  # what is predicted: so many times the rows, about
SHARPNESS = 4  # this and curves.PRIOR were chosen on these tasks; without any one of them the same are the best


def main(words):
    parser = flags.Parser(prog="python -m common advise check", description=__doc__)
    parser.add_argument("--output", default=str(ERRORS), metavar="FILE")
    args = parser.parse_args(words)
    if not os.environ.get("DATA_DIR"):
        raise InputError("the check reads 20 Newsgroups and IMDB: name the folder that has them with DATA_DIR")
    checks.check_places(args.output)
    cases = [case for curve in heldout.every() for case in cases_of(*curve)]
    for case in cases:
        others = [other for other in cases if other["task"] != case["task"]]
        case["forecast"] = curves.combined(case["n"], case["by_form"], case["draws"], learned(others))
    figures = summary(cases)
    for name, value in figures.items():
        say(f"  {name}: {value}")
    kept = learned(cases) | {"date": records.now()[:10], "figures": figures, "cases": [line(case) for case in cases]}
    files.write_json(args.output, kept)
    return say(f"kept: {args.output}")


def cases_of(task, method, points):
    """A case for each size to predict: the points that are seen, the measured score, and what each form makes of it."""
    cases = []
    for seen, asked in split(points):
        by_form, draws = curves.drawn(seen, asked.n)
        figures = {"task": task, "method": method, "sizes": len(seen), "n": asked.n, "measured": asked.mean}
        cases.append(figures | {"by_form": by_form, "draws": draws, "last": seen[-1].mean})
    return cases


def split(points):
    """[(points that are seen, point that is predicted)]: every size with four times as many rows as a smaller one, seen
    from FEWEST_POINTS sizes or more."""
    found = []
    for asked in points:
        seen = [point for point in points if TIMES * point.n <= asked.n * NEAR]
        if len(seen) >= FEWEST_POINTS and TIMES * seen[-1].n * NEAR >= asked.n:
            found.append((seen, asked))
    return found


def learned(cases):
    """{"weights", "reach"} from cases: a form counts by its mean error to the power -SHARPNESS; the reach is the least
    that lets LEVEL of the intervals hold."""
    import numpy

    errors = {
        form: numpy.mean([abs(case["by_form"][form] - case["measured"]) for case in cases]) for form in curves.FORMS
    }
    weights = {form: float(max(error, 0.1) ** -SHARPNESS) for form, error in errors.items()}
    kept = {
        "weights": {form: round(weight / sum(weights.values()), 4) for form, weight in weights.items()},
        "reach": 0.0,
    }
    short = []
    for case in cases:
        found = curves.combined(case["n"], case["by_form"], case["draws"], kept)
        short.append(max(found.low - case["measured"], case["measured"] - found.high, 0))
    return kept | {"reach": round(float(numpy.quantile(short, curves.LEVEL, method="higher")), 2)}


def summary(cases):
    """The figures of the check: mean absolute error, share of intervals that hold, and the mean regret of choosing the
    method with the highest forecast, in points."""
    errors = [abs(case["forecast"].value - case["measured"]) for case in cases]
    held = [case["forecast"].low <= case["measured"] <= case["forecast"].high for case in cases]
    widths = [case["forecast"].high - case["forecast"].low for case in cases]
    naive = [abs(case["last"] - case["measured"]) for case in cases]
    regrets = []
    for name, n in dict.fromkeys((case["task"], case["n"]) for case in cases):
        group = [case for case in cases if (case["task"], case["n"]) == (name, n)]
        chosen = max(group, key=lambda case: case["forecast"].value)
        regrets.append(max(case["measured"] for case in group) - chosen["measured"])
    count, by_sizes = len(cases), {}
    for sizes in sorted({case["sizes"] for case in cases}):
        part = [error for error, case in zip(errors, cases, strict=True) if case["sizes"] == sizes]
        by_sizes[sizes] = round(sum(part) / len(part), 2)
    return {
        "cases": count,
        "mean absolute error": round(sum(errors) / count, 2),
        **{f"mean absolute error, {sizes} sizes seen": value for sizes, value in by_sizes.items()},
        "mean absolute error of no change": round(sum(naive) / count, 2),
        "intervals that hold, %": round(100 * sum(held) / count, 1),
        "mean width of the intervals": round(sum(widths) / count, 1),
        "mean regret": round(sum(regrets) / len(regrets), 2),
        "largest regret": round(max(regrets), 2),
    }


def line(case):
    found = case["forecast"]
    told = {name: round(getattr(found, name), 2) for name in ("value", "low", "high")}
    return (
        {name: case[name] for name in ("task", "method", "sizes", "n")}
        | {"measured": round(case["measured"], 2)}
        | told
    )
