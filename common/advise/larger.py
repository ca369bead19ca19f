"""What is known of larger models without measuring them here: published curves of another task, and the budget.

Nothing is promised from small models to large ones. Published figures are of 20 Newsgroups, and only those that are not
marked as suspect count."""

import collections

from common import budget
from common.budget import job
from common.console import InputError
from common.reports import published
from common.runs import folders

TASK = "classification"
LARGE = 5e9  # parameters
LEAST = 2  # figures of a curve


def sentences(n):
    """Sentences about larger models for n labelled rows."""
    every = folders.all_folders()
    large = [each for folder in every for each in folder.facts.VARIANTS if each.parameters >= LARGE]
    found, told = curves(every), []
    for (_, name), points in sorted(found.items()):
        path = ", ".join(f"{value:g} at {rows:,}" for rows, value in sorted(points.items()))
        told.append(f"Published, of 20 Newsgroups and not of your rows: {name}: {path} labels.")
    if not {model for model, _ in found} & {each.name.lower() for each in large}:
        told.append("No published figure of a 7B model for classes is free of doubt; their folders say why.")
    prices = [(price, each) for each in large if (price := budget_of(each))]
    if prices:
        known, variant = min(prices, key=lambda pair: pair[0]["usd"])
        peak = budget.peak_of_defaults(variant.checkpoint, TASK) / 1e9
        usd = known["usd"] * n / job.TYPICAL[TASK][0]
        told.append(
            f"{variant.name} would take {peak:.0f} GB and {usd:.2f} USD on {budget.REFERENCE} for {n:,} rows, counted "
            f"and not measured (python -m common budget {known['script']}); what it would score is not known."
        )
    return told


def budget_of(variant):
    """The budget of a variant's training at its folder's defaults; None if it has none."""
    try:
        return budget.of_defaults(variant.checkpoint, TASK)
    except InputError:
        return None


def curves(every):
    """{(model, name): {labelled rows: accuracy in %}} of published figures by the share of the rows, those that are
    suspect left out."""
    found = collections.defaultdict(dict)
    for line in published.lines_of(every, task=TASK, metric="accuracy"):
        if line["value"] and line["train_sample_fraction"] and not line["suspect"] and not line["epoch"]:
            rows = round(float(line["train_sample_fraction"]) * job.TYPICAL[TASK][0])
            found[line["model"], line["column"]][rows] = float(line["value"])
    return {name: points for name, points in found.items() if len(points) >= LEAST}
