"""The learning curves that the check predicts: of cheap methods on tasks made from the studies' data, measured once a
machine and kept in its cache, and of the runs recorded in the model folders.
"""

import os
from pathlib import Path

from common import data, files, machine
from common.advise.curves import Point
from common.advise.measured import RUNS, TOKENS, draws
from common.console import progress
from common.encoders import probe
from common.evaluation.kept import row_scores, rows_apart
from common.reports import comparisons, join, runs
from common.runs import folders, identity
from common.settings import Settings

SIZES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)  # shares of a task's training rows
MOST = 4000  # training rows of a task: what people bring, and what a regression fits in seconds
TEST_ROWS = 2000
METHODS = ("TF-IDF, logistic regression", "TF-IDF, naive Bayes", "TF-IDF, support vectors", "features of MiniLM")
TASKS = {"classification": "20 Newsgroups", "sentiment": "IMDB", "summarization": "SAMSum", "instructions": "Alpaca"}
DRAWN = {"train_sample_fraction", "seed"}  # how the runs of a recorded curve may differ from their script


def every():
    """[(task, method, [Point])]."""
    features, found = {}, []
    for name, (train, test) in tasks().items():
        found += [(name, method, points) for method, points in measured(name, train, test, features).items()]
    return found + recorded(folders.all_folders())


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

    regression = of(lambda: probe.regression(Settings(), probe.TFIDF_STRENGTH))
    return dict(zip(METHODS, (regression, of(ComplementNB), of(LinearSVC), by_features), strict=True))


def measured(name, train, test, features):
    """{method: [Point]} of a task. What was measured before is read from the cache. features: {text: its vector}, to
    which those of this task are added."""
    import numpy
    import sklearn

    train = train[:MOST]
    test = [test[i] for i in numpy.random.default_rng(0).permutation(len(test))[:TEST_ROWS]]
    key = identity.digest(
        [data.fingerprint(train), data.fingerprint(test), SIZES, RUNS, TOKENS, METHODS, sklearn.__version__]
    )
    path = machine.cache() / "advice-check" / f"{key}.json"
    if not path.is_file():
        new = list({row["text"] for row in (*train, *test)} - features.keys())
        features.update(zip(new, probe.embedded(new, TOKENS) if new else [], strict=True))
        right = fitted(name, train, test, methods(len({row["target"] for row in train}) == 2, features))
        files.write_json(path, right)
    kept = files.read_json(path)
    return {method: [Point(n, scores(texts)) for n, texts in kept[method]] for method in METHODS}


def fitted(name, train, test, every):
    """{method: [[training rows, [the test rows that each run had right, as text]]]} at SIZES."""
    import numpy

    truth, found = numpy.array([row["target"] for row in test]), {}
    bar = progress(len(every) * len(SIZES), name, "size")
    for method, predict in every.items():
        found[method] = []
        for share in SIZES:
            size, texts = round(share * len(train)), []
            for indices in draws(len(train), size):
                rows = [train[i] for i in indices]
                predicted = predict([r["text"] for r in rows], [r["target"] for r in rows], [r["text"] for r in test])
                texts.append(rows_apart({"right": {"rows": (predicted == truth).tolist()}})["right"])
            found[method].append([size, texts])
            bar.update(1)
    bar.close()
    return found


def recorded(all_folders):
    """[(task, method, [Point])] of the folders' runs: those that differ from their script in the share of the training
    rows and the seed alone, and scored the same test rows."""
    curves = {}
    for folder in all_folders:
        for task in runs.SHOWN:
            for record in comparisons.scored(join.own(folder), task):
                if record["status"] == "done" and set(join.deviations(record)) <= DRAWN:
                    name = f"{folder.name}: {join.method(record)}"
                    key = (TASKS[task], name, record["identity"]["data"]["sha256"]["test"])
                    points = curves.setdefault(key, {})
                    points.setdefault(record["data"]["n"]["train"], []).append(comparisons.recorded(record, task))
    return [
        (task, method, [Point(n, scores(texts)) for n, texts in sorted(points.items())])
        for (task, method, _), points in curves.items()
    ]


def scores(texts):
    """Array of shape (runs, test rows), 0 to 100, from the rows' scores as records have them."""
    import numpy

    return numpy.array([row_scores(text) for text in texts])
