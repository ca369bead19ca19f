"""The identity of a run: everything that can change its numbers, and a hash of it.

Paths, --resume, sweeps and tables use the hash and the fields; nothing is matched by formatted text.
"""

import dataclasses
import functools
import hashlib
import json

from common import data

LIMITS = ("train_sample_fraction", "max_train_samples", "max_validation_samples", "max_test_samples")  # of rows


@dataclasses.dataclass(frozen=True)
class Identity:
    """Everything that can change a number of a run. It leaves out the rest: place, tracker, inference batch size."""

    kind: str  # "training", "baseline" or "inference"
    task: str  # "classification", "summarization", "sentiment" or "instructions"
    checkpoint: str  # its name, as in --pretrained_ckpt
    revision: str | None  # the hub's commit, the package's version, or a digest of local files
    format: str  # "plain", "chat" or "encoder"
    wording: dict  # fields of the prompt's encoding.Template
    data: dict  # {"name", "text_column", "target_column", "sha256": {split: digest or None}}
    settings: dict  # settings.Settings.fields
    precision: str  # the flag's value; the record's environment has the one that was used
    trained: dict | None = None  # of an inference: {"id", "sha256"} of its training and the trained weights

    @functools.cached_property
    def id(self):
        return digest(self.fields())

    def fields(self):
        """The fields as a dict, as in a record. A sweep calls this for thousands of cells, so nothing is copied."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def digest(fields):
    """Ten hexadecimal digits that differ when any field differs."""
    canonical = json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def method(fields):
    """The study's name of a run's method, from the fields of its identity: "qlora+neftune", "few-shot", …"""
    settings = fields["settings"]
    for name in ("prompt_type", "baseline"):
        if fields["kind"] == "baseline" and settings[name]:
            return settings[name]
    if settings["head"]:
        return f"{settings['head']}-head"
    if settings["lora_r"] is None:
        words = ["full-finetune"] + ["loop"] * (settings["trainer"] == "loop")
    else:
        words = ["qlora" if settings["quantization"] else "lora"]
    words += ["neftune"] * bool(settings["neftune"])
    return "+".join(words + ["all-modules"] * settings["full_tune"])


def flat(fields):
    """The fields of an identity as a flat dict: settings and data under their own names, digests as "train rows", …"""
    data = fields["data"]
    rows = {f"{split} rows": value for split, value in data["sha256"].items()}
    columns = {name: data[name] for name in ("name", "text_column", "target_column")}
    rest = {name: value for name, value in fields.items() if name not in ("settings", "data", "wording", "trained")}
    wording = {"wording": digest(fields["wording"]), "trained": (fields["trained"] or {}).get("id")}
    return rest | wording | {"data": columns.pop("name")} | columns | rows | fields["settings"]


def differences(one, other):
    """{name: (value of one, value of the other)} of the fields in which two identities differ."""
    one, other = flat(one), flat(other)
    return {name: (one.get(name), other.get(name)) for name in one | other if one.get(name) != other.get(name)}


def rows_again(fields, source, path=None, **reading):
    """(the data.Data of a run's rows, read again; whether its test rows are still the same). fields: of its identity;
    source: "study", "own" or "sample"; path: of own data; reading: its encoding, delimiter and label_names, if the run
    was told them. Raises InputError if they cannot be read."""
    request = {name: fields["settings"][name] for name in LIMITS}
    request |= {name: fields["data"][name] for name in ("text_column", "target_column")}
    rows = data.of_task(fields["task"], path=path, demo=source == "sample", **request, **reading)
    return rows, rows.sha256["test"] == fields["data"]["sha256"]["test"]
