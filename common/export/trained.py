"""The trained run that is exported: its identity, its record, its base model, its test rows."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

from common import checkpoints, encoding, files, qlora, training
from common import precision as precisions
from common.console import InputError, warn
from common.runs import checks, folders, identity, records
from common.settings import Settings


@dataclass(frozen=True)
class Trained:
    """A finished training.

    folder: of the run; weights: the file in adapter/ or model/; id, fields: of the run's identity; source: of the rows,
    "study", "own" or "sample"; record: its record, None if it was never scored; checkpoint: the base model; facts,
    variant: of the model folder that lists the base model, None if no folder does."""

    folder: Path
    weights: Path
    id: str
    fields: dict
    source: str
    record: dict | None
    checkpoint: checkpoints.Checkpoint
    facts: object
    variant: checkpoints.Variant | None

    @property
    def has_adapter(self):
        """Whether an adapter was trained; False if every weight was."""
        return self.weights.parent.name == "adapter"

    @property
    def is_encoder(self):
        return self.fields["format"] == "encoder"

    @property
    def task(self):
        return self.fields["task"]

    @property
    def template(self):
        return encoding.Template(**self.fields["wording"])

    @functools.cached_property
    def settings(self):
        return Settings().replaced(self.fields["settings"])

    @functools.cached_property
    def labels(self):
        """Class names; empty if answers are free text or extracts. Raises InputError."""
        return training.trained_labels(self.folder)

    @property
    def title(self):
        name = self.variant.name if self.variant else self.checkpoint.label
        return f"{name}, {self.task}, {identity.method(self.fields)}"

    def tokenizer(self):
        """The tokenizer that was saved beside the weights or, of older runs, the base model's. Raises InputError."""
        saved = self.weights.parent
        if self.has_adapter and (saved / "tokenizer.json").is_file():
            import transformers

            return transformers.AutoTokenizer.from_pretrained(saved)
        return qlora.tokenizer(self.checkpoint)

    def encoder(self, tokenizer):
        """The encoding.Encoder of a model that writes."""
        return encoding.prompter(tokenizer, self.template, self.fields["format"], self.settings, self.labels)

    def published(self, config):
        """The dtype's name that the base model was published in. config: transformers' config of the base model."""
        if self.facts:
            return self.facts.PRECISION
        return str(getattr(config, "dtype", None) or "bfloat16").removeprefix("torch.")

    def computed(self, config):
        """The dtype's name that the run was scored in, if this machine can. config: see `published`."""
        asked = self.fields["precision"]
        return precisions.chosen("auto", self.published(config) if asked == "auto" else asked)[0]


def find(target):
    """The Trained of a record or a run's folder. Raises InputError if nothing trained is there, or if the base model is
    not the one that it was trained on."""
    folder, weights = records.located(target)
    if not weights:
        raise InputError(f"no trained run in {folder} (run.json, adapter/ or model/): train one first")
    run = records.run_of(folder)
    fields = run["identity"]
    facts, variant = folders.home(fields["checkpoint"]) or (None, None)
    checkpoint = checkpoints.find(fields["checkpoint"], fields["revision"])
    if weights.parent.name == "adapter" and checkpoint.revision != fields["revision"]:
        raise InputError(
            f"{fields['checkpoint']} is now {checkpoint.revision}, the adapter was trained on {fields['revision']}: "
            "put that model back, or train again"
        )
    record = record_of(target, folder, run["id"])
    return Trained(folder, weights, run["id"], fields, run["source"], record, checkpoint, facts, variant)


def record_of(target, folder, id):
    """The record of the run with this id: `target`, or where a run in `folder` puts it; None if it has none."""
    places = [files.expanded(target), folder / "record.json", folder.parents[1] / "results" / f"{folder.name}.json"]
    for path in places:
        if path.is_file():
            record = records.checked(path)
            if record["id"] == id:
                return record
            warn(f"{files.display(path)} is not the record of {files.display(folder)}: its scores are left out")
    return None


def test_rows(run, count, path=None, **reading):
    """The Data of the run with the first `count` of its test rows. path: of own data, None for others; reading: how it
    is read (see data.Rows). Raises InputError if the rows are not those that the run was tested on."""
    if run.source == "own" and not path:
        raise InputError(
            "the run was tested on data of your own: name it with --data, or leave the scores out with --rows 0"
        )
    rows, same = identity.rows_again(run.fields, run.source, path, **reading)
    if not same:
        raise InputError(
            f"{rows.source} has other test rows than the run was tested on: put those back, or leave the scores out "
            "with --rows 0"
        )
    return dataclasses.replace(rows, test=rows.test[:count], labels=run.labels)


def check_machine(run):
    """Raises InputError if this machine cannot hold the base model in 4 bits."""
    if shortage := run.variant and checks.shortage(run.variant):
        raise InputError(f"{shortage} The scores before and after need it: leave them out with --rows 0")
