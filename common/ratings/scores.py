"""The figures of ratings: the human score of a record and the agreement of its raters."""

from pathlib import Path

from common import metrics
from common.ratings.store import SCALE


def alpha(units):
    """Krippendorff's alpha, ordinal, by the krippendorff package: 1 if raters always agree, 0 if they agree as often as
    by chance.

    units: for each rated answer the list of its scores, by any number of raters. None if alpha is not defined: no
    answer was rated twice, or all scores of those answers are equal.
    """
    paired = [scores for scores in units if len(scores) > 1]
    if len({score for scores in paired for score in scores}) < 2:
        return None
    import krippendorff

    counts = [[scores.count(value) for value in SCALE] for scores in paired]
    return float(krippendorff.alpha(value_counts=counts, value_domain=SCALE, level_of_measurement="ordinal"))


def kappa(first, second):
    """Cohen's kappa of two raters, quadratically weighted, by scikit-learn. first, second: their scores of the same
    answers in the same order. None if kappa is not defined: no scores, or all are equal."""
    if len({*first, *second}) < 2:
        return None
    from sklearn.metrics import cohen_kappa_score

    # Name all labels: without a score that nobody gave, its neighbours would count as adjacent.
    return float(cohen_kappa_score(first, second, labels=list(SCALE), weights="quadratic"))


def human(path, ratings):
    """The human score of the record at `path`. ratings: what `store.read` returns.

    Returns {"value": mean over rows of the row's mean over raters, 1 to 5, "ci95": its 95 % bootstrap interval over
    rows (None if all rows are equal), "n": number of rated rows, "ratings": number of ratings, "raters": number of
    raters, "alpha": Krippendorff's, "kappa": Cohen's, only of exactly two raters, on the rows that both rated}. What is
    not defined is None.
    """
    path, rows = str(Path(path).resolve()), {}
    for (record, row, rater), score in sorted(ratings.items()):
        if record == path:
            rows.setdefault(row, {})[rater] = score
    raters = sorted({rater for row in rows.values() for rater in row})
    units = [list(row.values()) for row in rows.values()]
    score = {"value": None, "ci95": None, "n": 0}
    if rows:
        score = metrics.mean([sum(unit) / len(unit) for unit in units], scale=1)
    rated_by_both = [row for row in rows.values() if len(row) == 2] if len(raters) == 2 else []
    return score | {
        "ratings": sum(map(len, units)),
        "raters": len(raters),
        "alpha": alpha(units),
        "kappa": kappa(*([row[rater] for row in rated_by_both] for rater in raters)) if rated_by_both else None,
    }
