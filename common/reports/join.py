"""Which record is of which experiment: by the fields of a run's identity, never by formatted text.

A record's deviations are the fields in which it differs from what its script does now. A published line is filled by
a record whose deviations are exactly the settings that the line names.
"""

import dataclasses
import functools
import json

from common import data, files
from common.console import InputError
from common.reports.cells import markdown
from common.runs import folders, identity

NAMED = ("train_sample_fraction", "lora_r", "epochs", "temperature", "top_k", "num_beams", "seed")  # of published.csv
NEFTUNE = 5.0  # the usual alpha: what a method "+neftune" means
UNTUNED = "before"  # a published line's method: the model as it was before a training


def study(task):
    """The name of the task's data set."""
    return data.TASKS[task][0]["name"]


def expected(record, named):
    """The identity that the record's script gives now to a run of the record's method, with the settings `named`
    changed. The rows' digests and the training that an inference used are the record's own.

    Raises InputError where the script is gone, KeyError or StopIteration where it no longer has the task, the kind of
    prompt or the checkpoint.
    """
    fields = record["identity"]
    path, task, recorded = files.ROOT / record["script"], fields["task"], fields["settings"]
    experiment = folders.experiment(path)
    if fields["kind"] == "inference":  # it takes over the settings of what it uses, and decodes greedily
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
    """Settings of an untrained model, for the kind of prompt, head or baseline that a record is of."""
    if recorded["baseline"]:
        return settings.replaced({"baseline": recorded["baseline"]})
    settings = settings.untuned().replaced({"head": recorded["head"]})
    if recorded["prompt_type"]:
        settings = settings.replaced({"prompt_type": recorded["prompt_type"], "shots": shots[recorded["prompt_type"]]})
    return settings


def tuned(settings, recorded, adapter, facts):
    """Settings of a training by the method that a record is of: with an adapter, on all layers, with NEFTune."""
    if recorded["lora_r"] and settings.lora_r is None:
        settings = settings.replaced(adapter)
    if recorded["full_tune"]:
        settings = settings.replaced({"full_tune": True, "targets": facts.ALL_TARGETS})
    return settings.replaced({"neftune": NEFTUNE}) if recorded["neftune"] else settings


def deviations(record, named=None):
    """{field: the record's value} of the fields in which a record differs from what its script does now, with the
    settings `named` changed. How many test rows were scored is none: n is shown."""
    try:
        usual = expected(record, named or {})
    except (InputError, KeyError, StopIteration):
        return {"script": record["script"]}
    return {name: own for name, (own, _) in identity.differences(record["identity"], usual).items()}


def method(record):
    return identity.method(record["identity"])


def named_by(line):
    """The settings that a line of published.csv names, as values."""
    return {name: json.loads(line[name]) for name in NAMED if line[name]}


def is_of(record, line, variants):
    """Whether a record is of the experiment of a published line. variants: {lower-case name: checkpoint}."""
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
    """{lower-case name: checkpoint}: how published lines name the checkpoints of the folders."""
    return {each.name.lower(): each.checkpoint for folder in all_folders for each in folder.facts.VARIANTS}


def own(folder):
    """The folder's records that tables are made of: of its own checkpoints, on the study's rows."""
    return [
        record
        for record in folder.records
        if record["identity"]["checkpoint"] in folder.checkpoints and record["data"]["kind"] == "study"
    ]


def fullest(records):
    """Of several records of one experiment: a finished one, with most test rows, most training rows, the newest. Never
    the one with the best score."""
    n = lambda record: record["data"]["n"]  # noqa: E731
    return max(
        records,
        key=lambda r: (r["status"] == "done", n(r)["test"], n(r)["train"] * trains(r), r["finished_at"]),
        default=None,
    )


THINNED = {"train_sample_fraction", "max_train_samples"}


def declared(folder, task, of_method=None):
    """The record that stands for a folder's task on the front page and in pictures: trained with the script's own
    settings, or fewer training rows, and of these the one with most training rows, then most test rows. of_method:
    another method than the script's default."""
    records = []
    for record in own(folder):
        usual = record["identity"]["task"] == task and trains(record) and record["status"] == "done"
        if usual and set(deviations(record)) <= THINNED:
            records.append(record)
    if of_method is None and records:
        of_method = usual_method(folder, task)
    records = [record for record in records if method(record) == of_method]
    return max(records, key=lambda r: (r["data"]["n"]["train"], r["data"]["n"]["test"], r["finished_at"]), default=None)


def usual_method(folder, task):
    """The method of the folder's training script at its defaults, or None where there is none."""
    settings = training_settings(folder.path, task)
    if settings is None:
        return None
    return identity.method({"kind": "training", "settings": settings.fields()})


@functools.cache
def training_settings(path, task):
    """The Settings of the folder's training script for a task, or None."""
    script = path / f"{path.name}_{task}.py"
    return folders.experiment(script).by_task[task] if script.is_file() else None


def in_words(name, value):
    """A deviation as a reader needs it."""
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
    """A name for each record, no two alike: its method and deviations ("qlora, lora_r 8, seed 43"), with the run's id
    where these are the same. without: deviations that the table says otherwise, in a column of training rows. The names
    are fit for a page."""
    names = []
    for record in records:
        differences = [in_words(*each) for each in deviations(record).items() if each[0] not in without]
        more = [f"{len(differences) - 3} more"] if len(differences) > 4 else []
        again = " (inference)" * (record["identity"]["kind"] == "inference")
        names.append(markdown(", ".join([method(record) + again, *(differences[:3] if more else differences), *more])))
    rows = [record["data"]["n"]["train"] * bool(without) for record in records]
    keys = list(zip(names, rows, strict=True))
    return [
        f"{name}, {record['id'][:6]}" if keys.count(key) > 1 or " more" in name else name
        for name, key, record in zip(names, keys, records, strict=True)
    ]
