"""Rows: what is read, dropped, split and thinned, and from where."""

import collections
import csv
import glob
import gzip
import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas
import pytest

from common import data, rowfiles, splits
from common.console import InputError

FRACTIONS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
LAST = {"text": "the only test row", "label": "a"}
needs_data = pytest.mark.skipif(not os.environ.get("DATA_DIR"), reason="DATA_DIR is not set")


def posts(path=None, **rows):
    """The newsgroup data as a classification script reads them."""
    return data.load("classification", path=path and str(path), **rows)


def everything(loaded):
    return loaded.train + loaded.validation + loaded.test


def dialogues(path=None, **rows):
    return data.load("summarization", path=path and str(path), **rows)


def rows_of(counts, text="text", label="label"):
    """counts: rows of each class; all texts differ."""
    return [{text: f"{name} number {i}", label: name} for name, n in counts.items() for i in range(n)]


def write(path, rows):
    """Rows as a file of the kind that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        plain = write(path.with_suffix(""), rows)
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    elif path.suffix == ".parquet":
        pandas.DataFrame(rows).to_parquet(path)
    elif path.suffix in (".csv", ".tsv"):
        with open(path, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
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
        rows = [row["text"] for row in posts(source, train_sample_fraction=fraction).train]
        assert len(rows) == int(fraction * total)
        assert rows[: len(smaller)] == smaller
        found = collections.Counter(text.rsplit(" number ")[0] for text in rows)
        for name, n in counts.items():
            assert abs(found[name] - n * len(rows) / total) <= 1, (fraction, name)
        smaller = rows
    assert len(smaller) == total


def plain_spread(rows):
    """What splits.spread did when the committed records were made, one class at a time."""
    generator, members = random.Random(splits.SPLIT_SEED), {}
    for row in rows:
        members.setdefault(row["target"], []).append(row)
    for of_class in members.values():
        generator.shuffle(of_class)
    taken, ordered = dict.fromkeys(members, 0), []
    for size in range(1, len(rows) + 1):
        behind = [name for name in members if taken[name] * len(rows) < len(members[name]) * size]
        name = max(behind, key=lambda name: (len(members[name]) / (taken[name] + 1), generator.random()))
        ordered.append(members[name][taken[name]])
        taken[name] += 1
    return ordered


@pytest.mark.parametrize(
    "counts", [{"a": 50, "b": 50}, {"a": 417, "b": 63, "c": 7, "d": 1}, {str(i): 3 for i in range(77)}]
)
def test_the_order_of_rows_is_that_of_the_committed_records(counts):
    rows = rows_of(counts, label="target")
    assert splits.spread(rows, labelled=True) == plain_spread(rows)


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
    loaded = posts(folder(tmp_path, rows_of({"a": 3, "b": 3}) + odd, [LAST, {"text": "", "label": "a"}]))
    assert loaded.dropped == {"class None": 2, "empty": 6}
    assert (len(loaded.train), len(loaded.test), loaded.labels) == (6, 1, ["a", "b"])


def test_none_is_an_ordinary_word_in_a_summary(tmp_path):
    rows = [{"dialogue": f"A: {i}?", "summary": "None"} for i in range(10)]
    assert dialogues(write(tmp_path / "rows.csv", rows)).dropped == {}


def test_training_rows_whose_text_is_in_the_test_rows_are_dropped_and_counted(tmp_path):
    same = ["the only test row", "The Only  TEST row", "\nthe only\ttest row "]
    train = rows_of({"a": 5, "b": 5}) + [{"text": text, "label": "b"} for text in same]
    loaded = posts(folder(tmp_path, train, [LAST]))
    assert loaded.dropped == {"also in test": 3}
    assert len(loaded.train) == 10
    assert [row["text"] for row in loaded.test] == ["the only test row"]


def test_own_data_come_before_data_dir_and_the_demo_uses_the_sample(tmp_path, monkeypatch):
    own = folder(tmp_path / "own", rows_of({"a": 3, "mine": 3}), [LAST])
    folder(tmp_path / "all" / "newsgroup", rows_of({"a": 3, "theirs": 3}), [LAST])
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "all"))
    assert posts(own).labels == ["a", "mine"]
    assert posts(own, demo=True).labels == ["a", "mine"]
    assert posts().labels == ["a", "theirs"]
    assert "DATA_DIR" in posts().source
    assert posts(demo=True).source == "sample (posts.jsonl)"


READ = (
    "import sys, time; from common import console, data\n"
    "start = time.monotonic()\n"
    "code = console.exit_code(lambda: data.load('summarization') and None)\n"
    "print('seconds', time.monotonic() - start)\n"
    "sys.exit(code)"
)
LOADING = 15  # seconds for importing datasets on a busy machine


def read_elsewhere(tmp_path, **variables):
    """A process of its own reads SAMSum: (what went to stderr, seconds, exit code)."""
    kept = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "DATA_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", READ],
        cwd=data.SAMPLE.parent.parent,
        env=kept | {"HF_HOME": str(tmp_path / "hf")} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr, float(done.stdout.split()[-1]), done.returncode


def test_with_no_data_anywhere_the_message_says_where_to_put_them(tmp_path):
    stderr, _, code = read_elsewhere(tmp_path, HF_HUB_OFFLINE="1", DATA_DIR=str(tmp_path))
    assert code == 2
    assert stderr.startswith("error: no data: DATA_DIR has no samsum/")
    assert "--data" in stderr
    assert "--demo" in stderr


NETWORKS = {
    "refused": "def connect(*a): raise OSError('no network in this test')\nsocket.socket.connect = connect\n"
    "socket.getaddrinfo = connect",
    "no name is ever found": "import time\nsocket.getaddrinfo = lambda *a, **k: time.sleep(60)",
}


@pytest.mark.parametrize("network", NETWORKS)
def test_without_a_network_the_hub_is_one_line_in_a_few_seconds(network, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import socket\n" + NETWORKS[network])
    stderr, seconds, code = read_elsewhere(tmp_path, PYTHONPATH=str(tmp_path))
    assert (code, stderr.count("\n")) == (2, 1), stderr
    assert "DATA_DIR is not set" in stderr
    assert "the hub does not answer" in stderr
    assert seconds < 3 + LOADING


def test_a_hub_that_takes_connections_and_never_answers_is_one_line_in_a_few_seconds(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        stderr, seconds, code = read_elsewhere(tmp_path, HF_ENDPOINT=address, NO_PROXY="127.0.0.1")
    assert (code, stderr.count("\n")) == (2, 1), stderr
    assert "the hub does not answer" in stderr
    assert seconds < 3 + LOADING


def test_a_folder_of_other_data_does_not_switch_the_hub_off(tmp_path, monkeypatch):
    folder(tmp_path / "newsgroup", rows_of({"a": 3, "b": 3}), [LAST])
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    assert data.at_hand("classification")
    assert not data.at_hand("summarization")
    assert data.at_hand("summarization", demo=True)
    assert data.at_hand("summarization", path="mine.csv")
    monkeypatch.delenv("DATA_DIR")
    assert not data.at_hand("classification")


def test_validation_rows_train_where_there_is_no_train_split_and_the_source_says_so(tmp_path):
    loaded = posts(folder(tmp_path / "one", rows_of({"a": 3, "b": 3}), [LAST], first="validation"))
    assert len(loaded.train) == 6
    assert "train from validation.jsonl" in loaded.source
    both = folder(tmp_path / "two", rows_of({"a": 2, "b": 2}), [LAST], first="validation")
    write(both / "train.jsonl", [{**row, "text": f"new {row['text']}"} for row in rows_of({"a": 4, "b": 4})])
    assert len(posts(both).train) == 8
    assert "train from train.jsonl" in posts(both).source


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


@pytest.mark.parametrize("suffix", rowfiles.SUFFIXES)
def test_every_format_gives_the_same_rows_word_for_word(suffix, tmp_path):
    rows = [{"text": text, "label": ("NA", "null")[i % 2]} for i, text in enumerate(ODD_TEXTS)]
    loaded = posts(folder_of(tmp_path, suffix, rows))
    assert loaded.labels == ["NA", "null"]
    assert {row["text"]: row["target"] for row in loaded.train} == {row["text"]: row["label"] for row in rows}
    reference = posts(folder_of(tmp_path / "reference", ".jsonl", rows))
    assert loaded.sha256 == reference.sha256


@pytest.mark.parametrize("suffix", rowfiles.SUFFIXES)
def test_labels_of_digits_stay_text_and_outer_white_space_goes(suffix, tmp_path):
    rows = [{"text": f" post {i}\n", "date": ("007", " 010 ")[i % 2]} for i in range(20)]
    loaded = posts(write(tmp_path / f"rows{suffix}", rows), target_column="date")
    assert loaded.labels == ["007", "010"]
    assert {row["text"] for row in everything(loaded)} == {f"post {i}" for i in range(20)}


def test_a_compressed_parquet_is_read_whatever_it_is_called(tmp_path):
    rows = [{"text": f"post {i}", "label": "ab"[i % 2]} for i in range(20)]
    packed = write(tmp_path / "rows.parquet.gz", rows)
    (tmp_path / "rows.parquet").write_bytes(packed.read_bytes())
    assert posts(tmp_path / "rows.parquet").sha256 == posts(packed).sha256


def folder_of(path, suffix, rows):
    write(path / f"train{suffix}", rows)
    write(path / f"test{suffix}", [{"text": "the only test row", "label": rows[0]["label"]}])
    return path


def test_own_column_names(tmp_path):
    rows = [{"id": str(i), **row} for i, row in enumerate(rows_of({"a": 20, "b": 20}, text="body", label="topic"))]
    loaded = posts(write(tmp_path / "posts.csv", rows), text_column="body", target_column="topic")
    assert {(row["text"], row["target"]) for row in everything(loaded)} == {(row["body"], row["topic"]) for row in rows}
    chats = [{"chat": f"A: {i}?", "gist": f"A asks {i}"} for i in range(10)]
    loaded = dialogues(write(tmp_path / "chats.parquet", chats), text_column="chat", target_column="gist")
    assert loaded.columns == {"text": "chat", "target": "gist"}
    assert (len(loaded.train), len(loaded.test)) == (8, 2)
    assert {row["target"] for row in everything(loaded)} == {row["gist"] for row in chats}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "topic": "b"}] * 9, "no column label; its columns are 'text', 'topic'"),
        ([{"text": "", "label": "a"}] * 9, "no rows left"),
        (rows_of({"a": 9}), "one class only"),
    ],
)
def test_unusable_data_are_refused_with_a_reason(rows, message, tmp_path):
    with pytest.raises(InputError, match=message):
        posts(write(tmp_path / "posts.jsonl", rows))


def test_a_class_that_only_the_test_rows_have_is_refused(tmp_path):
    with pytest.raises(InputError, match="'c'"):
        posts(folder(tmp_path, rows_of({"a": 3, "b": 3}), [{"text": "new", "label": "c"}]))


def test_the_hash_of_a_split_is_of_its_rows_and_nothing_else(tmp_path):
    rows = rows_of({"a": 10, "b": 10})
    first = posts(folder(tmp_path / "first", rows, [LAST]))
    again = posts(folder(tmp_path / "again", rows, [LAST]))
    half = posts(tmp_path / "first", train_sample_fraction=0.5)
    rows[7]["text"] = rows[7]["text"].replace("number", "numbre")
    changed = posts(folder(tmp_path / "changed", rows, [LAST]))
    assert first.sha256 == again.sha256
    assert first.sha256["validation"] is None
    for other in (half, changed):
        assert other.sha256["train"] != first.sha256["train"]
        assert other.sha256["test"] == first.sha256["test"]


def test_rows_know_no_seed_and_are_read_once(tmp_path):
    source = str(write(tmp_path / "posts.csv", rows_of({"a": 40, "b": 60})))
    asked = {"path": source, "train_sample_fraction": 0.5, "max_test_samples": 7}
    first = data.newsgroups(**asked)
    assert (len(first.train), len(first.test)) == (35, 7)
    assert data.of_task("classification", demo=False, **asked) is first
    assert data.newsgroups(path=source) is not first
    with pytest.raises(TypeError):
        data.newsgroups(path=source, seed=1)


# Own data


def test_own_data_have_their_own_name_and_are_no_study(tmp_path, monkeypatch):
    made = folder(tmp_path / "newsgroup", rows_of({"a": 3, "b": 3}), [LAST])
    file = write(tmp_path / "mine.csv", rows_of({"a": 10, "b": 10}))
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    found = [posts(made), posts(file), posts(file, demo=True), posts(demo=True), posts()]
    assert [(each.name, each.kind) for each in found] == [
        *[("newsgroup", "own"), ("mine.csv", "own"), ("mine.csv", "own")],
        *[("sample", "sample"), ("newsgroup", "study")],
    ]


TARGETS = {"classification": "label", "sentiment": "label", "summarization": "summary", "instructions": "output"}


@pytest.mark.parametrize("task", data.TASKS)
def test_own_data_for_every_task_with_columns_named_by_flags(task, tmp_path):
    rows = [{"body": f"text {i}", "wanted": ("yes", "no")[i % 2]} for i in range(20)]
    loaded = data.of_task(task, path=str(write(tmp_path / "x.csv", rows)), text_column="body", target_column="wanted")
    labelled = data.TASKS[task][1]
    assert loaded.n == (
        {"train": 14, "validation": 2, "test": 4} if labelled else {"train": 16, "validation": 0, "test": 4}
    )
    assert loaded.labels == (["no", "yes"] if data.TASKS[task][1] else [])
    assert loaded.columns == {"text": "body", "target": "wanted"}


def test_own_instructions_keep_an_input_where_there_is_one(tmp_path):
    rows = [{"instruction": f"do {i}", "input": f"with {i}", "output": "done"} for i in range(10)]
    loaded = data.load("instructions", path=str(write(tmp_path / "x.jsonl", rows)))
    assert all(row["input"].split()[1] == row["text"].split()[1] for row in everything(loaded))
    loaded = data.load("instructions", path=str(tmp_path / "x.jsonl"), text_column="input")
    assert all(row["text"].startswith("with") and not row.get("input") for row in loaded.train)


@pytest.mark.parametrize("suffix", rowfiles.FORMATS)
def test_a_label_of_numbers_becomes_text_also_where_one_is_missing(suffix, tmp_path):
    rows = [{"text": f"post {i}", "label": i % 3} for i in range(30)]
    for some in (rows, [*rows, {"text": "unknown", "label": None}]):
        loaded = posts(write(tmp_path / f"x{suffix}", some))
        assert loaded.labels == ["0", "1", "2"]
        assert {row["text"]: row["target"] for row in everything(loaded)} == {
            f"post {i}": str(i % 3) for i in range(30)
        }
    halves = [{**row, "label": row["label"] + 0.1} for row in rows]
    assert posts(write(tmp_path / f"x{suffix}", halves)).labels == ["0.1", "1.1", "2.1"]


def test_own_data_have_2_to_1000_classes(tmp_path):
    many = rows_of({f"class {i}": 5 for i in range(1000)})
    start = time.monotonic()
    loaded = posts(write(tmp_path / "many.jsonl", many))
    assert time.monotonic() - start < 20
    assert loaded.n == {"train": 3500, "validation": 500, "test": 1000}
    assert len(loaded.labels) == len({row["target"] for row in loaded.test}) == 1000
    with pytest.raises(InputError, match="1001 classes"):
        posts(write(tmp_path / "more.jsonl", many + rows_of({"one more": 5})))


def test_the_only_row_of_a_class_is_trained_on(tmp_path):
    loaded = posts(write(tmp_path / "x.jsonl", rows_of({"a": 50, "b": 50, "rare": 1})))
    assert loaded.labels == ["a", "b", "rare"]
    assert [row["target"] for row in loaded.train].count("rare") == 1


def test_own_validation_rows_are_a_file_of_theirs_and_in_no_other_split(tmp_path):
    made = folder(tmp_path, rows_of({"a": 20, "b": 20}), [LAST])
    assert posts(made).validation == []
    same = [{"text": "a number 3", "label": "a"}, {"text": "THE only test row", "label": "a"}]
    write(made / "validation.csv", [{"text": f"new {i}", "label": "ab"[i % 2]} for i in range(10)] + same)
    loaded = posts(made)
    assert loaded.n == {"train": 39, "validation": 11, "test": 1}
    assert loaded.dropped == {"also in test": 1, "also in validation": 1}
    assert "validation from validation.csv" in loaded.source
    assert loaded.sha256["validation"]
    half = posts(made, max_train_samples=20)
    assert half.validation == loaded.validation[:6]  # thinned as the training rows are, rounded up
    assert posts(made, max_train_samples=20, max_validation_samples=2).validation == loaded.validation[:2]


@pytest.mark.parametrize("given", [{"path": ""}, {"path": " "}, {"text_column": ""}, {"target_column": ""}])
def test_an_empty_name_is_not_taken_for_none(given, tmp_path):
    source = str(write(tmp_path / "x.csv", rows_of({"a": 5, "b": 5})))
    with pytest.raises(InputError, match="an empty text names nothing"):
        data.load("classification", **{"path": source, **given})


def test_one_column_cannot_be_text_and_target(tmp_path):
    source = write(tmp_path / "x.csv", rows_of({"a": 5, "b": 5}))
    for given in ({"text_column": "label"}, {"target_column": "text"}, {"text_column": "x", "target_column": "x"}):
        with pytest.raises(InputError, match="both the text and the target"):
            posts(source, **given)


GOOD = "text,label\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(9))
BROKEN = {
    "empty.csv": b"",
    "head.csv": b"text,label\n",
    "half latin.csv": GOOD.encode() + "naïve,a\n".encode() + b"caf\xe9,a\n",
    "ragged.csv": GOOD.encode() + b"1,2,3,4\n",
    "binary.csv": bytes(range(256)) * 20,
    "binary.tsv": bytes(range(256)) * 20,
    "binary.parquet": bytes(range(256)) * 20,
    "cut.csv.gz": gzip.compress(GOOD.encode() * 50)[:40],
    "cut.jsonl.gz": gzip.compress(b'{"text": "a", "label": "b"}\n' * 50)[:30],
    "cut.parquet.gz": gzip.compress(bytes(range(256)) * 20)[:90],
    "empty.json": b"",
    "number.json": b"7",
    "list.json": b"[1, 2]",
    "torn.json": b'[{"text": "a", "label"',
    "deep.json": b"[" * 100_000 + b"]" * 100_000,
    "deep.jsonl": b'{"text": ' * 100_000 + b"1" + b"}" * 100_000,
    "huge.json": b'[{"text": "a", "label": 1' + b"0" * 400 + b"}]",
    "torn.jsonl": b'{"text": "a", "label": "b"}\n{"text',
    "numbers.jsonl": b"1\n2\n",
    "lists.jsonl": b'{"text": ["a", "b"], "label": "c"}\n{"text": ["d"], "label": "e"}\n',
    "objects.jsonl": b'{"text": {"a": 1}, "label": "c"}\n{"text": {"a": 2}, "label": "e"}\n',
    "surrogate.jsonl": b'{"text": "a \\ud800", "label": "c"}\n{"text": "b", "label": "d"}\n',
    "words.txt": b"text label",
    "rows.csv.zip": b"PK",
    "nosuffix": GOOD.encode(),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_as_bad_input(name, tmp_path):
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(InputError):
        posts(tmp_path / name)


@pytest.mark.parametrize("name", ["nothing.csv", "a\0b.csv", "x" * 5000, "~nobody/x.csv", "/dev/null"])
def test_a_path_that_is_no_file_is_refused_as_bad_input(name):
    with pytest.raises(InputError, match="no file or folder"):
        posts(name)


# Data sets that are pooled and split anew


def reviews(path, n=200):
    """A folder with IMDB's files: a tenth of the texts stands twice, once in each file."""
    rows = [{"text": f"review {i} was {'ab'[i % 2]}", "label": ("negative", "positive")[i % 2]} for i in range(n)]
    folder(path / "imdb", rows[: n // 2], rows[n // 2 :] + rows[: n // 10])
    return path


def test_reviews_are_split_70_10_20_balanced_and_no_review_stands_in_two_splits(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(reviews(tmp_path)))
    found = data.load("sentiment")
    assert found.n == {"train": 140, "validation": 20, "test": 40}
    assert found.dropped == {"duplicate": 20}
    assert len({splits.key(row) for row in everything(found)}) == len(everything(found)) == 200
    for rows in (found.train, found.validation, found.test):
        assert abs(sum(row["target"] == "positive" for row in rows) - len(rows) / 2) <= 1


def test_limits_take_the_first_rows_and_validation_rows_are_thinned_as_training_rows(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(reviews(tmp_path)))
    whole = data.load("sentiment")
    found = data.load("sentiment", max_train_samples=90, max_validation_samples=10, max_test_samples=25)
    assert found.n == {"train": 90, "validation": 10, "test": 25}
    assert (found.train, found.test) == (whole.train[:90], whole.test[:25])
    assert found.validation == whole.validation[:10]
    assert data.load("sentiment", train_sample_fraction=0.31).n == {"train": 43, "validation": 7, "test": 40}


def test_own_test_rows_are_never_trained_on(tmp_path):
    found = data.load("sentiment", path=str(reviews(tmp_path) / "imdb"))
    assert found.n == {"train": 80, "validation": 0, "test": 120}
    assert not {splits.key(row) for row in found.test} & {splits.key(row) for row in found.train}


def test_a_tenth_is_held_out_no_row_stands_twice_and_inputs_stay_with_their_instruction(tmp_path, monkeypatch):
    made = [{"instruction": f"do {i % 95}", "input": f"with {i % 95}", "output": f"done {i}"} for i in range(100)]
    write(tmp_path / "alpaca" / "train.jsonl", made)
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    found = data.load("instructions")
    assert (len(found.train), len(found.test), found.dropped) == (86, 9, {"duplicate": 5})
    assert len({splits.key(row) for row in found.train + found.test}) == 95
    assert all(row["input"].split()[1] == row["text"].split()[1] for row in found.train + found.test)
    assert all(int(row["target"].split()[1]) < 95 for row in found.train + found.test)  # of equal ones the first


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
    assert posts(demo=True).dropped == dialogues(demo=True).dropped == {}
    assert len(posts(demo=True).labels) == 20


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
    assert len(everything(loaded)) + sum(loaded.dropped.values()) == len(raw)


@needs_data
def test_every_row_of_class_none_is_dropped_from_the_cleaned_newsgroups():
    path = Path(os.environ["DATA_DIR"]) / "newsgroup_fixed" / "train-2774-with-None.parquet"
    raw = pandas.read_parquet(path).fillna("")
    empty = (raw["text"].str.strip() == "") | (raw["label"].str.strip() == "")
    none = (raw["label"] == "None") & ~empty
    assert (raw["label"] == "None").sum() == 108
    loaded = posts(path)
    assert loaded.dropped["class None"] == none.sum()
    assert loaded.dropped.get("empty", 0) == empty.sum()
    assert len(loaded.labels) == 20
    assert len(everything(loaded)) + sum(loaded.dropped.values()) == len(raw)


@needs_data
def test_samsum_is_scored_on_all_819_dialogues():
    loaded = dialogues()
    assert len(loaded.test) == 819
    assert "validation.parquet" in loaded.source
    assert not {row["text"] for row in loaded.train} & {row["text"] for row in loaded.test}


@needs_data
def test_rows_are_those_of_every_committed_record():
    rows_of = {}
    for path in glob.glob(str(data.SAMPLE.parent.parent / "*" / "results" / "*.json")):
        record = json.loads(Path(path).read_text())
        task, n = record["identity"]["task"], record["data"]["n"]
        if record["data"].get("kind", "study") != "study":
            continue
        asked = (task, *n.items())
        if asked not in rows_of:
            rows_of[asked] = data.of_task(task, **{f"max_{split}_samples": number for split, number in n.items()})
        loaded = rows_of[asked]
        assert record["identity"]["data"]["sha256"] == loaded.sha256, path
        assert loaded.dropped == record["data"]["dropped"], path
    assert rows_of


@needs_data
def test_no_real_review_stands_in_two_splits():
    found = data.imdb()
    keys = [{splits.key(row) for row in rows} for rows in (found.train, found.validation, found.test)]
    assert sum(map(len, keys)) == len(set.union(*keys)) == sum(found.n.values())
    assert found.labels == ["negative", "positive"]
