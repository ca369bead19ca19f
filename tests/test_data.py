"""Rows: what is read, dropped, split and thinned, and from where."""

import collections
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas
import pytest

from common import data, flags
from common.console import InputError

FRACTIONS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
LAST = {"text": "the only test row", "label": "a"}
needs_data = pytest.mark.skipif(not os.environ.get("DATA_DIR"), reason="DATA_DIR is not set")


def posts(*words):
    """The newsgroup data as a classification script reads them with these flags."""
    args = flags.classification(flags.training("")).parse_args([str(word) for word in words])
    return data.load(data.NEWSGROUPS, args, labelled=True)


def dialogues(*words):
    args = flags.summarization(flags.training("")).parse_args([str(word) for word in words])
    return data.load(data.SAMSUM, args, labelled=False)


def rows_of(counts, text="text", label="label"):
    """counts: rows of each class; all texts differ."""
    return [{text: f"{name} number {i}", label: name} for name, n in counts.items() for i in range(n)]


def write(path, rows):
    """Rows as a csv, json, jsonl or parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pandas.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".csv":
        with open(path, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        lines = [json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) if path.suffix == ".jsonl" else f"[{','.join(lines)}]")
    return path


def folder(path, train, test, first="train"):
    write(path / f"{first}.jsonl", train)
    write(path / "test.jsonl", test)
    return path


@pytest.mark.parametrize(
    "counts",
    [
        {"a": 200, "b": 200, "c": 200},
        {"a": 417, "b": 150, "c": 63, "d": 20, "e": 7, "f": 2},
        {"large": 1000, **{f"rare {i}": 1 for i in range(19)}},
    ],
    ids=["even", "uneven", "many rare classes"],
)
def test_subsets_are_nested_and_every_class_is_within_a_row_of_its_share(counts, tmp_path):
    source = folder(tmp_path, rows_of(counts), [{**LAST, "label": next(iter(counts))}])
    total, smaller = sum(counts.values()), []
    for fraction in sorted({*FRACTIONS, *(step / 40 for step in range(1, 41))}):
        rows = [row["text"] for row in posts("--data", source, "--train_sample_fraction", fraction).train]
        assert len(rows) == int(fraction * total)
        assert rows[: len(smaller)] == smaller
        found = collections.Counter(text.rsplit(" number ")[0] for text in rows)
        for name, n in counts.items():
            assert abs(found[name] - n * len(rows) / total) <= 1, (fraction, name)
        smaller = rows
    assert len(smaller) == total


def test_class_none_and_empty_rows_are_dropped_and_counted(tmp_path):
    odd = [
        {"text": "of no class", "label": "None"},
        {"text": "again of no class", "label": "None"},
        {"text": "", "label": "a"},
        {"text": " \n\t", "label": "a"},
        {"text": None, "label": "b"},
        {"text": "label unknown", "label": None},
        {"text": "", "label": "None"},
    ]
    loaded = posts("--data", folder(tmp_path, rows_of({"a": 3, "b": 3}) + odd, [LAST, {"text": "", "label": "a"}]))
    assert loaded.dropped == {"class None": 2, "empty": 6}
    assert (len(loaded.train), len(loaded.test), loaded.labels) == (6, 1, ["a", "b"])


def test_none_is_an_ordinary_word_in_a_summary(tmp_path):
    rows = [{"dialogue": f"A: {i}?", "summary": "None"} for i in range(10)]
    assert dialogues("--data", write(tmp_path / "rows.csv", rows)).dropped == {}


def test_training_rows_whose_text_is_in_the_test_rows_are_dropped_and_counted(tmp_path):
    same = ["the only test row", "The Only  TEST row", "\nthe only\ttest row "]
    train = rows_of({"a": 5, "b": 5}) + [{"text": text, "label": "b"} for text in same]
    loaded = posts("--data", folder(tmp_path, train, [LAST]))
    assert loaded.dropped == {"also in test": 3}
    assert len(loaded.train) == 10
    assert [row["text"] for row in loaded.test] == ["the only test row"]


def test_own_data_come_before_data_dir_and_the_demo_uses_the_sample(tmp_path, monkeypatch):
    own = folder(tmp_path / "own", rows_of({"a": 3, "mine": 3}), [LAST])
    folder(tmp_path / "all" / "newsgroup", rows_of({"a": 3, "theirs": 3}), [LAST])
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "all"))
    assert posts("--data", own).labels == ["a", "mine"]
    assert posts("--data", own, "--demo").labels == ["a", "mine"]
    assert posts().labels == ["a", "theirs"]
    assert "DATA_DIR" in posts().source
    assert posts("--demo").source == "sample (posts.jsonl)"


def test_with_no_data_anywhere_the_message_says_where_to_put_them(tmp_path):
    code = (
        "from common import data, flags;"
        "data.load(data.SAMSUM, flags.summarization(flags.training('')).parse_args([]), labelled=False)"
    )
    variables = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=data.SAMPLE.parent.parent,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "InputError: no data: DATA_DIR has no samsum/" in done.stderr
    assert "--data" in done.stderr
    assert "--demo" in done.stderr


def test_validation_rows_train_where_there_is_no_train_split_and_the_source_says_so(tmp_path):
    loaded = posts("--data", folder(tmp_path / "one", rows_of({"a": 3, "b": 3}), [LAST], first="validation"))
    assert len(loaded.train) == 6
    assert "train from validation.jsonl" in loaded.source
    both = folder(tmp_path / "two", rows_of({"a": 2, "b": 2}), [LAST], first="validation")
    write(both / "train.jsonl", rows_of({"a": 4, "b": 4}))
    assert len(posts("--data", both).train) == 8
    assert "train from train.jsonl" in posts("--data", both).source


ODD_TEXTS = [
    "NA",
    "null",
    "nan",
    "N/A",
    "None",
    "true",
    "007",
    "1.50",
    "2020-01-01",
    "1e5",
    'says "hi", twice',
    "a,b;c",
]
ODD_TEXTS += ["two\nlines", "naïve ☃ 東京", "'single'", "back\\slash", "a\tb", "line\u2028separator", "#hash", "=1+1"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json", ".parquet"])
def test_every_format_gives_the_same_rows_word_for_word(suffix, tmp_path):
    rows = [{"text": text, "label": ("NA", "null")[i % 2]} for i, text in enumerate(ODD_TEXTS)]
    loaded = posts("--data", folder_of(tmp_path, suffix, rows))
    assert loaded.labels == ["NA", "null"]
    assert {row["text"]: row["target"] for row in loaded.train} == {row["text"]: row["label"] for row in rows}
    reference = posts("--data", folder_of(tmp_path / "reference", ".jsonl", rows))
    assert loaded.summary()["sha256"] == reference.summary()["sha256"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json", ".parquet"])
def test_labels_of_digits_stay_text_and_outer_white_space_goes(suffix, tmp_path):
    rows = [{"text": f" post {i}\n", "date": ("007", " 010 ")[i % 2]} for i in range(20)]
    loaded = posts("--data", write(tmp_path / f"rows{suffix}", rows), "--label_column", "date")
    assert loaded.labels == ["007", "010"]
    assert {row["text"] for row in loaded.train + loaded.test} == {f"post {i}" for i in range(20)}


def folder_of(path, suffix, rows):
    write(path / f"train{suffix}", rows)
    write(path / f"test{suffix}", [{"text": "the only test row", "label": rows[0]["label"]}])
    return path


def test_own_column_names(tmp_path):
    rows = [{"id": str(i), **row} for i, row in enumerate(rows_of({"a": 20, "b": 20}, text="body", label="topic"))]
    loaded = posts("--data", write(tmp_path / "posts.csv", rows), "--text_column", "body", "--label_column", "topic")
    assert {(row["text"], row["target"]) for row in loaded.train + loaded.test} == {
        (row["body"], row["topic"]) for row in rows
    }
    chats = [{"chat": f"A: {i}?", "gist": f"A asks {i}"} for i in range(10)]
    words = ["--text_column", "chat", "--summary_column", "gist"]
    loaded = dialogues("--data", write(tmp_path / "chats.parquet", chats), *words)
    assert (len(loaded.train), len(loaded.test)) == (8, 2)
    assert {row["target"] for row in loaded.train + loaded.test} == {row["gist"] for row in chats}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "topic": "b"}] * 9, "no column label; its columns are text, topic"),
        ([{"text": "", "label": "a"}] * 9, "no rows left"),
        (rows_of({"a": 9}), "one class only"),
    ],
)
def test_unusable_data_are_refused_with_a_reason(rows, message, tmp_path):
    with pytest.raises(InputError, match=message):
        posts("--data", write(tmp_path / "posts.jsonl", rows))


def test_a_class_that_only_the_test_rows_have_is_refused(tmp_path):
    with pytest.raises(InputError, match="'c'"):
        posts("--data", folder(tmp_path, rows_of({"a": 3, "b": 3}), [{"text": "new", "label": "c"}]))


def test_the_hash_is_of_the_rows_and_nothing_else(tmp_path):
    rows = rows_of({"a": 10, "b": 10})
    first = posts("--data", folder(tmp_path / "first", rows, [LAST])).summary()["sha256"]
    again = posts("--data", folder(tmp_path / "again", rows, [LAST])).summary()["sha256"]
    rows[7]["text"] = rows[7]["text"].replace("number", "numbre")
    changed = posts("--data", folder(tmp_path / "changed", rows, [LAST])).summary()["sha256"]
    assert first == again != changed


def test_rows_and_subsets_do_not_depend_on_the_seed(tmp_path):
    source = write(tmp_path / "posts.csv", rows_of({"a": 40, "b": 60}))
    words = ["--data", source, "--train_sample_fraction", "0.5", "--max_test_samples", "7"]
    first, second = (posts(*words, "--seed", seed) for seed in (1, 2))
    assert (first.train, first.test) == (second.train, second.test)
    assert (len(first.train), len(first.test)) == (40, 7)


# The sample that this repository ships


def sample(name):
    return pandas.read_json(data.SAMPLE / f"{name}.jsonl", lines=True, dtype=False)


@pytest.mark.parametrize(
    ("name", "text"),
    [("posts", "text"), ("dialogues", "dialogue"), ("reviews", "text"), ("instructions", "instruction")],
)
def test_sample_rows_are_unique_and_in_one_split(name, text):
    frame = sample(name)
    assert set(frame["split"]) == {"train", "test"}
    assert frame["id"].is_unique
    texts = frame[text] if "input" not in frame else frame[text] + " " + frame["input"]
    assert texts.map(lambda value: " ".join(value.lower().split())).is_unique
    assert (frame[text].str.strip() != "").all()


def test_sample_posts_have_all_twenty_classes_in_both_splits():
    classes = sample("posts").groupby("split")["label"].unique().map(set)
    assert classes["train"] == classes["test"]
    assert len(classes["test"]) == 20


def test_sample_reviews_have_two_labels_in_both_splits():
    classes = sample("reviews").groupby("split")["label"].unique().map(set)
    assert classes["train"] == classes["test"] == {"positive", "negative"}


def test_nothing_of_the_sample_is_dropped():
    assert posts("--demo").dropped == dialogues("--demo").dropped == {}
    assert len(posts("--demo").labels) == 20


# The data sets themselves, where they are at hand


@needs_data
def test_twenty_newsgroups_has_twenty_classes_and_no_row_is_lost_uncounted():
    raw = pandas.concat(
        pandas.read_parquet(Path(os.environ["DATA_DIR"]) / "newsgroup" / f"{split}.parquet")
        for split in ("train", "test")
    )
    loaded = posts()
    assert loaded.labels == sorted(raw["label"].unique())
    assert len(loaded.labels) == 20
    assert loaded.dropped["empty"] == (raw["text"].fillna("").str.strip() == "").sum()
    assert len(loaded.train) + len(loaded.test) + sum(loaded.dropped.values()) == len(raw)


@needs_data
def test_every_row_of_class_none_is_dropped_from_the_cleaned_newsgroups():
    path = Path(os.environ["DATA_DIR"]) / "newsgroup_fixed" / "train-2774-with-None.parquet"
    raw = pandas.read_parquet(path).fillna("")
    empty = (raw["text"].str.strip() == "") | (raw["label"].str.strip() == "")
    none = (raw["label"] == "None") & ~empty
    assert (raw["label"] == "None").sum() == 108
    loaded = posts("--data", path)
    assert loaded.dropped["class None"] == none.sum()
    assert loaded.dropped.get("empty", 0) == empty.sum()
    assert len(loaded.labels) == 20
    assert len(loaded.train) + len(loaded.test) + sum(loaded.dropped.values()) == len(raw)


@needs_data
def test_samsum_is_scored_on_all_819_dialogues():
    loaded = dialogues()
    assert len(loaded.test) == 819
    assert "validation.parquet" in loaded.source
    assert not {row["text"] for row in loaded.train} & {row["text"] for row in loaded.test}
