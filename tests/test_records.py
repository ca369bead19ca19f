"""Records: what a valid one is, that writing is all or nothing, what the command says."""

import copy
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, tool

from common import files, metrics, settings
from common.console import InputError
from common.runs import identity, records

SETTINGS = settings.Settings(
    train_sample_fraction=0.025,
    max_document_tokens=512,
    max_new_tokens=20,
    trainer="SFTTrainer",
    quantization="nf4, double",
    lora_r=8,
    lora_alpha=16,
    dropout=0.1,
    targets=("q_proj", "k_proj", "v_proj", "o_proj"),
    epochs=5,
    learning_rate=2e-4,
    lr_scheduler="constant",
    warmup_ratio=0.0,
    optimizer="adamw_torch",
    weight_decay=0.0,
    max_grad_norm=0.3,
    batch_size=8,
    micro_batch_size=4,
    keep="last",
)
IDENTITY = identity.Identity(
    kind="training",
    task="classification",
    checkpoint="mistralai/Mistral-7B-v0.1",
    revision="27d67f1b5f57dc0953326b2601d68371d40ea8da",
    format="plain",
    wording={"text": "{document}", "cue": "", "answer": " {answer}", "example": "", "extra": ""},
    data={
        "name": "newsgroup",
        "text_column": None,
        "target_column": None,
        "sha256": {"train": "0" * 64, "validation": None, "test": "1" * 64},
    },
    settings=SETTINGS.fields(),
    precision="auto",
)
METRIC = {"value": 41.0, "ci95": [36.0, 46.0], "n": 300}
METRICS = {name: METRIC for name in ("accuracy", "macro_f1", *(f"generated_{each}" for each in metrics.OUTCOMES))}
RECORD = {
    "schema_version": 2,
    "status": "done",
    "reason": None,
    "id": IDENTITY.id,
    "identity": IDENTITY.fields(),
    "model": "Mistral-7B",
    "script": "mistral/mistral_classification.py",
    "command": "python mistral/mistral_classification.py --train_sample_fraction 0.025",
    "data": {
        "source": "made for a test",
        "kind": "study",
        "n": {"train": 281, "validation": 0, "test": 300},
        "dropped": {},
        "truncated": {"train": 0, "test": 1},
    },
    "metrics": METRICS,
    "metrics_before": METRICS,
    "confusion": None,
    "training": {
        "seconds": 600.0,
        "tokens": 1000,
        "tokens_per_second": 1.7,
        "steps": 10,
        "loss": 0.5,
        "peak_memory_bytes": 2_000_000_000,
        "trainable_parameters": 100,
    },
    "estimate": None,
    "inference": {
        "seconds": 60.0,
        "samples_per_second": 5.0,
        "tokens_per_second": 20.0,
        "latency_p50_s": 1.0,
        "latency_p90_s": 2.0,
    },
    "cost": {"usd": None, "price_per_hour": None, "instance": None},
    "environment": {
        "python": "3.11",
        "packages": {"torch": None},
        "device": "CPU",
        "cpu_count": 2,
        "threads": 2,
        "precision": "float32",
        "git_commit": None,
        "git_dirty": None,
    },
    "started_at": "2024-01-01T00:00:00+00:00",
    "finished_at": "2024-01-01T00:10:00+00:00",
}
BLOCKS = ("identity", "data", "training", "inference", "cost", "environment")
FIELDS = [(name,) for name in RECORD]
FIELDS += [(block, name) for block in BLOCKS for name in RECORD[block]]
FIELDS += [("identity", "settings", name) for name in settings.Settings.names()]
FIELDS += [("identity", "data", "sha256", name) for name in ("train", "validation", "test")]
FIELDS += [("metrics", "accuracy", name) for name in METRIC]


def identified(made):
    """A record whose id is that of its identity."""
    return made | {"id": identity.digest(made["identity"])}


def record(**changes):
    """A valid record with some top-level fields replaced."""
    return identified(copy.deepcopy(RECORD | changes))


def changed(path, value):
    """A record with the field at `path` replaced, and the id that belongs to it."""
    made = record()
    block = made
    for name in path[:-1]:
        block = block[name]
    block[path[-1]] = value
    return identified(made) if path[0] == "identity" else made


def test_a_record_with_unknown_values_as_null_is_valid():
    records.validate(record())
    records.validate(record(training=None, metrics_before=None))
    for name in RECORD["training"]:
        records.validate(changed(("training", name), None))
    for name in RECORD["inference"]:
        records.validate(changed(("inference", name), None))


@pytest.mark.parametrize("name", ["cat's", "ça va", "a/b (c)", "猫"])
def test_a_class_has_any_name(name):
    """Two classes have an accuracy each, called by their names, which are the user's."""
    valid = record()
    valid["metrics"][f"accuracy_{name}"] = dict(next(iter(valid["metrics"].values())))
    records.validate(valid)
    valid["metrics"]["a\nb"] = valid["metrics"].pop(f"accuracy_{name}")
    with pytest.raises(InputError, match="metrics"):
        records.validate(valid)


def test_the_schema_knows_every_setting_and_no_other():
    schema = json.loads((ROOT / "common" / "runs" / "identity.schema.json").read_text())
    assert list(schema["properties"]["settings"]["properties"]) == settings.Settings.names()
    assert schema["properties"]["settings"]["required"] == settings.Settings.names()


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_a_missing_field_is_named(path):
    made = record()
    block = made
    for name in path[:-1]:
        block = block[name]
    del block[path[-1]]
    with pytest.raises(InputError, match=f"'{path[-1]}' is a required property"):
        records.validate(made)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("data", "n"), 0),
        (("data", "n", "test"), None),
        (("identity", "data", "sha256", "test"), "unknown"),
        (("data", "truncated"), None),
        (("metrics",), {}),
        (("metrics",), None),
        (("metrics", "accuracy"), 41.0),
        (("metrics", "accuracy", "n"), 0),
        (("metrics", "accuracy", "ci95"), [36.0]),
        (("metrics", "accuracy", "value"), "41"),
        (("training", "loss"), "0.5"),
        (("cost", "usd"), "free"),
        (("status",), "fine"),
        (("reason",), "why"),
        (("schema_version",), 1),
        (("identity", "task"), "translation"),
        (("identity", "settings", "lora_r"), "64"),
        (("identity", "settings", "targets"), "q_proj"),
        (("unheard_of",), 1),
        (("confusion",), {"base": {"labels": [], "counts": []}}),
        (("training", "curves"), {"step": [], "loss": [], "grad_norm": [], "learning_rate": []}),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else repr(value)[:20],
)
def test_a_field_of_the_wrong_kind_is_refused(path, value):
    with pytest.raises(InputError, match="field"):
        records.validate(changed(path, value))


@pytest.mark.parametrize("status", ["OOM", "failed"])
def test_a_run_that_did_not_end_well_says_why_and_has_no_scores(status):
    made = record(status=status, reason="memory", metrics=None, metrics_before=None, inference=None)
    records.validate(made)
    with pytest.raises(InputError, match="reason"):
        records.validate(made | {"reason": None})


def test_a_value_outside_its_own_interval_is_refused(tmp_path):
    files.write_json(tmp_path / "r.json", changed(("metrics", "accuracy", "value"), 50.0))
    with pytest.raises(InputError, match="accuracy lies outside its own interval"):
        records.checked(tmp_path / "r.json")


def test_an_id_that_is_not_of_the_fields_beside_it_is_refused(tmp_path):
    files.write_json(tmp_path / "r.json", record())
    assert records.checked(tmp_path / "r.json") == record()
    made = record()
    made["identity"]["settings"]["learning_rate"] = 0.1
    files.write_json(tmp_path / "r.json", made)
    with pytest.raises(InputError, match="changed by hand"):
        records.checked(tmp_path / "r.json")


@pytest.mark.parametrize("text", ["", "{", "[1]", '"record"', "[" * 100_000 + "]" * 100_000], ids=range(5))
def test_what_is_no_record_is_one_line(text, tmp_path):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(InputError, match=r"r\.json") as refused:
        records.checked(tmp_path / "r.json")
    assert "\n" not in str(refused.value)


def test_numbers_that_json_does_not_have_become_null(tmp_path):
    files.write_json(tmp_path / "r.json", {"a": float("nan"), "b": [float("inf"), (1.5, None)], "c": "NaN"})
    assert files.read_json(tmp_path / "r.json") == {"a": None, "b": [None, [1.5, None]], "c": "NaN"}


WRITER = """
import sys
from common import files
from common.runs import records
text = "x" * 20_000_000
while True:
    files.write_text(sys.argv[1], text + sys.argv[2])
"""


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "r.json"
    files.write_text(path, "old")
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(path), "new"], cwd=ROOT)
        deadline = time.monotonic() + 20
        while not list(tmp_path.glob(".r.json.*")) and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        text = path.read_text()
        assert text == "old" or (len(text) == 20_000_003 and text.endswith("new")), len(text)
        for half in tmp_path.glob(".r.json.*"):
            half.unlink()


def test_a_write_that_fails_leaves_the_old_file_and_no_half_one(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    files.write_json(path, {"a": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]


def test_the_run_of_a_folder_is_checked(tmp_path):
    told = {"schema_version": 2, "id": IDENTITY.id, "identity": IDENTITY.fields(), "source": "study"}
    told["started_at"] = "2024-01-01T00:00:00+00:00"
    files.write_json(tmp_path / "run.json", told)
    assert records.run_of(tmp_path) == told
    for broken in ({"id": "../../../x"}, {"identity": None}, {"source": 3}, {"more": 1}):
        files.write_json(tmp_path / "run.json", told | broken)
        with pytest.raises(InputError, match=r"run\.json"):
            records.run_of(tmp_path)


def test_the_folder_of_a_record_is_beside_it_or_under_experiments(tmp_path):
    assert records.folder(tmp_path / "out" / "record.json") == tmp_path / "out"
    assert records.folder(tmp_path / "m" / "results" / "a.json") == tmp_path / "m" / "experiments" / "a"


def test_the_command_names_what_is_wrong(tmp_path):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    files.write_json(good, record())
    files.write_json(bad, record() | {"model": 3})
    done = tool(ROOT, "records", str(good))
    assert (done.returncode, done.stdout) == (0, f"{good}: valid\n")
    done = tool(ROOT, "records", str(good), str(bad))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{bad}: field model" in done.stderr
    assert tool(ROOT, "records").returncode == 2


def test_every_record_here_is_valid_and_of_a_clean_commit():
    kept = sorted(ROOT.glob("*/results/*.json"))
    assert kept
    for path in kept:
        made = records.checked(path)
        assert made["environment"]["git_dirty"] is False, path
        assert made["data"]["kind"] == "study", path
