"""The front page: a table with a row for each model folder, and the figures within its sentences.

A sentence names its figure by words: `<!-- figure:measured smollm2 summarization -->…<!-- /figure -->`. join.declared
chooses the run of a folder, without looking at scores.
"""

import itertools
import json
import math
import re

from common import budget, metrics
from common.console import InputError, duration
from common.reports import cells, comparisons, effects, join, published, runs
from common.reports.cells import NOTHING

TASKS = {"classification": "20 Newsgroups, accuracy", "summarization": "SAMSum, ROUGE-1"}
GB = 1e9
SEEDS = re.compile(r", \d+ seeds$")  # of a name in a table of comparisons


def models(all_folders):
    """A row for each folder: published and measured figures of its default run, and the budget of that training."""
    head = ["model", "size", *TASKS.values(), "to train on SAMSum"]
    body = []
    for folder in all_folders:
        first = folder.facts.VARIANTS[0]
        row = [f"[{folder.name}]({folder.name})", f"{first.parameters / 1e9:.2g} B"]
        row += [both(folder, task) for task in TASKS]
        body.append([*row, takes(first.checkpoint)])
    return cells.table(head, body)


def both(folder, task):
    """The published figure of a folder's default experiment, and the measured one with its interval and n."""
    figures = [printed(folder, task), measured(folder, task)]
    return "; ".join(text for text in figures if text != NOTHING) or NOTHING


def printed(folder, task):
    """The published figures of the folder's first checkpoint by the script's own method on all rows, with † if they are
    unreliable. There are two if two documents of a study print different ones."""
    model, method = folder.facts.VARIANTS[0].name.lower(), join.usual_method(folder, task)
    filters = {"task": task, "model": model, "method": method, "metric": runs.SHOWN[task][0]}
    lines = [line for line in published.lines_of([folder], **filters) if line["value"] and is_default(line)]
    marks = {}  # a figure that was printed twice is marked only if both lines are marked
    for line in lines:
        marks[line["value"]] = marks.get(line["value"], True) and bool(line["suspect"])
    return " or ".join(value + " †" * marked for value, marked in marks.items()) or NOTHING


def is_default(line):
    return all(not value or (name, value) == ("train_sample_fraction", "1") for name, value in settings_of(line))


def settings_of(line):
    return [(name, line[name]) for name in join.NAMED]


def measured(folder, task):
    record = join.declared(folder, task)
    return cells.figure(record["metrics"].get(runs.SHOWN[task][0]), n=True) if record else NOTHING


def takes(checkpoint):
    """Memory and cost of training a checkpoint on SAMSum at its folder's defaults, estimated."""
    return f"{budget.peak_of_defaults(checkpoint) / GB:.0f} GB, {budget.of_defaults(checkpoint)['usd']:.2f} USD"


def budgets(all_folders):
    """Memory by part, time and cost of training every folder's first checkpoint on SAMSum at its defaults on a GPU."""
    head = ["checkpoint", "weights", "adapter, optimizer, gradients", "activations", "peak", "training", "cost"]
    body = []
    for folder in all_folders:
        first = folder.facts.VARIANTS[0]
        estimate = budget.of_defaults(first.checkpoint)
        parts = estimate["memory"]
        trained = sum(parts[name] for name in ("adapter", "optimizer", "gradients"))
        sizes = [parts["weights"], trained, parts["activations"], parts["peak"]]
        body.append([first.name, *(f"{size / GB:.1f} GB" for size in sizes), duration(estimate["seconds"])])
        body[-1].append(f"{estimate['usd']:.2f} USD")
    return cells.table(head, body) + f"\nTime and cost on {budget.REFERENCE}; estimated.\n"


# Figures within sentences: each function takes the folders and the words behind the figure's name, and returns a text.


def figure_of_published(all_folders, words):
    """published TABLE | ROW | COLUMN: the figure as it was printed. Raises InputError if there is none."""
    table, row, column = (word.strip() for word in words.split("|"))
    lines = [line for folder in all_folders for line in folder.published]
    matching = [line for line in lines if (line["table"], line["row"], line["column"]) == (table, row, column)]
    if len(matching) != 1 or not matching[0]["value"]:
        raise InputError(f"no published figure {words}")
    return matching[0]["value"]


def figure_of_range(all_folders, words):
    """range TASK METHOD: the lowest and the highest reliable published figure of the task's first metric, among models
    that have a figure of this method and a zero-shot one."""
    lines = comparable(all_folders, *words.split())
    values = sorted((float(line["value"]), line["value"]) for line in lines)
    return f"{values[0][1]} to {values[-1][1]}" if values else "none"


def figure_of_count(all_folders, words):
    """count TASK METHOD: the number of models of `range`."""
    return str(len({line["model"] for line in comparable(all_folders, *words.split())}))


def comparable(all_folders, task, method):
    lines = published.lines_of(all_folders, task=task, metric=runs.SHOWN[task][0])
    lines = [line for line in lines if line["value"] and not line["suspect"]]
    models = [{line["model"] for line in lines if line["method"] == name} for name in (method, "zero-shot")]
    return [line for line in lines if line["method"] == method and line["model"] in set.intersection(*models)]


def figure_of_suspect(all_folders, words):
    """suspect TASK METRIC: how many published figures are marked as unreliable, as "60 of 72"."""
    task, metric = words.split()
    lines = [line for line in published.lines_of(all_folders, task=task, metric=metric) if line["value"]]
    return f"{sum(bool(line['suspect']) for line in lines)} of {len(lines)}"


def figure_of_measured(all_folders, words):
    """measured FOLDER TASK [METHOD]: the declared run's score before and after training."""
    record = record_of(all_folders, words)
    if record is None:
        return "not measured yet"
    before, after = runs.stages(record)
    metric = runs.SHOWN[record["identity"]["task"]][0]
    score = cells.figure(after.get(metric))
    if before and before.get(metric):
        score = f"from {cells.figure(before[metric])} to {score}"
    return f"{metrics.TITLES[metric]} {score}, n = {record['data']['n']['test']:,}"


def figure_of_score(all_folders, words):
    """score FOLDER TASK METHOD [SETTING VALUE]…: that of the method's fullest run, or of its seeds, which differs from
    its script in these settings alone."""
    name, task, of_method, *named = words.split()
    settings = dict(zip(named[::2], map(json.loads, named[1::2]), strict=True))
    matching = [
        record
        for record in join.merged(join.own(folder_of(all_folders, name)))
        if (record["identity"]["task"], join.method(record)) == (task, of_method)
        and join.deviations(record) == settings
    ]
    record = join.fullest(matching)
    metric = record and (record["metrics"] or {}).get(runs.SHOWN[task][0])
    return cells.figure(metric, n=True) if metric else "not measured yet"


def figure_of_compared(all_folders, words):
    """compared FOLDER TASK | TRAINED | ROWS | OTHER: the verdict and the difference of a row of the folder's table of
    comparisons. TRAINED is without the number of seeds, which changes."""
    place, *names = (word.strip() for word in words.split("|"))
    name, task = place.split()
    rows = comparisons.judged(comparisons.pairs(folder_of(all_folders, name), task, all_folders))
    found = next((row for row in rows if [SEEDS.sub("", row[0]), *row[1:3]] == names), None)
    return f"{found[5]} ({found[3]} points; {found[4]})" if found else "not compared yet"


def figure_of_factor(_, name):
    """factor NAME: the scores with a study's choice and with ours, and their difference."""
    each = effects.factors().get(name)
    if not each:
        return "not measured yet"
    return f"{each['study']:.1f} → {each['here']:.1f} ({comparisons.interval(effects.judged()[name][0])})"


def figure_of_training(all_folders, words):
    """training FOLDER TASK [METHOD]: the number of training rows of the declared run, and the time of its training."""
    record = record_of(all_folders, words)
    if record is None:
        return "not measured yet"
    took = runs.seconds(record)
    return f"{record['data']['n']['train']:,} rows" + (f" in {took}" if took != NOTHING else "")


def record_of(all_folders, words):
    name, task, *method = words.split()
    return join.declared(folder_of(all_folders, name), task, *method)


def folder_of(all_folders, name):
    """The Folder of this name. Raises InputError if there is none."""
    folder = next((candidate for candidate in all_folders if candidate.name == name), None)
    if folder is None:
        raise InputError(f"no model folder {name}")
    return folder


def figure_of_interval(all_folders, task):
    """interval TASK: half the width of the narrowest measured interval, with its n."""
    narrowest = narrowest_interval(all_folders, task)
    return f"± {narrowest[0]:.1f} with n = {narrowest[1]:,}" if narrowest else "not measured yet"


def narrowest_interval(all_folders, task):
    """(half the width in points, n) of the narrowest interval of the task's first metric; None without any."""
    intervals = []
    for folder in all_folders:
        for record in runs.of_task(folder, task):
            metric = (record["metrics"] or {}).get(runs.SHOWN[task][0])
            if metric and metric["ci95"] and metric["n"]:
                intervals.append(((metric["ci95"][1] - metric["ci95"][0]) / 2, metric["n"]))
    return min(intervals, default=None)


def figure_of_gaps(all_folders, words):
    """gaps TASK METHOD: how many neighbours among the figures of `range` are at most `interval` apart."""
    task = words.split()[0]
    values = sorted(float(line["value"]) for line in comparable(all_folders, *words.split()))
    gaps = [high - low for low, high in itertools.pairwise(values)]
    narrowest = narrowest_interval(all_folders, task)
    if narrowest is None:
        return "not measured yet how many"
    return f"{sum(gap <= narrowest[0] for gap in gaps)} of the {len(gaps)}"


def figure_of_devices(all_folders, _):
    """devices: the devices of the recorded runs."""
    return (
        ", ".join(sorted({runs.device(record) for folder in all_folders for record in join.own(folder)}))
        or "nothing yet"
    )


def figure_of_memory(all_folders, _):
    """memory: the range of the peak memory of the trainings recorded on CPUs."""
    peaks = []
    for folder in all_folders:
        for record in join.own(folder):
            peak = (record["training"] or {}).get("peak_memory_bytes")
            if peak and record["environment"]["device"].startswith("CPU"):
                peaks.append(peak / GB)
    return f"{math.floor(min(peaks))} to {math.ceil(max(peaks))} GB" if peaks else "not measured yet"


def figure_of_budget(all_folders, words):
    """budget CHECKPOINT: memory and cost of training it on SAMSum."""
    return takes(words)


def figure_of_grid(all_folders, words):
    """grid CELLS CARDS CHECKPOINT: time, cost and adapters of so many trainings on SAMSum, on so many cards."""
    count, cards, checkpoint = words.split()
    estimate = budget.of_defaults(checkpoint)
    hours, cost = (int(count) * estimate[name] for name in ("seconds", "usd"))
    hours /= 3600
    return (
        f"{hours:,.0f} card hours and {cost:,.0f} USD ({budget.REFERENCE}), {hours / int(cards) / 24:.1f} days on "
        f"{cards} cards, and leave {int(count) * estimate['memory']['adapter'] / 1e12:.1f} TB of adapters"
    )


FIGURES = {
    name.removeprefix("figure_of_"): make for name, make in list(globals().items()) if name.startswith("figure_of_")
}


def figure(words, all_folders):
    """The figure of a marker's words. Raises InputError if there is none of that name."""
    name, _, rest = words.partition(" ")
    if name not in FIGURES:
        raise InputError(f"there is no figure {name}; there are: {', '.join(FIGURES)}")
    return FIGURES[name](all_folders, rest.strip())
