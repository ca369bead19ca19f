"""Metrics with 95 % intervals: each is {"value", "ci95", "n"}, in percent unless stated otherwise.

ci95 covers the choice of test rows, not of training seeds. Shares of rows have Wilson's interval, other metrics a
percentile bootstrap over rows (fixed seed; at 10 rows it covers about 90 %, at 20 rows 93 %). An interval contains its
value. It is None where the spread is unknown, as with a single row. Accuracy, ROUGE-1, BERTScore and generated_right
also have "rows", the rows' scores (0 to 1), for paired tests; evaluation takes them out.

The libraries are called directly: `evaluate` takes 3 to 6 s and 500 MB to import, and has no scores of rows.
"""

import re

UNKNOWN = {"value": None, "ci95": None, "n": None}
RESAMPLES = 1000
ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
OUTCOMES = ("right", "right_extra", "wrong", "wrong_extra", "not_a_label", "empty")  # of free generation, best first
RESPONSES = {"bleu": "BLEU", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
RESPONSES |= {"bertscore_f1": "BERTScore F1", "length": "words"}
TITLES = {name: name for name in ("accuracy", "precision", "recall", "human")}
TITLES |= {"macro_f1": "macro-F1", "rougeLsum": "ROUGE-Lsum", "stopped": "ended on its own", **RESPONSES}
TITLES |= {f"accuracy_{name}": f"accuracy, {name}" for name in ("negative", "positive")}
TITLES |= {f"generated_{name}": f"wrote: {name.replace('_', ' ')}" for name in (*OUTCOMES, *list(TITLES)[:3])}
TITLES |= {f"echo_{name}": f"echo: {title}" for name, title in RESPONSES.items()}
TITLES |= {"ece": "calibration error", "ece_raw": "calibration error, no temperature"}
TITLES |= {"train_loss": "training loss", "validation_loss": "validation loss", "train_hours": "hours of training"}
TITLES |= {"train_cost_usd": "cost of training, USD", "usd_per_1k_tokens": "USD per 1,000 tokens"}
TITLES |= {"max_rps": "offered requests/s", "throughput_rps": "answered requests/s", "latency_p90_s": "latency p90, s"}


def rouge(predictions, references):
    """Mean F-measures of ROUGE-1/2/L/Lsum, Porter stemmer on (as the source), by Google's rouge_score. rougeLsum splits
    both texts into sentences with nltk's untrained Punkt, which needs no download."""
    from nltk.tokenize.punkt import PunktSentenceTokenizer
    from rouge_score import rouge_scorer

    sentences = PunktSentenceTokenizer()
    scorer = rouge_scorer.RougeScorer(ROUGES[:3], use_stemmer=True)
    lsum_scorer = rouge_scorer.RougeScorer(ROUGES[3:], use_stemmer=True)
    values = {name: [] for name in ROUGES}
    for prediction, reference in zip(predictions, references, strict=True):
        sentence_lines = ["\n".join(sentences.tokenize(text)) for text in (reference, prediction)]
        for name, score in (scorer.score(reference, prediction) | lsum_scorer.score(*sentence_lines)).items():
            values[name].append(score.fmeasure)
    scores = {name: mean(column) for name, column in values.items()}
    return scores | {"rouge1": scores["rouge1"] | {"rows": values["rouge1"]}}


def responses(answers, references, encoder="minilm"):
    """Metrics of answers without their prompts: BLEU, ROUGE-1/2/L, BERTScore F1 (encoder: see `bertscore`), and length,
    the mean number of words (not a percentage)."""
    scores = {"bleu": bleu(answers, references), **rouge(answers, references)}
    del scores["rougeLsum"]
    length = mean([len(answer.split()) for answer in answers], scale=1)
    return {**scores, "bertscore_f1": bertscore(answers, references, encoder), "length": length}


def bleu(answers, references):
    """Corpus BLEU by sacrebleu, with its defaults: 13a tokens, exponential smoothing."""
    import numpy
    import sacrebleu

    scorer = sacrebleu.BLEU()
    pairs = [scorer.corpus_score([a], [[r]]) for a, r in zip(answers, references, strict=True)]
    statistics = numpy.array([[pair.sys_len, pair.ref_len, *pair.counts, *pair.totals] for pair in pairs])

    def corpus_bleu(rows):
        answer_length, reference_length, *ngrams = statistics[rows].sum(axis=0).tolist()
        matches, total = ngrams[: scorer.max_ngram_order], ngrams[scorer.max_ngram_order :]
        return scorer.compute_bleu(matches, total, answer_length, reference_length, smooth_method="exp").score / 100

    return bootstrap(corpus_bleu, numpy.arange(len(pairs)))


def bertscore(answers, references, encoder="minilm"):
    """BERTScore F1 (Zhang et al. 2020), by the bert-score package. encoder: an embedded checkpoint, whose last layer
    is used, or a name in the package's `model2layers`, which gives the layer. An empty answer scores 0."""
    import bert_score
    from transformers import AutoConfig

    from common import checkpoints

    model = {"model_type": encoder}
    if encoder in checkpoints.EMBEDDED:
        folder = str(checkpoints.prepare(checkpoints.find(encoder)))
        model = {"model_type": folder, "num_layers": AutoConfig.from_pretrained(folder).num_hidden_layers}
    nonempty = [i for i, answer in enumerate(answers) if answer.strip()]  # the package cannot encode an empty answer
    values = dict.fromkeys(range(len(answers)), 0.0)
    if nonempty:
        scorer = bert_score.BERTScorer(**model, batch_size=32)
        f1 = scorer.score([answers[i] for i in nonempty], [references[i] for i in nonempty])[2]
        values |= zip(nonempty, f1.tolist(), strict=True)
    return mean(list(values.values())) | {"rows": list(values.values())}


def classification(predictions, references, labels):
    """Accuracy and macro-F1, the unweighted mean over `labels`; a class that is neither true nor predicted counts 0,
    as in scikit-learn. Two classes also have the accuracy of each class, macro precision and macro recall."""
    predicted, true = numbers(predictions, labels), numbers(references, labels)
    correct, averages = predicted == true, macro(predicted, true, len(labels))
    accuracy = share(correct) | {"rows": correct.astype(int).tolist()}
    if len(labels) > 2:
        return {"accuracy": accuracy, "macro_f1": averages["macro_f1"]}
    by_class = {f"accuracy_{label}": share(predicted[true == i] == i) for i, label in enumerate(labels)}
    return {"accuracy": accuracy, **by_class, **averages}


def generated(texts, references, labels):
    """Accuracy, macro precision and macro recall of free answers. An answer predicts the class that it begins with; one
    that begins with no class is wrong."""
    predicted, true = numbers([label_of(text, labels) for text in texts], labels), numbers(references, labels)
    scores = {"accuracy": share(predicted == true), **macro(predicted, true, len(labels))}
    return {f"generated_{name}": scores[name] for name in ("accuracy", "precision", "recall")}


def numbers(names, labels):
    """Array of the indices of `names` in `labels`; len(labels) for None."""
    import numpy

    index = {label: i for i, label in enumerate([*labels, None])}
    return numpy.array([index[name] for name in names], dtype=int)


def macro(predicted, true, classes):
    """{"precision", "recall", "macro_f1"}: unweighted means over the classes. A class never predicted has precision 0.

    predicted, true: arrays of class indices below `classes`; a prediction equal to `classes` is none of them.
    """
    import numpy
    from sklearn.metrics import precision_recall_fscore_support

    values = precision_recall_fscore_support(true, predicted, labels=range(classes), average="macro", zero_division=0)
    size = classes + 1
    cells = true * size + predicted  # of the confusion matrix: bincount of a resample is faster than scikit-learn
    scores = {}
    for name, value in zip(("precision", "recall", "macro_f1"), map(float, values[:3]), strict=True):

        def present_mean(cells, name=name):
            counts = numpy.bincount(cells, minlength=size**2).reshape(size, size)
            correct, guessed, actual = (n[:-1] for n in (counts.diagonal(), counts.sum(axis=0), counts.sum(axis=1)))
            divisor = {"precision": guessed, "recall": actual, "macro_f1": (guessed + actual) / 2}[name]
            return (correct[divisor > 0] / divisor[divisor > 0]).sum() / max(1, (divisor > 0).sum())

        # A class missing in a resample says nothing about the model: the mean is over the classes that are present.
        factor = value / (present_mean(cells) or 1)
        scores[name] = bootstrap(lambda rows, mean=present_mean, factor=factor: factor * mean(rows), cells, value)
    return scores


def confusion(predictions, references, labels):
    """{"labels", "counts"}: counts[i][j] is the number of rows of class i for which class j was predicted."""
    from sklearn.metrics import confusion_matrix

    return {"labels": list(labels), "counts": confusion_matrix(references, predictions, labels=labels).tolist()}


def report(confusion):
    """[[class, precision, recall, F1, rows]] as text, in percent, from `confusion`'s result; - where undefined."""
    import numpy
    from sklearn.metrics import precision_recall_fscore_support

    counts = numpy.array(confusion["counts"])
    rows = dict(zip(("y_true", "y_pred"), numpy.indices(counts.shape).reshape(2, -1), strict=True))
    scores = precision_recall_fscore_support(**rows, sample_weight=counts.ravel(), zero_division=numpy.nan)
    text = [["-" if numpy.isnan(value) else f"{100 * value:.2f}" for value in column] for column in scores[:3]]
    return [list(line) for line in zip(confusion["labels"], *text, map(str, counts.sum(axis=1)), strict=True)]


def label_of(text, labels):
    """The label that a text begins with, or None. It must end where a word ends; the longest one counts."""
    matches = [name for name in labels if re.match(rf"{re.escape(name)}(?![^\W_])", text.strip(), re.IGNORECASE)]
    return max(matches, key=len, default=None)


def outcome(text, label, labels):
    """One of OUTCOMES. "_extra": text follows the label. The source counted only "right" as right."""
    predicted, text = label_of(text, labels), text.strip()
    if predicted is None:
        return "not_a_label" if text else "empty"
    return ("right" if predicted == label else "wrong") + ("_extra" if len(text) > len(predicted) else "")


def outcomes(texts, references, labels):
    """{"generated_<outcome>": share of the answers} for each of OUTCOMES."""
    results = [outcome(text, label, labels) for text, label in zip(texts, references, strict=True)]
    scores = {f"generated_{name}": share([kind == name for kind in results]) for name in OUTCOMES}
    return scores | {
        "generated_right": scores["generated_right"] | {"rows": [int(kind == "right") for kind in results]}
    }


def figure(metric):
    """36.90 [35.10, 38.70]; 36.90 if the interval is unknown; - if there is no value."""
    if not metric or metric["value"] is None:
        return "-"
    return f"{metric['value']:.2f}" + (" [{:.2f}, {:.2f}]".format(*metric["ci95"]) if metric["ci95"] else "")


def share(values):
    """The share of ones among 0/1 values, in percent, with Wilson's interval (1927); UNKNOWN without values."""
    from scipy.stats import binomtest

    n, ones = len(values), sum(values)
    return metric(ones / n, binomtest(ones, n).proportion_ci(method="wilson"), n) if n else UNKNOWN


def mean(values, scale=100):
    """The mean of a score per row, times `scale` (100: percent). Percentages of zeros and ones are a `share`."""
    import numpy

    column = numpy.asarray(values, dtype=float)
    is_share = scale == 100 and numpy.isin(column, (0, 1)).all()
    return share(column.astype(int)) if is_share else bootstrap(numpy.mean, column, scale=scale)


def bootstrap(statistic, column, value=None, scale=100):
    """The metric `value` (None: statistic(column)), with the interval of RESAMPLES resamples of the column. If all
    resamples are equal there is no interval, but Wilson's where the statistic is 0 or 1."""
    import numpy
    from scipy import stats

    n, interval = len(column), (0, 0)
    value = float(statistic(column)) if value is None else value
    if n > 1:
        batch = max(1, 2_000_000 // n)  # resampled rows in memory at once
        options = {"n_resamples": RESAMPLES, "method": "percentile", "batch": batch, "rng": numpy.random.default_rng(0)}
        interval = stats.bootstrap((column,), statistic, **options).confidence_interval
    if interval[1] - interval[0] > 1e-6:  # wider than float32 rounds
        return metric(value, interval, n, scale)
    is_bound = scale == 100 and round(value, 6) in (0, 1)
    return share([round(value)] * n) if is_bound else metric(value, None, n, scale)


def metric(value, interval, n, scale=100):
    """A metric as a record has it. The interval is widened to the value where a biased bootstrap misses that."""
    ci95 = interval and [round(scale * float(end), 4) for end in (min(value, interval[0]), max(value, interval[1]))]
    return {"value": round(scale * float(value), 4), "ci95": ci95, "n": n}
