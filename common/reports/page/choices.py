"""The choices that the page compares: recorded runs, and published figures as they were printed.

A run's name, score and group of seeds are those of its folder's tables (`runs`, `join`, `cells`). Every figure keeps
the path of its record, or the file and line of the published one.
"""

import collections
import html

from common import budget, files, metrics
from common.budget import job
from common.console import InputError, duration
from common.reports import cells, join, published, runs, tables

FREE = ("Apache-2.0", "MIT", "BSD-3-Clause")  # licences that ask for a notice alone
NO_MODEL = ("dummy", "tfidf")  # baselines that read no checkpoint
# What names of runs leave out: the same for all runs on a data set, or what stands for a checkpoint of another folder.
SAME = {"data", "text_column", "target_column", "script"}
SHARED_ROWS = ("classification", "summarization")  # tasks whose published trainings used the study's rows, or a share


def reference():
    """{"name", "usd_per_hour", "as_of"} of the instance whose price the READMEs show."""
    prices = budget.prices()
    found = next(each for each in prices["instances"] if each["name"] == budget.REFERENCE)
    return {"name": found["name"], "usd_per_hour": found["usd_per_hour"], "as_of": prices["as_of"]}


def place(path):
    """A file as the page shows it: relative to the repository, if it lies below that."""
    return str(path.relative_to(files.ROOT)) if path.is_relative_to(files.ROOT) else str(path)


# Recorded runs


def of_folder(folder):
    """(choices, merged records) of a folder's own runs on the study's rows."""
    found = [(task, record) for task in runs.SHOWN for record in runs.of_task(folder, task)]
    licence = vars(folder.facts).get("LICENSE") or "unknown"
    return named(found, {record["id"]: record for record in folder.records}, lambda task, _: task, licence)


def of_experiments(records, licences):
    """(choices, merged records) of records in experiments/: own data, demos, borrowed checkpoints. Each set of test
    rows is a data set of its own. licences: {checkpoint: licence}."""
    found = [(record["identity"]["task"], record) for record in join.merged(records)]
    trained = {record["id"]: record for record in records}
    return named(found, trained, own_dataset, licences)


def own_dataset(task, record):
    rows = record["identity"]["data"]
    return f"{task}, {rows['name']}, test rows {(rows['sha256']['test'] or 'unknown')[:6]}"


def named(found, trained, dataset, licence):
    """([choice], [record]) of [(task, record)], named beside the other runs of the same data set. dataset: function of
    task and record; trained: {id: record}, where an inference finds its training; licence: one, or {checkpoint: one}.
    """
    by_dataset = {}
    for task, record in found:
        by_dataset.setdefault(dataset(task, record), []).append(record)
    chosen = []
    for key, records in by_dataset.items():
        labels = join.labels(records, join.THINNED | (SAME if key not in runs.SHOWN else set()))
        for record, label in zip(records, labels, strict=True):
            checkpoint = record["identity"]["checkpoint"]
            own = licence if isinstance(licence, str) else licence.get(checkpoint, "unknown")
            chosen.append(measured(record, html.unescape(label), key, trained, own))
    return chosen, [record for records in by_dataset.values() for record in records]


def measured(record, name, dataset, trained, licence):
    """The choice of one record, or of several that differ in their seed alone. name: its label in the tables."""
    metric = (record["metrics"] or {}).get(runs.SHOWN[record["identity"]["task"]][0]) or metrics.UNKNOWN
    method, source = join.method(record), record
    if runs.inference(record):  # it costs what its training did
        source = trained.get(record["identity"]["trained"]["id"])
    paths = record.get("files") or [record["file"]]
    no_model = method in NO_MODEL
    return {
        "id": place(record["file"]),
        "record": [place(path) for path in paths],
        "measured": True,
        "dataset": dataset,
        "folder": runs.home(record),
        "model": "no model" if no_model else record["model"],
        "name": name,
        "status": record["status"],
        "note": record["reason"],
        "suspect": False,
        "score": metric["value"],
        "interval": metric["ci95"],
        "n": metric["n"],
        "text": cells.figure(metric) if record["status"] == "done" else record["status"],
        "labels": labels_of(record),
        **memory_of(source),
        **price_of(source),
        "licence": "none needed" if no_model else licence,
        "free": no_model or licence in FREE,
    }


def labels_of(record):
    """The number of labelled rows that a run learned from, or had in its prompt."""
    if runs.fits(record) or runs.inference(record):
        return record["data"]["n"]["train"]
    return record["identity"]["settings"]["shots"] or 0


def memory_of(record):
    peak = ((record or {}).get("training") or {}).get("peak_memory_bytes")
    if peak is None:
        return {"bytes": None, "bytes_of": "no peak is recorded"}
    return {"bytes": peak, "bytes_of": f"peak of the training, measured on {html.unescape(runs.device(record))}"}


def price_of(record):
    """USD of a run: what its record says, else the time of learning at the price of the reference instance."""
    if record and record["cost"]["usd"] is not None:
        return {"usd": record["cost"]["usd"], "usd_of": f"recorded: training and test, on {record['cost']['instance']}"}
    spent = runs.learning(record) if record else None
    if spent is None:
        return {"usd": None, "usd_of": "no time of learning is recorded"}
    if spent == 0:
        return {"usd": 0, "usd_of": "nothing is trained"}
    price = reference()
    words = f"{duration(spent)} of learning on {html.unescape(runs.device(record))}, at the price of {price['name']}"
    return {"usd": spent / 3600 * price["usd_per_hour"], "usd_of": words}


# Published figures


def of_published(all_folders):
    """The choices of the published figures of the tasks' main metrics. A figure that was printed twice for the same
    experiment is one choice, and suspect only if every line is."""
    variants = {each.name.lower(): (folder, each) for folder in all_folders for each in folder.facts.VARIANTS}
    lines, chosen = {}, {}
    for folder in all_folders:
        for number, line in enumerate(folder.published, 2):  # line 1 is the head
            lines[id(line)] = f"{place(folder.path / 'published.csv')}:{number}"
    for task, (metric, *_) in runs.SHOWN.items():
        for line in published.lines_of(all_folders, task=task, metric=metric):
            key = (published.experiment(line), line["value"])
            if line["value"] and not line["epoch"]:
                chosen.setdefault(key, []).append(line)
    return [printed(group, [lines[id(line)] for line in group], variants) for group in chosen.values()]


def printed(group, places, variants):
    """The choice of the lines `group` about one experiment with one figure. places: file and line of each."""
    line = next((line for line in group if not line["suspect"]), group[0])
    folder, variant = variants.get(line["model"], (None, None))
    licence = (folder and vars(folder.facts).get("LICENSE")) or "unknown"
    settings = [f"{name} {value:g}" for name, value in join.named_by(line).items() if name != "train_sample_fraction"]
    rows = labels_printed(line)
    return {
        "id": places[0],
        "record": places,
        "measured": False,
        "dataset": line["task"],
        "folder": line["home"],
        "model": variant.name if variant else line["model"],
        "name": ", ".join([line["method"], *settings]),
        "status": "published",
        "note": line["note"] or None,
        "suspect": bool(line["suspect"]),
        "source": line["source"],
        "score": float(line["value"]),
        "interval": None,
        "n": None,
        "text": line["value"],
        "labels": rows,
        **budget_of(line, variant),
        "licence": licence,
        "free": licence in FREE,
    }


def learns(line):
    return line["method"] != join.UNTUNED and not line["method"].endswith("-shot")


def labels_printed(line):
    """Labelled rows that a published figure took; None if its document does not say."""
    if line["method"] in ("zero-shot", join.UNTUNED):
        return 0
    if not learns(line):
        return 1 if line["method"] == "one-shot" else None
    if line["task"] not in SHARED_ROWS:
        return None
    return int(float(line["train_sample_fraction"] or 1) * job.TYPICAL[line["task"]][0])


def budget_of(line, variant):
    """Memory and price of a published training: the budget of its folder's script at its defaults, with the price
    scaled by the share of the rows and the epochs that the line names. None for a model that no folder runs."""
    if not learns(line):
        return {"bytes": None, "bytes_of": "not printed", "usd": 0, "usd_of": "nothing is trained"}
    try:
        known = budget.of_defaults(variant.checkpoint if variant else None, line["task"])
        peak = budget.peak_of_defaults(variant.checkpoint if variant else None, line["task"])
    except InputError:
        return {"bytes": None, "bytes_of": "no folder here runs it", "usd": None, "usd_of": "no folder here runs it"}
    named = join.named_by(line)
    share = named.get("train_sample_fraction", 1)
    if "epochs" in named:
        share *= named["epochs"] / join.training_settings(files.ROOT / line["home"], line["task"]).epochs
    words = f"counted by the budget for {known['command']}"
    more = f", times {share:g}" if share != 1 else ""
    return {
        "bytes": peak,
        "bytes_of": words,
        "usd": known["usd"] * share,
        "usd_of": f"{words} on {budget.REFERENCE}{more}",
    }


# Names and data sets


def titled(choices):
    """The choices, each with a "title": model, name and labels, and the test rows where others have the same."""
    for choice in choices:
        rows = "labels not recorded" if choice["labels"] is None else f"{choice['labels']:,} labels"
        choice["title"] = f"{choice['model']}, {choice['name']}, {rows}"
    names = collections.Counter((choice["dataset"], choice["title"]) for choice in choices if choice["measured"])
    for choice in choices:
        if choice["n"] and names[choice["dataset"], choice["title"]] > 1:
            choice["title"] += f", n = {choice['n']:,}"
    return choices


def datasets(choices):
    """[{"key", "title", "metric", "own"}] of the choices' data sets, the studies' first."""
    found = []
    for key in [*runs.SHOWN, *sorted({each["dataset"] for each in choices} - set(runs.SHOWN))]:
        task, _, rest = key.partition(", ")
        title = f"{rest} ({task})" if rest else tables.TITLES[task]
        if any(each["dataset"] == key for each in choices):
            found.append({"key": key, "title": title, "metric": metrics.TITLES[runs.SHOWN[task][0]], "own": bool(rest)})
    return found
