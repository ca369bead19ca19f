"""What costs seconds, on the training's own split: the scores that a tuned model has to beat.

Classes: the most frequent class, and TF-IDF with a logistic regression as in common/encoders/probe.py. Summaries: the
first sentences or utterances. Answers: the question itself (an echo). Intervals are those of the records.
"""

import statistics
import time
from dataclasses import replace

from common import console, metrics
from common.console import warn
from common.encoders import extraction, probe
from common.settings import Settings

SCORED = 2_000  # test rows that ROUGE is computed on, at most
FITTED = 14_000  # training rows of the regression, at most
WORK = 400_000  # training rows times classes, at most: the regression's time grows with both
LEADS = (1, 2, 3, 4, 5)  # first sentences to choose from
TUNED_ON = 500  # training rows that choose among LEADS


def of(rows):
    """The baselines of data.Data, one after the other, as {"name", "metrics", "seconds", "n": {"train", "test"}}."""
    makers = labelled if rows.labels else leading
    if "input" in (rows.train[0] | rows.test[0]):
        makers = echo
    load_libraries(rows.labels)
    for name, score, sizes in makers(rows):
        began = time.monotonic()
        try:
            scores = {key: without_rows(metric) for key, metric in score().items()}
        except ValueError as error:  # scikit-learn's, for texts without a word
            warn(f"{name}: {console.one_line(error)}")
            continue
        yield {"name": name, "metrics": scores, "seconds": round(time.monotonic() - began, 2), "n": sizes}


def load_libraries(labels):
    """Import what the scorers use, so that the seconds of a baseline are its own."""
    metrics.share([0, 1])
    if labels:
        import sklearn.feature_extraction.text
        import sklearn.linear_model  # noqa: F401
    else:
        metrics.rouge(["a text"], ["a text"])


def without_rows(metric):
    return {name: metric[name] for name in ("value", "ci95", "n")}


def labelled(rows):
    """(name, function that scores, sizes) of each baseline of rows with classes."""
    truth = [row["target"] for row in rows.test]
    scored = lambda predicted: metrics.classification(predicted, truth, rows.labels)  # noqa: E731
    sizes = {"train": len(rows.train), "test": len(rows.test)}
    yield "most frequent class", lambda: scored(probe.dummy(rows)), sizes
    part = replace(rows, train=rows.train[: fitted(len(rows.labels))])
    name = "TF-IDF + logistic regression"
    yield name, lambda: scored(probe.of_words(part, Settings().seed)), sizes | {"train": len(part.train)}


def fitted(classes):
    """Training rows of the regression. Rows are spread so that every prefix has all classes' shares."""
    return max(20 * classes, min(FITTED, WORK // classes))


def leading(rows):
    """(name, function that scores, sizes) of the baseline of summaries: the first sentences or utterances."""
    test = rows.test[:SCORED]
    split, unit = units(rows.train[:TUNED_ON])
    count = lead(rows.train[:TUNED_ON], split)
    name = f"first {count} {unit}s" if count > 1 else f"first {unit}"
    texts = [" ".join(split(row["text"])[:count]) for row in test]
    sizes = {"train": 0, "test": len(test)}
    yield name, lambda: metrics.rouge(texts, [row["target"] for row in test]), sizes


def units(rows):
    """(a function from a text to its parts, what a part is called): utterances if most texts have several lines or
    speakers, else sentences."""
    turns = statistics.median(len(extraction.utterances(row["text"])) for row in rows)
    return (extraction.utterances, "utterance") if turns > 1 else (sentences(), "sentence")


def sentences():
    """nltk's untrained sentence splitter, as a function; metrics.rouge uses it too."""
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    return PunktSentenceTokenizer().tokenize


def lead(rows, split):
    """How many of LEADS first parts have about as many words as the rows' summaries."""
    wanted = statistics.mean(len(row["target"].split()) for row in rows)
    parts = [split(row["text"]) for row in rows]
    words = {n: statistics.mean(sum(len(part.split()) for part in each[:n]) for each in parts) for n in LEADS}
    return min(LEADS, key=lambda n: (abs(words[n] - wanted), n))


def echo(rows):
    """(name, function that scores, sizes) of the baseline of answers: the instruction and its input, repeated."""
    test = rows.test[:SCORED]
    texts = [f"{row['text']} {row.get('input', '')}".strip() for row in test]
    sizes = {"train": 0, "test": len(test)}
    yield "echo of the instruction", lambda: metrics.rouge(texts, [row["target"] for row in test]), sizes


def sentence(found, role):
    """What the last baseline says for a tuning, in words. found: the baselines, as `of` yields them."""
    best = found[-1]
    name, metric = next(iter(best["metrics"].items()))
    interval = metric["ci95"]
    figure = f"{metric['value']:.1f}" + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if interval else "")
    what = "" if name == "accuracy" else f" {metrics.TITLES.get(name, name)}"
    words = f"{best['name']} reaches{what} {figure} in {max(0.1, best['seconds']):.1f} s"
    if interval and name == "accuracy" and interval[1] >= 99.95:
        return f"{words}: its interval touches 100, these test rows cannot show a gain of a tuned model."
    return f"{words}: a tuned model has to beat that."
