"""Records: what a valid one is, that writing is all or nothing, what the command says."""

import copy
import json
import subprocess
import sys

import pytest

from common import metrics, records
from common.console import InputError

METRIC = {"value": 41.0, "ci95": [36.0, 46.0], "n": 300}
METRICS = {name: METRIC for name in ("accuracy", "macro_f1", *(f"generated_{each}" for each in metrics.OUTCOMES))}
RECORD = {
    "schema_version": 1,
    "status": "done",
    "model": "Mistral-7B",
    "checkpoint": "smollm2",
    "revision": None,
    "task": "classification",
    "method": "qlora",
    "setting": "train_sample_fraction=0.025",
    "arguments": {},
    "settings": {"epochs": 3},
    "seed": 42,
    "data": {
        "name": "newsgroup",
        "source": "made for a test",
        "sha256": "0" * 64,
        "n_train": 281,
        "n_test": 300,
        "truncated": {"train": 0, "test": 1},
        "dropped": {},
    },
    "metrics": METRICS,
    "metrics_before": METRICS,
    "training": {
        "seconds": 600.0,
        "tokens": 1000,
        "tokens_per_second": 1.7,
        "steps": 10,
        "loss": 0.5,
        "peak_memory_bytes": 2_000_000_000,
        "trainable_parameters": 100,
    },
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
        "git_commit": None,
        "git_dirty": None,
    },
    "started_at": "2024-01-01T00:00:00+00:00",
    "finished_at": "2024-01-01T00:10:00+00:00",
}
FIELDS = [(name,) for name in RECORD]
FIELDS += [
    (block, name) for block in ("data", "training", "inference", "cost", "environment") for name in RECORD[block]
]
FIELDS += [("metrics", "accuracy", name) for name in METRIC]


def record(**changes):
    """A valid record with some top-level fields replaced."""
    return copy.deepcopy(RECORD | changes)


def changed(path, value):
    """A record with the field at `path` replaced."""
    made = record()
    block = made
    for name in path[:-1]:
        block = block[name]
    block[path[-1]] = value
    return made


def test_a_record_with_unknown_values_as_null_is_valid():
    records.validate(record())
    records.validate(record(training=None, metrics_before=None))
    for name in RECORD["training"]:
        records.validate(changed(("training", name), None))
    for name in RECORD["inference"]:
        records.validate(changed(("inference", name), None))


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
        (("data", "n_test"), 0),
        (("data", "n_test"), None),
        (("data", "sha256"), "unknown"),
        (("data", "truncated"), None),
        (("metrics",), {}),
        (("metrics", "accuracy"), 41.0),
        (("metrics", "accuracy", "n"), 0),
        (("metrics", "accuracy", "ci95"), [36.0]),
        (("metrics", "accuracy", "value"), "41"),
        (("training", "loss"), "0.5"),
        (("status",), "fine"),
        (("seed",), None),
        (("finished_at",), None),
        (("schema_version",), 2),
    ],
    ids=str,
)
def test_a_value_of_the_wrong_kind_is_refused_and_its_field_is_named(path, value):
    with pytest.raises(InputError, match="/".join(path)):
        records.validate(changed(path, value))


def test_an_unknown_field_is_refused():
    with pytest.raises(InputError, match="'note' was unexpected"):
        records.validate(record(note="hello"))
    with pytest.raises(InputError, match="'note' was unexpected"):
        records.validate(changed(("data", "note"), "hello"))


def test_null_and_zero_stay_what_they_are(tmp_path):
    made = record(cost={"usd": 0, "price_per_hour": None, "instance": None})
    records.write_json(tmp_path / "record.json", made)
    found = records.read(tmp_path / "record.json")
    assert found == made
    assert found["cost"]["usd"] == 0
    assert found["cost"]["price_per_hour"] is None


def test_what_cannot_be_written_leaves_the_old_file_and_no_half_one(tmp_path):
    path = tmp_path / "record.json"
    records.write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        records.write_json(path, {"new": 2, "odd": object()})
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_made_and_the_old_file_is_replaced(tmp_path):
    path = tmp_path / "results" / "record.json"
    records.write_json(path, {"a": 1})
    records.write_json(path, {"a": "é"})
    assert path.read_text(encoding="utf-8") == '{\n "a": "é"\n}\n'
    assert list(path.parent.iterdir()) == [path]


def test_a_loss_that_is_not_a_number_is_written_as_unknown(tmp_path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    records.write_json(tmp_path / "record.json", {"loss": float("nan"), "losses": [1.0, float("inf")]})
    found = json.loads((tmp_path / "record.json").read_text(), parse_constant=refuse)
    assert found == {"loss": None, "losses": [1.0, None]}


def command(*words, cwd):
    done = subprocess.run(
        [sys.executable, "-m", "common.records", *words], cwd=cwd, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_tells_valid_records_from_others(tmp_path):
    records.write_json(tmp_path / "good.json", record())
    records.write_json(tmp_path / "bad.json", changed(("data", "n_test"), 0))
    (tmp_path / "half.json").write_text('{"schema_version": 1,')
    assert command("good.json", cwd=tmp_path) == (0, "good.json: valid\n", "")
    for words, mention in [
        (["good.json", "bad.json"], "data/n_test"),
        (["half.json"], "half.json is not a record"),
        (["none.json"], "none.json is not a record"),
        ([], "usage"),
    ]:
        code, _, error = command(*words, cwd=tmp_path)
        assert (code, error.count("\n")) == (2, 1)
        assert error.startswith("error: ")
        assert mention in error
