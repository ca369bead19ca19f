"""Which choices can be told apart: the tests of the tables, and the same tests of further pairs with intervals that
overlap."""

import itertools

from common.reports import comparisons, join, runs, statistics
from common.reports.page.choices import place

# Most further pairs of a task, those of the highest scores first. A test of right and wrong rows takes milliseconds,
# one of ROUGE a second.
MOST, MOST_SLOW = 300, 6


def tests(all_folders):
    """[{"one", "other", "value", "low", "high", "p", "claim", "word"}]. one, other: paths of records; value: points by
    which one is above the other; p: adjusted for the rows of the table, or for the further pairs of the task (Holm)."""
    found = []
    for task in runs.SHOWN:
        known = set()
        for folder in all_folders:
            pairs = comparisons.matched(folder, task, all_folders)
            found += family(pairs, folder, task)
            known |= {names(pair) for pair in pairs}
        found += family(further(all_folders, task, known), all_folders[0], task)
    return found


def names(pair):
    return frozenset(str(group[0]["file"]) for group in pair)


def family(pairs, folder, task):
    """The tests of pairs (group of runs, other group) whose p are adjusted together."""
    rows = [comparisons.compare(*pair, folder, task) for pair in pairs]
    adjusted = statistics.holm([difference.p for *_, difference in rows])
    return [
        {
            "one": place(group[0]["file"]),
            "other": place(other[0]["file"]),
            "value": difference.value,
            "low": difference.low,
            "high": difference.high,
            "p": p,
            "claim": claim,
            "word": statistics.word(difference, p),
        }
        for (group, other), (*_, claim, _, difference), p in zip(pairs, rows, adjusted, strict=True)
    ]


def further(all_folders, task, known):
    """Pairs of groups that no table compares, on the same test rows, with intervals that overlap. known: `names` of the
    pairs that tables compare."""
    groups = join.seeds([each for folder in all_folders for each in comparisons.scored(join.own(folder), task)])
    metric = runs.SHOWN[task][0]
    scored = [(join.one_of(group)["metrics"][metric], group) for group in groups]
    scored = sorted((each for each in scored if each[0]["ci95"]), key=lambda each: -each[0]["value"])
    found, is_slow = [], any(" " in comparisons.recorded(group[0], task) for _, group in scored)
    for (score, group), (lower, other) in itertools.combinations(scored, 2):
        rows = [each[0]["identity"]["data"]["sha256"]["test"] for each in (group, other)]
        if rows[0] == rows[1] and lower["ci95"][1] >= score["ci95"][0]:
            # What is the same with every seed is the second: comparisons.compare takes it so.
            pair = (other, group) if join.method(group[0]) in comparisons.FIXED else (group, other)
            if names(pair) not in known:
                found.append(pair)
    return found[: MOST_SLOW if is_slow else MOST]
