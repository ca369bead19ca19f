"""Trained models beside what was cheaper: the untrained model, baselines fitted on the same rows, the folder's usual
method. Runs are compared by the scores of the same test rows, and by nothing else."""

import statistics as middle

from common import metrics
from common.evaluation.kept import row_scores
from common.reports import cells, join, runs, statistics

FIXED = ("dummy", "tfidf", "frozen-features", "zero-shot")  # what they are scored by does not depend on a seed
CHEAP = {  # task -> baselines that trainings are compared with
    "classification": ("tfidf", "frozen-features", "setfit"),
    "sentiment": ("tfidf", "frozen-features"),
    "summarization": ("dummy", "tfidf", "frozen-features"),
    "instructions": (),
}


def table(folder, task, all_folders):
    """A row for each training and each cheaper way: the difference of the main metric, and whether it is one."""
    compared = pairs(folder, task, all_folders)
    if not compared:
        return "Nothing to compare yet: no two runs here scored the same test rows.\n"
    body = [[name, rows.removesuffix(" rows"), *rest] for name, rows, *rest in judged(compared)]
    metric = metrics.TITLES[runs.SHOWN[task][0]]
    head = ["trained", "rows", "compared with", f"{metric}, points", "claim about", "it is"]
    n = max(len(rows) for *_, rows, _ in compared)
    deviation = middle.median(float(rows.std(ddof=1)) for *_, rows, _ in compared if len(rows) == n)
    least = statistics.smallest(deviation, n)
    notes = [
        f"p < {statistics.ALPHA}, adjusted by Holm (comparisons: {len(body)}). How the two claims are made,",
        "and how often they are wrong: [reports](../common/reports/README.md#when-two-scores-differ). The smallest",
        f"difference of two models that {n:,} test rows show in four cases of five: {least:.1f} points.",
    ]
    return cells.table(head, body) + "\n" + "\n".join(notes) + "\n"


def judged(compared):
    """[[name of the trained run, its rows, name of the other run, difference, kind of claim, word]] of `pairs`."""
    adjusted = statistics.holm([difference.p for *_, difference in compared])
    return [
        [name, rows, against, interval(difference), kind, statistics.word(difference, p)]
        for (name, rows, against, kind, _, difference), p in zip(compared, adjusted, strict=True)
    ]


def interval(difference):
    return f"{difference.value:+.1f} [{difference.low:+.1f}, {difference.high:+.1f}]"


def pairs(folder, task, all_folders):
    """All comparisons of a folder's task: [(name of the trained run, number of its rows, name of the other run, kind of
    claim, differences of the rows, Difference)]."""
    return [compare(group, other, folder, task) for group, other in matched(folder, task, all_folders)]


def matched(folder, task, all_folders):
    """[(trained runs that differ in their seed alone, such runs to compare them with)] of a folder's task."""
    groups = join.seeds(scored(join.own(folder), task))
    others = [group for group in groups if not join.trains(group[0])] + cheap(folder, task, all_folders)
    trained = [group for group in groups if join.trains(group[0])]
    usual, found = join.usual_method(folder, task), []
    for group in sorted(trained, key=lambda group: (group[0]["data"]["n"]["train"], join.method(group[0]))):
        if not set(join.deviations(join.one_of(group))) <= join.THINNED:
            continue
        plain = [other for other in trained if join.method(other[0]) == usual != join.method(group[0])]
        for other in others + plain:
            if comparable(group[0], other[0], task):
                found.append((group, other))
    return found


def scored(records, task):
    """Records of a task that have its main metric, and that of every row."""
    return [
        each
        for each in records
        if each["identity"]["task"] == task and runs.SHOWN[task][0] in (each["metrics"] or {}) and recorded(each, task)
    ]


def recorded(record, task):
    """The main metric of a record's rows as the record has it, with spaces if they are not 0 or 1; None without."""
    stages = record.get("row_scores") or {}
    return (stages.get("tuned") or stages.get("base") or {}).get(runs.SHOWN[task][0])


def cheap(folder, task, all_folders):
    """Groups of other folders' runs of the baselines in CHEAP."""
    found = [record for other in all_folders if other.name != folder.name for record in scored(join.own(other), task)]
    return join.seeds([record for record in found if record["identity"]["settings"]["baseline"]])


def comparable(record, other, task):
    """Whether two runs scored the same test rows and are worth comparing. The other one is a zero-shot prompt, a
    baseline of CHEAP that was fitted on the same rows, or a training on the same rows with the method's settings."""
    rows, others_rows = record["identity"]["data"]["sha256"], other["identity"]["data"]["sha256"]
    if rows["test"] != others_rows["test"]:
        return False
    if join.method(other) == "zero-shot":
        return not set(join.deviations(other)) - {"max_test_samples"}
    if other["identity"]["settings"]["baseline"]:
        is_fitted = other["identity"]["settings"]["baseline"] != "dummy"
        return join.method(other) in CHEAP[task] and (not is_fitted or rows["train"] == others_rows["train"])
    return rows["train"] == others_rows["train"] and set(join.deviations(join.one_of([other]))) <= join.THINNED


def compare(group, other, folder, task):
    """A row of `pairs`."""
    import numpy

    first, second = (scores(each, task) for each in (other, group))
    is_fixed = join.method(other[0]) in FIXED
    if len(second) > 1 and (is_fixed or len(first) > 1):
        difference, kind = statistics.methods_differ(first, second, is_fixed), "methods"
    else:
        difference, kind = statistics.models_differ(first[0], second[0]), "two models"
    prefix = "" if runs.home(other[0]) == folder.name else f"{runs.home(other[0])}, "
    name = join.labels([join.one_of(group)], join.THINNED)[0]
    rows = f"{group[0]['data']['n']['train']:,} rows"
    return name, rows, prefix + join.method(other[0]), kind, numpy.asarray(second[0] - first[0]), difference


def scores(group, task):
    """Array of shape (seeds, rows): the main metric of every row, in percent."""
    import numpy

    return numpy.array([row_scores(recorded(record, task)) for record in group])
