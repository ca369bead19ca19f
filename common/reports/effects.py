"""What moved the published numbers: the table and the picture's content, from assets/factors.json."""

from common.reports import cells, comparisons, speed, statistics


def factors():
    """{name: figures of `python -m common factors`}."""
    return speed.asset("factors.json") or {}


def judged():
    """{name: (Difference, verdict)} of the factors, with p adjusted for their number."""
    measured, found = factors(), {}
    tested = {name: each for name, each in measured.items() if each["p"] is not None}
    adjusted = dict(zip(tested, statistics.holm([each["p"] for each in tested.values()]), strict=True))
    for name, each in measured.items():
        difference = statistics.Difference(each["value"], each["low"], each["high"], each["p"])
        found[name] = difference, statistics.word(difference, adjusted[name]) if name in adjusted else "95 % of draws"
    return found


def table(_):
    """A row for each factor, and beneath it what each concerns."""
    measured, verdicts = factors(), judged()
    if not measured:
        return "Not measured yet: `python -m common factors`.\n"
    body, notes = [], []
    for name, each in measured.items():
        difference, verdict = verdicts[name]
        scores = [f"{each[side]:.1f}" for side in ("study", "here")]
        body.append([name, each["metric"], f"{each['n']:,}", *scores, comparisons.interval(difference), verdict])
        notes.append(f"- **{name}**: {each['what']} It concerns: {each['published']}.")
    head = ["factor", "metric, %", "rows", "as there", "as here", "difference, points", "here is"]
    tests = sum(each["p"] is not None for each in measured.values())
    lines = [cells.table(head, body), *notes, f"\np < {statistics.ALPHA}, adjusted for {tests} tests (Holm)."]
    return "\n".join(lines) + "\n"


def content():
    """[[factor, difference, low, high]] for the picture."""
    return [[cells.plain(name), each["value"], each["low"], each["high"]] for name, each in factors().items()]
