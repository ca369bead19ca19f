"""What ratings come to: the score of a record, and how far its raters agree."""

from pathlib import Path

from common import metrics
from common.ratings.store import SCALE


def alpha(units):
    """Krippendorff's alpha, ordinal, by the krippendorff package: 1 where raters always agree, 0 where as often as by
    chance.

    units: for each rated thing the list of scores that it was given, by however many raters. None where alpha is not
    defined: nothing was rated twice, or all those scores are equal.
    """
    paired = [scores for scores in units if len(scores) > 1]
    if len({score for scores in paired for score in scores}) < 2:
        return None
    import krippendorff

    counts = [[scores.count(value) for value in SCALE] for scores in paired]
    return float(krippendorff.alpha(value_counts=counts, value_domain=SCALE, level_of_measurement="ordinal"))


def kappa(first, second):
    """Cohen's kappa of two raters, quadratically weighted, by scikit-learn: their scores for the same things in the
    same order. None where it is not defined: no scores, or all equal."""
    if len({*first, *second}) < 2:
        return None
    from sklearn.metrics import cohen_kappa_score

    # labels: without a score that nobody gave its neighbours would come closer
    return float(cohen_kappa_score(first, second, labels=list(SCALE), weights="quadratic"))


def human(path, ratings):
    """The human score of the record at `path`. ratings: what `store.read` returns.

    {"value": mean over rows of the row's mean over raters, 1 to 5, "ci95": its 95 % bootstrap interval over rows (None
    where all rows are equal), "n": rated rows, "ratings": their number, "raters": their number, "alpha":
    Krippendorff's, "kappa": Cohen's, of exactly two raters on the rows that both rated}. What is not known is None.
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
    both = [row for row in rows.values() if len(row) == 2] if len(raters) == 2 else []
    return score | {
        "ratings": sum(map(len, units)),
        "raters": len(raters),
        "alpha": alpha(units),
        "kappa": kappa(*([row[rater] for row in both] for rater in raters)) if both else None,
    }
