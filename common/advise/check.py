"""`python -m common advise check` (`make advice-check`): how good the advice is, on curves that it has not seen.

A task is a data set or some of its classes. Four cheap methods read it at six numbers of rows, three draws each. The
score at four times as many rows is predicted from the first sizes of a curve, and then measured. The weights of the
forms and the reach of the intervals come from the other tasks each time; assets/advice.json keeps those of all tasks.
"""

import os
from pathlib import Path

from common import data, files
from common.advise import curves
from common.console import InputError, progress, say
from common.encoders import probe
from common.reports import speed
from common.runs import checks, flags, records
from common.settings import Settings

ERRORS = speed.ASSETS / "advice.json"
RUNS = 3  # draws of training rows for each size
SIZES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)  # shares of a task's training rows
CASES = (((0, 1, 2), 4), ((0, 1, 2, 3, 4), 5))  # (sizes that are seen, the size that is predicted: four times the last)
MOST = 4000  # training rows of a task: what people bring, and what a regression fits in seconds
TEST_ROWS = 2000
TOKENS = 128  # that the embedded encoder reads of a text


def main(words):
    parser = flags.Parser(prog="python -m common advise check", description=__doc__)
    parser.add_argument("--output", default=str(ERRORS), metavar="FILE")
    args = parser.parse_args(words)
    if not os.environ.get("DATA_DIR"):
        raise InputError("the check reads 20 Newsgroups and IMDB: name the folder that has them with DATA_DIR")
    checks.check_places(args.output)
    features = {}
    cases = [case for name, task in tasks().items() for case in cases_of(name, task, features)]
    for case in cases:
        others = [other for other in cases if other["task"] != case["task"]]
        case["forecast"] = curves.combined(case["n"], case["by_form"], case["draws"], learned(others))
    figures = summary(cases)
    for name, value in figures.items():
        say(f"  {name}: {value}")
    kept = learned(cases) | {"date": records.now()[:10], "figures": figures, "cases": [line(case) for case in cases]}
    files.write_json(args.output, kept)
    return say(f"kept: {args.output}")


def tasks():
    """{name: (training rows, test rows)}, 20 Newsgroups whole and in parts, IMDB and, where it is, banking77."""
    posts, reviews = data.of_task("classification"), data.of_task("sentiment")

    def part(name, keep, label=lambda target: target):
        rows = ([r | {"target": label(r["target"])} for r in split if keep(r["target"])] for split in both)
        found[name] = tuple(rows)

    both, found = (posts.train, posts.test), {}
    part("20 Newsgroups", lambda target: True)
    part("its 6 groups", lambda target: True, lambda target: target.split(".")[0])
    for group in ("comp", "rec", "sci", "talk"):
        part(f"its {group} classes", lambda target, group=group: target.startswith(group + "."))
    part("religion or not", lambda target: True, lambda target: str("religion" in target or "atheism" in target))
    part("two of its classes", lambda target: target in ("sci.electronics", "comp.graphics"))
    both = (reviews.train, reviews.test)
    part("IMDB", lambda target: True)
    banking = Path(os.environ["DATA_DIR"]) / "banking77"
    if banking.is_dir():
        rows = data.of_task("classification", path=str(banking), text_column="text", target_column="label")
        both = (rows.train, rows.test)
        part("banking77", lambda target: True)
    return found


def methods(pairs, features):
    """{name: function(training texts, targets, test texts) -> predicted classes}. features: {text: its vector}."""
    import numpy
    from sklearn.naive_bayes import ComplementNB
    from sklearn.svm import LinearSVC

    def of(make):
        def predict(texts, targets, test):
            train, tested = probe.words(texts, test, pairs)
            return make().fit(train, targets).predict(tested)

        return predict

    def by_features(texts, targets, test):
        train, tested = (numpy.stack([features[text] for text in part]) for part in (texts, test))
        return probe.regression(Settings()).fit(train, targets).predict(tested)

    return {
        "TF-IDF, logistic regression": of(lambda: probe.regression(Settings(), probe.TFIDF_STRENGTH)),
        "TF-IDF, naive Bayes": of(ComplementNB),
        "TF-IDF, support vectors": of(LinearSVC),
        "features of MiniLM": by_features,
    }


def cases_of(name, task, features):
    """A case for each method and number of rows to predict: the points that are seen, the measured score, and what each
    form makes of them. features: {text: its vector}, to which those of this task are added."""
    import numpy

    train, test = task[0][:MOST], task[1]
    test = [test[i] for i in numpy.random.default_rng(0).permutation(len(test))[:TEST_ROWS]]
    truth, cases = numpy.array([row["target"] for row in test]), []
    new = list({row["text"] for row in (*train, *test)} - features.keys())
    features.update(zip(new, probe.embedded(new, TOKENS) if new else [], strict=True))
    every = methods(len({row["target"] for row in train}) == 2, features)
    bar = progress(len(every) * len(SIZES), name, "size")
    for method, predict in every.items():
        points = []
        for share in SIZES:
            runs = []
            for seed in range(RUNS if share < 1 else 1):
                rows = [
                    train[i]
                    for i in numpy.random.default_rng(seed).permutation(len(train))[: round(share * len(train))]
                ]
                predicted = predict([r["text"] for r in rows], [r["target"] for r in rows], [r["text"] for r in test])
                runs.append(100.0 * (predicted == truth))
            points.append(curves.Point(round(share * len(train)), numpy.array(runs)))
            bar.update(1)
        for seen, asked in CASES:
            by_form, draws = curves.drawn([points[i] for i in seen], points[asked].n)
            measured = {"task": name, "method": method, "n": points[asked].n, "measured": points[asked].mean}
            measured |= {"sizes": len(seen)}
            cases.append(measured | {"by_form": by_form, "draws": draws, "last": points[seen[-1]].mean})
    bar.close()
    return cases


def learned(cases):
    """{"weights", "reach"} from cases: a form counts by the inverse square of its mean error; the reach is the least
    that lets LEVEL of the intervals hold."""
    import numpy

    errors = {
        form: numpy.mean([abs(case["by_form"][form] - case["measured"]) for case in cases]) for form in curves.FORMS
    }
    weights = {form: float(1 / max(error, 0.1) ** 2) for form, error in errors.items()}
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
