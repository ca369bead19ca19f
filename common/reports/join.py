"""Match records and experiments by the fields of a run's identity, never by formatted text.

A record's deviations are the fields in which it differs from what its script does now. A record fills a published line
if its deviations are exactly the settings that the line names.
"""

import dataclasses
import functools
import json
import math

from common import data, files
from common.console import InputError
from common.reports import statistics
from common.reports.cells import markdown
from common.runs import folders, identity

# The settings that a line of published.csv can name.
NAMED = ("train_sample_fraction", "lora_r", "epochs", "temperature", "top_k", "num_beams", "seed")
NEFTUNE = 5.0  # alpha of a method "+neftune"
UNTUNED = "before"  # method of a published line about the model before its training


def study(task):
    """The name of the task's data set."""
    return data.TASKS[task][0]["name"]


def expected(record, named):
    """The identity fields of a run of the record's method by the record's script as it is now, with the settings
    `named` changed. It keeps the digests of the rows and the training of an inference from the record.

    Raises InputError if the script is gone, KeyError or StopIteration if it no longer has the task, the prompt type or
    the checkpoint.
    """
    fields = record["identity"]
    path, task, recorded = files.ROOT / record["script"], fields["task"], fields["settings"]
    experiment = folders.experiment(path)
    if fields["kind"] == "inference":  # it has the settings of its training, and decodes greedily
        experiment = dataclasses.replace(
            folders.experiment(path.with_name(path.name.replace("_inference", ""))), wording=experiment.wording
        )
    variant = next(each for each in experiment.facts.VARIANTS if each.checkpoint == fields["checkpoint"])
    settings = experiment.by_task[task]
    if fields["kind"] == "baseline":
        settings = untuned(settings, recorded, experiment.shots.get(task, {}))
    else:
        settings = tuned(settings, recorded, experiment.adapter.get(task, experiment.adapter), experiment.facts)
    return {
        **fields,
        "revision": variant.revision,
        "format": variant.format,
        "wording": dataclasses.asdict(getattr(experiment.wording, task.upper())),
        "data": {**fields["data"], "name": study(task), "text_column": None, "target_column": None},
        "settings": settings.replaced({**named, "max_test_samples": recorded["max_test_samples"]}).fields(),
        "precision": "auto",
    }


def untuned(settings, recorded, shots):
    """`settings` of an untrained model with the baseline, head or prompt type of a record. recorded: the record's
    settings; shots: {prompt type: number of examples}."""
    if recorded["baseline"]:
        return settings.replaced({"baseline": recorded["baseline"]})
    settings = settings.untuned().replaced({"head": recorded["head"]})
    if recorded["prompt_type"]:
        settings = settings.replaced({"prompt_type": recorded["prompt_type"], "shots": shots[recorded["prompt_type"]]})
    return settings


def tuned(settings, recorded, adapter, facts):
    """`settings` of a training with the method of a record: an adapter, all layers, NEFTune. recorded: the record's
    settings; adapter: settings that --lora_r changes; facts: model.py."""
    if recorded["lora_r"] and settings.lora_r is None:
        settings = settings.replaced(adapter)
    if recorded["full_tune"]:
        settings = settings.replaced({"full_tune": True, "targets": facts.ALL_TARGETS})
    return settings.replaced({"neftune": NEFTUNE}) if recorded["neftune"] else settings


def deviations(record, named=None):
    """{field: the record's value} of the fields in which a record differs from what its script does now, with the
    settings `named` changed. The number of test rows is not one of them, because tables show n."""
    try:
        expected_fields = expected(record, named or {})
    except (InputError, KeyError, StopIteration):
        return {"script": record["script"]}
    differing = identity.differences(record["identity"], expected_fields)
    return {name: value for name, (value, _) in differing.items() if name != "seed" or "seeds" not in record}


def method(record):
    return identity.method(record["identity"])


def named_by(line):
    """{setting: value} of the settings that a line of published.csv names."""
    return {name: json.loads(line[name]) for name in NAMED if line[name]}


def is_of(record, line, variants):
    """Whether a record and a published line belong to the same experiment. variants: {lower-case name: checkpoint}."""
    fields, before = record["identity"], line["method"] == UNTUNED
    return (
        (fields["task"], fields["checkpoint"]) == (line["task"], variants.get(line["model"]))
        and record["data"]["kind"] == "study"
        and method(record) == ("qlora" if before else line["method"])
        and (trains(record) or not before)
        and not deviations(record, named_by(line))
    )


def trains(record):
    return record["identity"]["kind"] == "training"


def variants(all_folders):
    """{lower-case name: checkpoint} of all folders; published lines use these names."""
    return {variant.name.lower(): variant.checkpoint for folder in all_folders for variant in folder.facts.VARIANTS}


def merged(records):
    """`records` with runs that differ in their seed alone as one: the first of them, with metrics over all seeds, the
    mean time of the trainings on as many threads as the first, and "seeds" and "files", the lists of their seeds and
    paths."""
    apart = [record for record in records if record["status"] != "done"]
    return apart + [one_of(group) for group in seeds(records)]


def one_of(group):
    """One record for runs that differ in their seed alone."""
    first, pooled = group[0], {}
    if len(group) == 1:
        return first
    for stage in ("metrics", "metrics_before"):
        if first[stage]:
            pooled[stage] = {}
            for name in first[stage]:
                if all(name in (record[stage] or {}) for record in group):
                    most = math.inf if name.endswith("length") else 100.0
                    pooled[stage][name] = statistics.over_seeds([record[stage][name] for record in group], most)
    if first["training"]:
        threads = [record["environment"].get("threads") for record in group]
        alike = [record for record, count in zip(group, threads, strict=True) if count == threads[0]]
        seconds = [(record["training"] or {}).get("seconds") for record in alike]
        pooled["training"] = first["training"] | {"seconds": None if None in seconds else sum(seconds) / len(seconds)}
    more = {"seeds": [record["identity"]["settings"]["seed"] for record in group]}
    return first | pooled | more | {"files": [record.get("file") for record in group]}


def own(folder):
    """The folder's records that tables show: runs of its own checkpoints on the study's rows."""
    return [
        record
        for record in folder.records
        if record["identity"]["checkpoint"] in folder.checkpoints and record["data"]["kind"] == "study"
    ]


def fullest(records):
    """The record to show among several of one experiment, None among none: a finished one if there is one, then the one
    with the most test rows, the most training rows, the newest. Scores do not count."""
    n = lambda record: record["data"]["n"]  # noqa: E731
    return max(
        records,
        key=lambda r: (r["status"] == "done", n(r)["test"], n(r)["train"] * trains(r), r["finished_at"]),
        default=None,
    )


def seeds(records):
    """The finished ones of `records` as groups of runs that differ in their seed alone: [[record]], by seed."""
    groups = {}
    for record in sorted(records, key=lambda record: record["identity"]["settings"]["seed"] or 0):
        fields = record["identity"]
        key = identity.digest({**fields, "settings": {**fields["settings"], "seed": None}})
        if record["status"] == "done":
            groups.setdefault(key, []).append(record)
    return list(groups.values())


THINNED = {"train_sample_fraction", "max_train_samples"}


def declared(folder, task, of_method=None):
    """The record that the front page and the pictures show for a folder's task, or None. It is of a training with the
    script's own settings, or fewer training rows; among several it has the most training rows, then the most test rows.
    of_method: method to use instead of the script's default."""
    records = []
    for record in merged(own(folder)):
        is_finished_training = record["identity"]["task"] == task and trains(record) and record["status"] == "done"
        if is_finished_training and set(deviations(record)) <= THINNED:
            records.append(record)
    if of_method is None and records:
        of_method = usual_method(folder, task)
    records = [record for record in records if method(record) == of_method]
    return max(records, key=lambda r: (r["data"]["n"]["train"], r["data"]["n"]["test"], r["finished_at"]), default=None)


def usual_method(folder, task):
    """The method of the folder's training script at its defaults; None without such a script."""
    settings = training_settings(folder.path, task)
    if settings is None:
        return None
    return identity.method({"kind": "training", "settings": settings.fields()})


@functools.cache
def training_settings(path, task):
    """The Settings of the folder's training script for a task; None without such a script."""
    script = path / f"{path.name}_{task}.py"
    return folders.experiment(script).by_task[task] if script.is_file() else None


def in_words(name, value):
    """A deviation in words."""
    if name in ("wording", "revision", "format"):
        return f"other {name}"
    if name == "script":
        return "by a script that is gone"
    if name == "precision":
        return str(value)
    if value is None or value is False:
        return f"no {name}"
    if value is True:
        return name
    return f"{name} {' '.join(value) if isinstance(value, list) else value}"


def labels(records, without=()):
    """A unique name for each record, escaped for Markdown: its method and deviations ("qlora, lora_r 8, seed 43"), and
    the run's id if another record has the same. without: fields to leave out, because the table shows the numbers of
    rows in a column, or "seed"."""
    names = []
    for record in records:
        differences = [in_words(*deviation) for deviation in deviations(record).items() if deviation[0] not in without]
        more = [f"{len(differences) - 3} more"] if len(differences) > 4 else []
        suffix = " (inference)" * (record["identity"]["kind"] == "inference")
        words = [method(record) + suffix, *(differences[:3] if more else differences), *more]
        words += [f"{len(record['seeds'])} seeds"] if "seeds" in record and "seed" not in without else []
        names.append(markdown(", ".join(words)))
    rows = [(record["data"]["n"]["train"], record["data"]["n"]["test"]) if without else None for record in records]
    keys = list(zip(names, rows, strict=True))
    return [
        f"{name}, {record['id'][:6]}" if keys.count(key) > 1 or " more" in name else name
        for name, key, record in zip(names, keys, records, strict=True)
    ]
