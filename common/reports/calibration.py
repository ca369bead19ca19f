"""`python -m common calibrate`: how often the tests of statistics.py call runs different that differ in nothing but
their draw, and how often the intervals of small test sets cover the score of the whole one.

It fits two cheap classifiers of 20 Newsgroups many times, each on other training posts, and takes the recorded runs of
six seeds or more, as far as there are any. Such runs are one method, so every difference that a test sees is wrong. The
figures go to assets/calibration.json; the table stands in this package's README.
"""

import os

from common import data, files, metrics
from common.console import InputError, progress, say
from common.reports import cells, comparisons, join, speed, statistics
from common.runs import checks, flags, folders, records

POSTS = 562  # training posts of a run: 5 % of all
SEEDS = 3  # of each group that is compared
COMPARISONS = 10_000  # at most; of few runs fewer, because they would repeat
PART = 100  # rows of a small test set
TOKENS = 256  # that the encoder reads of a post


def main(words):
    parser = flags.Parser(prog="python -m common calibrate", description=__doc__)
    parser.add_argument("--runs", type=flags.positive(int), default=200, metavar="N", help="of each classifier (200)")
    parser.add_argument("--output", default=str(speed.ASSETS / "calibration.json"), metavar="FILE")
    args = parser.parse_args(words)
    checks.check_places(args.output)
    if args.runs < 2 * SEEDS:
        raise InputError(f"--runs {args.runs}: two groups of {SEEDS} are compared, so {2 * SEEDS} or more")
    posts = data.of_task("classification", demo=not os.environ.get("DATA_DIR"))
    groups = cheap(posts, args.runs) | recorded(folders.all_folders())
    found = {name: {"runs": len(scores), "rows": scores.shape[1], **rates(scores)} for name, scores in groups.items()}
    for name, figures in found.items():
        say(f"  {name}: " + ", ".join(f"{key} {value}" for key, value in figures.items()))
    command = f"calibrate --runs {args.runs}"
    files.write_json(
        args.output, {"command": command, "date": records.now()[:10], "data": posts.source, "groups": found}
    )
    return say(f"figures: {args.output}")


def cheap(posts, count):
    """{name: array of shape (count, test rows), 100 where a run is right} of two classifiers. Each run is fitted on its
    own draw of POSTS training posts."""
    import numpy
    from sklearn.linear_model import LogisticRegression

    from common.encoders import probe

    targets, truth = (numpy.array([row["target"] for row in rows]) for rows in (posts.train, posts.test))
    features = [probe.embedded([row["text"] for row in getattr(posts, split)], TOKENS) for split in ("train", "test")]
    draws = [numpy.random.default_rng(seed).permutation(len(targets))[:POSTS] for seed in range(count)]
    bar, right = progress(2 * count, "calibration", "run"), {"TF-IDF": [], "frozen features": []}
    for draw in draws:
        train, test = probe.words([posts.train[i]["text"] for i in draw], [row["text"] for row in posts.test], False)
        inputs = {
            "TF-IDF": (train, test, probe.TFIDF_STRENGTH),
            "frozen features": (features[0][draw], features[1], 1.0),
        }
        for name, (fitted, tested, strength) in inputs.items():
            regression = LogisticRegression(C=strength, max_iter=2000).fit(fitted, targets[draw])
            right[name].append(100.0 * (regression.predict(tested) == truth))
            bar.update(1)
    bar.close()
    return {f"{name}, {POSTS} posts drawn": numpy.array(scores) for name, scores in right.items()}


def recorded(all_folders):
    """{name: scores of the rows, by run} of finished trainings that differ in their seed alone, six or more."""
    found = {}
    for folder in all_folders:
        for group in join.seeds([record for record in join.own(folder) if record.get("row_scores")]):
            if len(group) >= 2 * SEEDS:
                task = group[0]["identity"]["task"]
                label, n = join.labels(group[:1], join.THINNED | {"seed"})[0], group[0]["data"]["n"]["train"]
                name = f"{folder.name}, {task}, {label}, {n:,} rows"
                found[name] = comparisons.scores(group, task)
    return found


def rates(scores):
    """Figures of runs of one method. scores: array of shape (runs, rows), in percent.

    "methods": the share of comparisons of SEEDS runs with SEEDS others that `methods_differ` calls different; "models":
    that of two single runs by `models_differ`; "coverage": the share of tests on PART drawn rows whose interval covers
    the run's score on all rows. Shares are in percent.
    """
    import numpy

    generator, count = numpy.random.default_rng(0), min(COMPARISONS, 50 * len(scores))
    methods, models, covered = [], [], []
    for _ in range(count):
        order = generator.permutation(len(scores))
        first, second = scores[order[:SEEDS]], scores[order[SEEDS : 2 * SEEDS]]
        methods.append(statistics.methods_differ(first, second).p < statistics.ALPHA)
        models.append(statistics.models_differ(first[0], second[0]).p < statistics.ALPHA)
        part = first[0][generator.integers(scores.shape[1], size=PART)]
        low, high = metrics.mean(part / 100)["ci95"]
        covered.append(low <= first[0].mean() <= high)
    figures = {"methods": methods, "models": models, "coverage": covered}
    return {"comparisons": count} | {name: round(100 * float(numpy.mean(kind)), 1) for name, kind in figures.items()}


def table(_):
    """The figures of `python -m common calibrate`."""
    asset = speed.asset("calibration.json")
    if not asset:
        return "Not measured yet: `python -m common calibrate`.\n"
    body = [
        [cells.markdown(name), str(each["runs"]), *(f"{each[kind]} %" for kind in ("methods", "models", "coverage"))]
        for name, each in asset["groups"].items()
    ]
    head = ["runs that differ in their draw alone", "runs", "methods differ", "models differ", f"{PART} rows cover"]
    conditions = f"`python -m common {asset['command']}`, {asset['date']}; {cells.markdown(asset['data'])}."
    return f"{cells.table(head, body)}\n{conditions}\n"


def advice(_):
    """The figures of `python -m common advise check`, and the forecasts whose interval did not hold."""
    asset = speed.asset("advice.json")
    if not asset:
        return "Not measured yet: `python -m common advise check`.\n"
    figures = cells.table(["of the forecasts", "points or %"], [[name, str(v)] for name, v in asset["figures"].items()])
    missed = [case for case in asset["cases"] if not case["low"] <= case["measured"] <= case["high"]]
    told = lambda case: f"{case['value']:.1f} [{case['low']:.1f}, {case['high']:.1f}]"  # noqa: E731
    body = []
    for case in missed:
        names = [cells.markdown(case[name]) for name in ("task", "method")]
        body.append([*names, f"{case['n']:,}", f"{case['measured']:.1f}", told(case)])
    misses = cells.table(["missed", "read by", "rows", "measured", "forecast"], body) if missed else ""
    return f"{figures}\n{misses}\n`python -m common advise check`, {asset['date']}.\n"
