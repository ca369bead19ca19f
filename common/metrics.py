"""Scores with their uncertainty: every value is a percentage with a 95 % bootstrap interval.

The interval says how far the score would move on another test set of this size (percentiles of RESAMPLES
resampled test sets, fixed seed). It does not hold the spread between training seeds.
"""

import collections

UNKNOWN = {"value": None, "ci95": None, "n": None}
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


def responses(answers, references, encoder="minilm"):
    """Scores of free answers: BLEU (sacrebleu, corpus level, 0 to 100), ROUGE-1/2/L, BERTScore F1, and their length
    in words (in `length`, not a percentage). The prompt has no part in any of them. encoder: BERTScore's."""
    found = {name: value for name, value in rouge(answers, references).items() if name != "rougeLsum"}
    words = [len(answer.split()) for answer in answers]
    length = interval(lambda rows: sum(words[i] for i in rows) / len(rows), len(words), scale=1)
    return {
        "bleu": bleu(answers, references),
        **found,
        "bertscore_f1": bertscore(answers, references, encoder),
        "length": length,
    }


def bleu(answers, references):
    """Corpus BLEU of sacrebleu (its default: 13a tokens, exponential smoothing)."""
    import sacrebleu

    scorer = sacrebleu.BLEU()
    parts = [statistics_of(scorer, answer, reference) for answer, reference in zip(answers, references, strict=True)]

    def of_rows(rows):
        totals = [sum(column) for column in zip(*(parts[i] for i in rows), strict=True)]
        size, half = scorer.max_ngram_order, len(totals)
        correct, total = totals[2 : 2 + size], totals[2 + size : half]
        return scorer.compute_bleu(correct, total, totals[0], totals[1], smooth_method="exp").score

    return interval(of_rows, len(answers), scale=1)


def statistics_of(scorer, answer, reference):
    """(answer's length, reference's length, matches of each order…, n-grams of each order…) of one pair."""
    one = scorer.corpus_score([answer], [[reference]])
    return [one.sys_len, one.ref_len, *one.counts, *one.totals]


def bertscore(answers, references, encoder="minilm"):
    """BERTScore F1 (Zhang et al. 2020), by the bert-score package: encoder is "minilm", whose last layer is read, or a
    name in the package's `model2layers`, with the layer found best there. An empty answer scores 0."""
    import bert_score

    from common import checkpoints

    known = {"model_type": encoder}
    if encoder in checkpoints.EMBEDDED:
        known = {"model_type": str(checkpoints.prepare(checkpoints.find(encoder))), "num_layers": 6}
    asked = [i for i, answer in enumerate(answers) if answer.strip()]
    values = [0.0] * len(answers)
    if asked:
        scorer = bert_score.BERTScorer(**known, batch_size=32)
        _, _, f1 = scorer.score([answers[i] for i in asked], [references[i] for i in asked])
        for i, value in zip(asked, f1.tolist(), strict=True):
            values[i] = value
    return mean(values)


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

    found = {"accuracy": mean(predicted == true), "macro_f1": interval(macro_f1, len(true))}
    if len(labels) == 2:  # few enough to be told apart
        for label, i in place.items():
            of_class = predicted[true == i]
            found[f"accuracy_{label}"] = mean(of_class == i) if len(of_class) else UNKNOWN
        found |= averages(predicted, true, len(labels))
    return found


def averages(predicted, true, classes):
    """Macro precision and recall: unweighted means over the classes. predicted, true: arrays of class numbers; -1 is
    none of them. A class that is never predicted has precision 0, as in sklearn."""

    def of(rows, given):
        p, t = predicted[rows], true[rows]
        whole = t if given == "true" else p
        return sum(((p == t) & (t == i)).sum() / max(1, (whole == i).sum()) for i in range(classes)) / classes

    return {
        "precision": interval(lambda rows: of(rows, "predicted"), len(true)),
        "recall": interval(lambda rows: of(rows, "true"), len(true)),
    }


def generated(texts, references, labels):
    """Accuracy, macro precision and recall of the classes that free answers begin with; an answer that begins with
    none is wrong, whatever the class."""
    import numpy

    place = {label: i for i, label in enumerate(labels)}
    begun = [next((name for name in labels if outcome(text, name, labels).startswith("right")), None) for text in texts]
    predicted = numpy.array([place.get(name, -1) for name in begun])
    true = numpy.array([place[reference] for reference in references])
    found = {"accuracy": mean(predicted == true)} | averages(predicted, true, len(labels))
    return {f"generated_{name}": value for name, value in found.items()}


def confusion(predictions, references, labels):
    """{"labels", "counts"}: counts[i][j] rows of class i that were called class j."""
    place = {label: i for i, label in enumerate(labels)}
    counts = [[0] * len(labels) for _ in labels]
    for prediction, reference in zip(predictions, references, strict=True):
        counts[place[reference]][place[prediction]] += 1
    return {"labels": list(labels), "counts": counts}


def report(confusion):
    """[[class, precision, recall, F1, rows]] as text, in %, of what `confusion` gives; - where nothing was divided."""
    labels, counts = confusion["labels"], confusion["counts"]
    lines = []
    for i, label in enumerate(labels):
        right, is_it, taken = counts[i][i], sum(counts[i]), sum(row[i] for row in counts)
        shares = [(right, taken), (right, is_it), (2 * right, taken + is_it)]
        lines.append([label, *(f"{100 * n / of:.2f}" if of else "-" for n, of in shares), str(is_it)])
    return lines


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
