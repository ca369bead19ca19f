"""Scores with their uncertainty: every value is a percentage with a 95 % bootstrap interval.

The interval says how far the score would move on another test set of this size (percentiles of RESAMPLES
resampled test sets, fixed seed). It does not hold the spread between training seeds.
"""

import collections

RESAMPLES = 1000
ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def rouge(predictions, references):
    """Mean F-measures of ROUGE-1/2/L/Lsum, Porter stemmer on (as the source), by Google's rouge_score.

    rougeLsum splits both texts into sentences with nltk's untrained Punkt, which needs no download.
    """
    from nltk.tokenize.punkt import PunktSentenceTokenizer
    from rouge_score import rouge_scorer

    sentences = PunktSentenceTokenizer()
    scorer = rouge_scorer.RougeScorer(ROUGES[:3], use_stemmer=True)
    by_sentence = rouge_scorer.RougeScorer(ROUGES[3:], use_stemmer=True)
    values = {name: [] for name in ROUGES}
    for prediction, reference in zip(predictions, references, strict=True):
        for name, score in scorer.score(reference, prediction).items():
            values[name].append(score.fmeasure)
        lines = ["\n".join(sentences.tokenize(text)) for text in (reference, prediction)]
        values["rougeLsum"].append(by_sentence.score(*lines)["rougeLsum"].fmeasure)
    return {name: mean(column) for name, column in values.items()}


def classification(predictions, references, labels):
    """Accuracy and macro-F1 (unweighted mean over `labels`; a class that is neither there nor predicted
    counts 0, as in sklearn)."""
    import numpy

    place = {label: i for i, label in enumerate(labels)}
    predicted = numpy.array([place[p] for p in predictions])
    true = numpy.array([place[r] for r in references])

    def macro_f1(rows):
        p, t = predicted[rows], true[rows]
        hit = numpy.bincount(t[p == t], minlength=len(labels))
        total = numpy.bincount(p, minlength=len(labels)) + numpy.bincount(t, minlength=len(labels))
        return (2 * hit / numpy.maximum(total, 1)).sum() * share / (total > 0).sum()

    # A class that a resample happens to miss says nothing about the model: the mean is over those it has.
    share = len(set(predictions) | set(references)) / len(labels)

    return {"accuracy": mean(predicted == true), "macro_f1": interval(macro_f1, len(true))}


# What free generation wrote, from best to worst. Only the first is what the source counted as right.
OUTCOMES = ("right", "right_extra", "wrong", "wrong_extra", "not_a_label", "empty")


def outcome(text, label, labels):
    """One of OUTCOMES. "extra": the answer begins with a label but goes on. The longest label wins, and
    a label must end where a word ends."""
    text = text.strip()
    if not text:
        return "empty"
    begun = [
        name
        for name in labels
        if text.lower().startswith(name.lower()) and not text[len(name) : len(name) + 1].isalnum()
    ]
    if not begun:
        return "not_a_label"
    found = max(begun, key=len)
    kind = "right" if found == label else "wrong"
    return kind if len(text) == len(found) else f"{kind}_extra"


def outcomes(texts, references, labels):
    """Share of each outcome of free generation, as metrics named generated_<outcome>."""
    kinds = [outcome(text, label, labels) for text, label in zip(texts, references, strict=True)]
    return {f"generated_{name}": mean([kind == name for kind in kinds]) for name in OUTCOMES}


def mean(values):
    """A per-row score as a metric: mean in percent with its interval."""
    import numpy

    column = numpy.asarray(values, dtype=float)
    return interval(lambda rows: column[rows].mean(), len(column))


def interval(statistic, n, scale=100):
    """{"value", "ci95", "n"} of a statistic of row numbers, times `scale` (100: in percent), from RESAMPLES
    bootstrap resamples."""
    import numpy

    generator = numpy.random.default_rng(0)
    resampled = [statistic(generator.integers(0, n, n)) for _ in range(RESAMPLES)]
    low, high = numpy.percentile(resampled, [2.5, 97.5])
    return {
        "value": round(scale * float(statistic(numpy.arange(n))), 4),
        "ci95": [round(scale * float(low), 4), round(scale * float(high), 4)],
        "n": n,
    }


def counts(metrics):
    """ "right 12, not_a_label 3, …" from generated_* metrics, for people."""
    found = collections.OrderedDict()
    for name in OUTCOMES:
        metric = metrics.get(f"generated_{name}")
        if metric:
            found[name.replace("_", " ")] = round(metric["value"] * metric["n"] / 100)
    return ", ".join(f"{name} {count}" for name, count in found.items())
