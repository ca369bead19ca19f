"""`python -m common look`: what it says of a file is what a training does with it."""

import collections
import csv
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import browser
import numpy
import pandas
import pytest
from conftest import ROOT

from common import console, data, look, metrics
from common.look import advice, baselines, guess, kept, page, survey
from common.runs import folders

WORDS = ["card", "money", "account", "refund", "login", "screen", "crash", "slow", "price", "order", "parcel", "late"]
WORDS += ["gift", "return", "code", "error"]


def sentence(generator, label, words=9):
    return f"{' '.join(generator.choices(WORDS, k=words))} {label} {generator.randrange(10**6)}"


def tickets(n=300, classes=("billing", "delivery", "support"), seed=0, right=0.8):
    generator = random.Random(seed)
    rows = []
    for i in range(n):
        label = classes[i % len(classes)]
        hint = label if generator.random() < right else generator.choice(classes)
        rows.append({"message": sentence(generator, hint), "team": label})
    return rows


def write(path, rows, **keywords):
    frame = pandas.DataFrame(rows)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False, **keywords)
    return path


def wilson(share, n, z=1.959964):
    """Wilson's interval in percent, from its formula."""
    centre, half = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return [100 * (centre + sign * half) / (1 + z * z / n) for sign in (-1, 1)]


@pytest.fixture
def quick(monkeypatch, capsys):
    """quick(file, "--flag", …) -> (record or None, stdout, stderr, code): look without tokens, example and commands."""
    monkeypatch.setattr(look, "measured", lambda advisor, record, rows, show: None)
    monkeypatch.setattr(page, "rendered", lambda record: page.MARK)

    def run(path, *words):
        data._load_cached.cache_clear()  # a process reads a file once
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            code = console.exit_code(look.main, [str(path), *map(str, words)])
        except SystemExit as left:
            code = left.code
        out, err = capsys.readouterr()
        file = kept.record_path(path)
        return json.loads(file.read_text()) if code == 0 and file.exists() else None, out, err, code

    return run


def assert_refused(done, *mentions):
    _, _, err, code = done
    assert code == 2, err
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    for mention in mentions:
        assert mention in err


# Guesses


def guessed(path, task=None, text=None, **targets):
    source = next(iter(look.opened(path, look.parser().parse_args([str(path)])).values()))
    every = dict.fromkeys(look.TASKS) | targets
    return guess.choose(source, guess.profiles(source), task, text, every)


def banking(generator):
    names = [f"intent_{i}" for i in range(77)]
    return [{"query": sentence(generator, "x"), "kind": generator.choice(names)} for _ in range(800)]


def stars(generator):
    row = lambda i: {  # noqa: E731
        "review_id": f"r{i}",
        "date": f"2024-0{i % 9 + 1}-1{i % 3}",
        "helpful": generator.randrange(5),
        "title": sentence(generator, "t", 3),
        "review": sentence(generator, "r", 30),
        "stars": generator.randint(1, 5),
    }
    return [row(i) for i in range(300)]


def dialogues(generator, n=60):
    turns = lambda: "\n".join(f"{name}: {sentence(generator, name)}" for name in ("Ann", "Bob") * 4)  # noqa: E731
    return [{"id": i, "dialogue": turns(), "summary": sentence(generator, "both")} for i in range(n)]


def instructions(generator, n=80):
    return [
        {"instruction": sentence(generator, "do"), "input": "", "output": sentence(generator, "done", 20)}
        for _ in range(n)
    ]


def unnamed(generator):
    uuid = lambda: "-".join(f"{generator.randrange(16**4):04x}" for _ in range(8))  # noqa: E731
    row = lambda i: {  # noqa: E731
        "a": uuid(),
        "b": sentence(generator, "x", 20),
        "c": generator.choice("uvw"),
        "d": f"2024-01-{i % 9 + 10}",
    }
    return [row(i) for i in range(200)]


def sorted_rows(generator):
    return [{"body": sentence(generator, "x"), "label": label} for label in ("no", "yes") for _ in range(6000)]


def without_spaces(generator):
    return [
        {"x": "".join(chr(generator.randrange(0x4E00, 0x9000)) for _ in range(15)), "y": generator.choice("ab")}
        for _ in range(100)
    ]


def few(generator):
    return [{"message": f"{label} number {i}", "team": label} for i, label in enumerate(["x", "y", "x", "y"])]


def places(generator):
    """Names: single words that hardly repeat, of few kinds."""
    word = lambda: "".join(generator.choices("abcdefgh", k=7)).title()  # noqa: E731
    return [{"place": word(), "country": generator.choice(["Peru", "Chad", "Fiji"])} for _ in range(200)]


@pytest.mark.parametrize(
    ("make", "name", "task", "text", "target"),
    [
        (banking, "a.csv", "classification", "query", "kind"),
        (stars, "a.csv", "classification", "review", "stars"),
        (dialogues, "a.parquet", "summarization", "dialogue", "summary"),
        (instructions, "a.jsonl", "instructions", "instruction", "output"),
        (unnamed, "a.csv", "classification", "b", "c"),
        (sorted_rows, "a.csv", "classification", "body", "label"),
        (without_spaces, "a.csv", "classification", "x", "y"),
        (few, "a.csv", "classification", "message", "team"),
        (places, "a.csv", "classification", "place", "country"),
    ],
)
def test_the_columns_are_guessed(make, name, task, text, target, tmp_path):
    choice = guessed(write(tmp_path / name, make(random.Random(1))))
    assert (choice.task, choice.columns) == (task, {"text": text, "target": target})
    assert choice.guessed == ("task", "text", "target")


def test_a_flag_overrules_every_guess(tmp_path):
    file = write(tmp_path / "a.csv", stars(random.Random(1)))
    choice = guessed(file, text="title", classification="HELPFUL")
    assert (choice.task, choice.columns) == ("classification", {"text": "title", "target": "helpful"})
    assert choice.guessed == ()
    assert guessed(file, task="summarization", summarization="title").columns == {"text": "review", "target": "title"}


@pytest.mark.parametrize(
    ("rows", "words", "mentions"),
    [
        ([{"a": "x y z", "b": "u", "c": "v"}] * 9, [], ("a, b, c", "--text_column", "--label_column")),
        ([{"text": f"some text {i}", "m": i % 3, "n": i % 4} for i in range(90)], [], ("text, m, n", "--label_column")),
        ([{"text": f"some text {i}", "label": i % 3} for i in range(90)], ["--text_column", "no"], ("text, label",)),
        (
            [{"text": f"some text {i}", "label": i % 3} for i in range(90)],
            ["--task", "summarization", "--label_column", "label"],
            ("--label_column", "--task summarization"),
        ),
    ],
    ids=["nothing fits", "two that fit", "no such column", "flags of two tasks"],
)
def test_a_guess_that_fails_names_the_columns_and_the_flags(rows, words, mentions, tmp_path, quick):
    file = write(tmp_path / "a.csv", rows)
    assert_refused(quick(file, *words), *mentions)
    assert os.listdir(tmp_path) == ["a.csv"]


# Rows, against counts made by hand and by pandas

ODD = [  # (cells as written, reason, line that a duplicate repeats)
    ("the first text,a", None, None),  # line 2
    ('"two lines\nof text",b', None, None),  # lines 3 and 4
    (",a", "empty", None),  # line 5
    ("The  FIRST text ,a", "duplicate", 2),  # line 6
    ("   ,b", "empty", None),
    ("a third text,None", "class None", None),
    ("the first text,b", "duplicate", 2),  # line 9: another label
    ("a fourth text,", "empty", None),
    ('"two lines of text",b', "duplicate", 3),
]


def odd_file(path, more=40):
    lines = ["text,label", *(cells for cells, _, _ in ODD)]
    lines += [f"more text number {i},{'ab'[i % 2]}" for i in range(more)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_dropped_rows_have_their_line_and_their_reason(tmp_path, quick):
    record, out, _, _ = quick(odd_file(tmp_path / "odd.csv"))
    line, expected = 2, []
    for cells, reason, first in ODD:
        if reason:
            expected.append({"line": line, "reason": reason} | ({"first": first} if first else {}))
        line += 1 + cells.count("\n")
    assert record["dropped"]["rows"] == expected
    assert record["dropped"]["counts"] == {"empty": 3, "class None": 1, "duplicate": 3}
    assert "line 9: duplicate of line 2" in out
    assert record["rows"]["read"] == {"odd.csv": len(ODD) + 40}
    assert record["rows"]["used"] == 42
    assert record["classes"]["rows"] == {"a": 21, "b": 21}


def test_conflicts_are_equal_texts_with_different_labels(tmp_path, quick):
    record, _, _, _ = quick(odd_file(tmp_path / "odd.csv"))
    assert (record["conflicts"]["texts"], record["conflicts"]["rows"]) == (1, 3)
    rows = [(row["line"], row["label"]) for row in record["conflicts"]["examples"][0]]
    assert rows == [(2, "a"), (6, "a"), (9, "b")]


def test_counts_agree_with_pandas_and_with_the_training(tmp_path, quick):
    generator = random.Random(3)
    rows = [{"text": sentence(generator, "x", 2)[:14], "label": generator.choice("abcd")} for _ in range(4000)]
    for row in generator.sample(rows, 60):
        row["text"] = generator.choice(["", "  ", row["text"].upper()])
    file = write(tmp_path / "many.csv", rows)
    record, _, _, _ = quick(file)
    frame = pandas.read_csv(file, keep_default_na=False)
    usable = frame[frame.text.str.strip() != ""]
    keys = usable.text.str.lower().str.split().str.join(" ")
    assert record["duplicates"] == keys.duplicated().sum() > 100
    labels = usable.groupby(keys).label.nunique()
    assert record["conflicts"]["texts"] == (labels > 1).sum() > 50
    assert record["conflicts"]["rows"] == keys.isin(labels[labels > 1].index).sum()
    assert record["classes"]["rows"] == usable[~keys.duplicated()].label.value_counts().to_dict()
    loaded = data.load("classification", path=str(file))
    assert record["dropped"]["counts"] == loaded.dropped
    assert record["rows"]["used"] == sum(loaded.n.values()) == sum(record["splits"]["rows"].values())
    assert record["splits"]["rows"] == loaded.n


def test_a_folder_has_texts_in_both_splits(tmp_path, quick):
    folder = tmp_path / "mine"
    folder.mkdir()
    rows = tickets(60)
    write(folder / "test.csv", rows[:10])
    write(folder / "validation.csv", [rows[0], *rows[10:15]])
    write(folder / "train.csv", [rows[3], rows[12], *rows[15:], rows[20]])
    record, out, _, _ = quick(folder)
    loaded = data.load("classification", path=str(folder), text_column="message", target_column="team")
    assert record["dropped"]["counts"] == loaded.dropped == {"also in test": 2, "also in validation": 1}
    assert {(row["file"], row["line"], row["reason"]) for row in record["dropped"]["rows"]} == {
        ("validation.csv", 2, "also in test"),
        ("train.csv", 2, "also in test"),
        ("train.csv", 3, "also in validation"),
    }
    assert record["in_both_splits"] == 3
    assert record["duplicates"] == 1  # of rows[20]; it stays, as in the training
    assert record["rows"]["used"] == sum(loaded.n.values())
    assert record["splits"]["kept_in"] is None
    assert not data.split_record(folder).exists()
    assert "3 texts are in more than one file" in out


def test_at_most_a_thousand_dropped_rows_are_listed_and_all_are_counted(tmp_path, quick):
    rows = tickets(100) + [{"message": "", "team": "billing"}] * 1200
    record, out, _, _ = quick(write(tmp_path / "a.csv", rows))
    assert record["dropped"]["counts"] == {"empty": 1200}
    assert [row["line"] for row in record["dropped"]["rows"]] == list(range(102, 1102))
    assert "1,190 more" in out


def test_names_of_labels_are_those_of_the_training(tmp_path, quick):
    rows = [{**row, "team": i % 3} for i, row in enumerate(tickets(90))]
    (tmp_path / "names.txt").write_text("zero\none\ntwo\n")
    file = write(tmp_path / "a.csv", rows)
    record, _, _, _ = quick(file, "--label_names", tmp_path / "names.txt")
    assert record["classes"]["rows"] == {"one": 30, "two": 30, "zero": 30}


def test_a_sample_is_uniform_and_repeats():
    hits = collections.Counter()
    for trial in range(3000):
        reservoir = survey.Reservoir(5)
        reservoir.generator.seed(trial)
        for row in range(40):
            reservoir.offer(row)
        assert len(set(reservoir.rows)) == 5
        hits.update(reservoir.rows)
    counts = numpy.array([hits[row] for row in range(40)])
    assert ((counts - 375) ** 2 / (375 * 7 / 8)).sum() < 75  # chi-square, 39 degrees: above in 1 of 2,000 cases
    one, two = survey.Reservoir(7), survey.Reservoir(7)
    for row in range(500):
        one.offer(row)
        two.offer(row)
    assert one.rows == two.rows


# The split


def test_the_split_is_reused_and_test_rows_stay_when_rows_are_added(tmp_path, quick):
    rows = tickets(200)
    file = write(tmp_path / "a.csv", rows)
    columns = {"path": str(file), "text_column": "message", "target_column": "team"}
    before = data.load("classification", **columns)
    record, _, _, _ = quick(file)
    assert record["splits"]["kept_in"] == "a.csv.split.json"
    after = data.load("classification", **columns)
    assert after.sha256 == before.sha256  # the same rows in the same order: the same run
    content = data.split_record(file).read_bytes()
    gone = before.test.pop()["text"]
    write(file, tickets(50, seed=9) + [row for row in rows[::-1] if row["message"] != gone])
    grown = data.load("classification", **columns)
    texts = lambda part: {row["text"] for row in part}  # noqa: E731
    assert texts(grown.test) == texts(before.test)
    assert texts(grown.validation) == texts(before.validation)
    assert len(grown.train) == len(before.train) + 50
    record, _, _, _ = quick(file)
    assert record["splits"]["rows"] == grown.n
    assert data.split_record(file).read_bytes() == content  # also the digest of the row that is gone


def test_a_split_of_another_column_is_named(tmp_path, quick):
    rows = [{**row, "subject": f"re: {row['message'][:20]}"} for row in tickets(60)]
    file = write(tmp_path / "a.csv", rows)
    assert quick(file, "--text_column", "subject")[3] == 0
    assert_refused(quick(file, "--text_column", "message"), "a.csv.split.json", "subject")


@pytest.mark.parametrize("name", ["a.csv.look.json", "a.csv.split.json"])
@pytest.mark.parametrize("content", ["{}", "[1, 2]", "no json"])
def test_nothing_of_the_users_is_replaced(name, content, tmp_path, quick):
    file = write(tmp_path / "a.csv", tickets(60))
    (tmp_path / name).write_text(content)
    assert_refused(quick(file), name)
    assert (tmp_path / name).read_text() == content
    assert sorted(os.listdir(tmp_path)) == sorted(["a.csv", name])


def test_a_page_of_the_users_is_not_replaced(tmp_path, quick):
    file = write(tmp_path / "a.csv", tickets(60))
    (tmp_path / "mine.html").write_text("<p>mine")
    assert_refused(quick(file, "--html", tmp_path / "mine.html"), "mine.html")
    for _ in range(2):  # its own page it does replace
        assert quick(file, "--html", tmp_path / "page.html")[3] == 0
    assert_refused(quick(file, "--html", tmp_path / "none" / "page.html"), "none")


@pytest.mark.parametrize("name", ["minilm", "no/such/model", "./nothing"])
def test_a_model_that_cannot_write_or_is_not_there_is_refused_before_anything_is_written(name, tmp_path, quick):
    file = write(tmp_path / "a.csv", tickets(60))
    assert_refused(quick(file, "--pretrained_ckpt", name), name)
    assert os.listdir(tmp_path) == ["a.csv"]


def test_another_model_that_writes_is_in_the_commands(tiny_folder, tmp_path):
    file = write(tmp_path / "a.csv", tickets(60))
    args = look.parser().parse_args([str(file), "--pretrained_ckpt", str(tiny_folder)])
    advisor = advice.Advisor(args, guessed(file), file, [], 0)
    steps = advisor.steps()
    assert steps[2].words == ["--pretrained_ckpt", str(tiny_folder)]
    assert advisor.writing(steps).checkpoint.name == str(tiny_folder)


def test_no_save_writes_nothing(tmp_path, quick):
    file = write(tmp_path / "a.csv", tickets(60))
    assert quick(file, "--no_save")[3] == 0
    assert os.listdir(tmp_path) == ["a.csv"]


def test_a_folder_that_cannot_be_written_is_one_warning_a_file(tmp_path, quick, monkeypatch):
    def refuse(path, value):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(kept.files, "write_json", refuse)
    _, out, err, code = quick(write(tmp_path / "a.csv", tickets(60)))
    assert code == 0
    assert [line.split()[0] for line in err.splitlines()] == ["warning:"] * 2
    assert "baseline TF-IDF" in out


def test_many_rows_are_judged_by_a_sample_and_counted_in_full(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(kept, "LOADED_ROWS", 1000)
    monkeypatch.setattr(kept, "SAMPLE", 1000)
    rows = [{**row, "team": i % 3} for i, row in enumerate([*tickets(2000), {"message": ""}])]
    file = write(tmp_path / "a.csv", rows, encoding="utf-16-le", sep="|")
    (tmp_path / "names.json").write_text('{"0": "zero", "1": "one", "2": "two"}')
    words = ["--encoding", "utf-16-le", "--delimiter", "|", "--label_names", tmp_path / "names.json"]
    record, out, _, _ = quick(file, *words)
    assert record["rows"]["used"] == 2000
    assert record["dropped"]["rows"] == [{"line": 2002, "reason": "empty"}]
    assert record["splits"]["sampled"]
    assert record["splits"]["rows"] == {"train": 700, "validation": 100, "test": 200}
    assert record["splits"]["kept_in"] is None
    assert record["classes"]["rows"] == {"two": 666, "one": 667, "zero": 667}
    assert "of a sample" in out
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "a.csv.look.json", "names.json"]


# Baselines


def test_baselines_are_those_of_scikit_learn_on_the_training_split(tmp_path, quick):
    from sklearn.dummy import DummyClassifier
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    file = write(tmp_path / "a.csv", tickets(400, right=0.3))  # so hard that the regularisation matters
    record, _, _, _ = quick(file)
    rows = data.load("classification", path=str(file), text_column="message", target_column="team")
    x, y = ([[row[name] for row in part] for part in (rows.train, rows.test)] for name in ("text", "target"))
    words = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=20.0, max_iter=2000))
    for found, model in zip(record["baselines"], (DummyClassifier(), words), strict=True):
        share = model.fit(x[0], y[0]).score(x[1], y[1])
        accuracy = found["metrics"]["accuracy"]
        assert accuracy["value"] == pytest.approx(100 * share, abs=1e-3)
        assert accuracy["n"] == len(rows.test) == found["n"]["test"]
        assert accuracy["ci95"] == pytest.approx(wilson(share, len(rows.test)), abs=0.01)
    assert record["verdict"].startswith("TF-IDF + logistic regression reaches ")


def test_the_regression_of_the_baseline_script_is_the_same(tmp_path):
    """encoders.probe.of_words is what --baseline tfidf fits."""
    from common import qlora
    from common.encoders import probe, reader
    from common.evaluation import Timing

    file = write(tmp_path / "a.csv", tickets(240, right=0.3))
    words = ["--data", str(file), "--text_column", "message", "--label_column", "team", "--baseline", "tfidf"]
    run = folders.experiment(ROOT / "minilm" / "minilm_baseline_inference.py").resolve(words)
    encoded = reader(qlora.tokenizer(run.checkpoint), run.template, run.settings)
    scored = probe.probe(run.checkpoint, encoded, run.data, run.settings, run.execution, Timing())
    assert scored == probe.of_words(run.data, run.settings.seed)


def made(train, test, labels=()):
    about = {"name": "x", "source": "x", "kind": "own", "columns": {}, "dropped": {}}
    return data.Data(**about, train=train, test=test, labels=list(labels))


def test_the_first_sentences_have_a_summarys_length_and_rouge_is_the_records():
    text = "One two three four. Five six seven eight. Nine ten eleven twelve. Thirteen."
    rows = [{"text": text, "target": "a b c d e f g h"}] * 4
    (found,) = baselines.of(made(rows, rows[:3]))
    assert found["name"] == "first 2 sentences"
    expected = metrics.rouge(["One two three four. Five six seven eight."] * 3, ["a b c d e f g h"] * 3)
    assert found["metrics"]["rouge1"]["value"] == expected["rouge1"]["value"]
    chat = [{"text": "Ann: hello there\nBob: hi\nAnn: bye", "target": "Ann greets"}] * 3
    assert next(baselines.of(made(chat, chat)))["name"] == "first utterance"


def test_a_verdict_says_when_the_test_rows_cannot_show_a_gain():
    metric = lambda value, low, high: {"accuracy": {"value": value, "ci95": [low, high], "n": 9}}  # noqa: E731
    of = lambda *numbers: baselines.sentence([{"name": "B", "metrics": metric(*numbers), "seconds": 2.0}], "label")  # noqa: E731
    assert of(83.1, 80.2, 85.7) == "B reaches 83.1 [80.2, 85.7] in 2.0 s: a tuned model has to beat that."
    assert "touches 100" in of(100.0, 98.2, 100.0)


def test_texts_without_a_word_have_no_regression(tmp_path, quick):
    rows = [{"text": chr(0x1F600 + i), "label": "ab"[i % 2]} for i in range(60)]
    record, _, err, code = quick(write(tmp_path / "a.csv", rows))
    assert code == 0
    assert [each["name"] for each in record["baselines"]] == ["most frequent class"]
    assert "TF-IDF" in err


# Times and commands


def plan(limit, token=0.001, test=1000, train=3500, epochs=10):
    """A Plan of an encoder with rows of 100 tokens."""
    experiment = folders.experiment(ROOT / "minilm" / "minilm_classification.py")
    rows = made([{}] * train, [{}] * test)
    run = type("Run", (), {"settings": experiment.settings.replaced({"epochs": epochs}), "data": rows})
    run.is_encoder, run.execution = True, type("Execution", (), {"stages": ("tuned",)})
    job = type("Job", (), {"tokens": epochs * train * 100, "settings": run.settings, "batches": [(16, 100, 16)]})
    pace = type("Pace", (), {"token": token, "step": 0.0})
    return advice.Plan(advice.Step("", None, [], run, limit), job, pace, 1.0, 30)


def test_a_command_is_cut_to_its_limit_by_test_rows_then_epochs_then_rows():
    free = plan(None)
    assert free.cut() == []
    assert free.training() == pytest.approx(3500)
    for token in (1e-6, 1e-4, 2e-4, 1e-3, 4e-3):
        one = plan(240, token)
        words = one.cut()
        assert one.seconds() <= 240
        assert words[::2] == [
            flag for flag in ("--max_test_samples", "--epochs", "--max_train_samples") if flag in words
        ]
    assert plan(240, 1e-6).cut() == []
    assert plan(240, 2e-4).cut() == ["--epochs", "3", "--max_train_samples", "3300"]
    slow = plan(240, 1.0)
    assert slow.cut() == ["--max_test_samples", "50", "--epochs", "3", "--max_train_samples", "100"]


def test_fewer_keeps_two_digits():
    assert [advice.fewer(rows, share, 50) for rows, share in ((1000, 0.1234), (9999, 0.99), (60, 0.1), (40, 0.1))] == [
        120,
        9800,
        50,
        40,
    ]


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    """A finished look at a small file, as users start it: stdout, record, page."""
    home = tmp_path_factory.mktemp("look it up")  # the blank has to be quoted in commands
    rows = tickets(90)
    rows[4]["message"] += " <script>alert(1)</script> & <img src=x onerror=alert(2)>"
    file = home / "my rows.csv"
    pandas.DataFrame(rows).to_csv(file, index=False, sep=";", encoding="cp1252")
    file.write_bytes(
        file.read_bytes().replace(b"message;", b"message;", 1).replace(b"card", "c\xe9rd".encode("cp1252"))
    )
    words = [file.name, "--html", "page.html", "--max_document_tokens", "40"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "common", "look", *words],
        cwd=home, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done.home, done.environment = home, environment
    done.record = json.loads((home / "my rows.csv.look.json").read_text())
    return done


def test_a_look_shows_everything_and_warns_once(looked):
    assert looked.stderr.count("\n") == 1
    assert "Windows-1252" in looked.stderr
    for words in ("delimiter semicolon", "cp1252", "team (guessed)", "dropped  0 rows", "loss on: ", "3. "):
        assert words in looked.stdout
    assert set(looked.record) == {
        "schema_version", "written_by", "file", "task", "columns", "guessed", "because", "rows", "dropped",
        "duplicates", "in_both_splits", "conflicts", "classes", "splits", "baselines", "verdict", "tokens", "example",
        "commands", "seconds",
    }  # fmt: skip
    readme = (ROOT / "common" / "look" / "README.md").read_text()
    assert [name for name in looked.record if f"`{name}`" not in readme] == []
    assert len(json.dumps(looked.record)) < 20_000


def test_the_example_is_what_training_reads_with_the_loss_on_the_answer(looked):
    from common import encoding

    command = shlex.split(looked.record["commands"][2]["command"])
    experiment = folders.experiment(looked.home / command[1])
    words = [str(looked.home / word) if word == "my rows.csv" else word for word in command[2:]]
    run = experiment.resolve(words)
    prompter = encoding.prompter(run.tokenizer, run.template, run.format, run.settings, run.data.labels)
    (row,) = encoding.training_rows(prompter, run.data.train[:1])
    begins = sum(label == -100 for label in row["labels"])
    example = looked.record["example"]
    assert example["prompt"] == run.tokenizer.decode(row["input_ids"][:begins])
    assert example["answer"] == run.tokenizer.decode(row["input_ids"][begins:])
    assert example["answer"].startswith(run.data.train[0]["target"])
    assert example["tokens"] == [begins, len(row["input_ids"]) - begins]
    assert f'loss on: "{example["answer"]}"' in looked.stdout


def test_tokens_are_the_tokenizers_and_the_share_that_is_cut(looked):
    from common import checkpoints, qlora

    rows = data.load(
        "classification", path=str(looked.home / "my rows.csv"), text_column="message", target_column="team"
    )
    for found, special in zip(looked.record["tokens"], (False, True), strict=True):
        tokenizer = qlora.tokenizer(checkpoints.find(found["checkpoint"]))
        counts = [
            len(tokenizer(row["text"], add_special_tokens=special)["input_ids"])
            for row in rows.train + rows.validation + rows.test
        ]
        assert found["text"]["max"] == max(counts)
        assert found["text"]["median"] == round(float(numpy.median(counts)))
        assert found["limit"] == 40
        assert found["cut"] == pytest.approx(sum(count > 40 for count in counts) / len(counts))


def test_the_commands_are_right_for_their_scripts_and_run_as_printed(looked):
    commands = [each["command"] for each in looked.record["commands"]]
    assert len(set(commands)) == 3
    for each in looked.record["commands"]:
        words = shlex.split(each["command"])
        experiment = folders.experiment(looked.home / words[1])
        args = experiment.arguments(words[2:])
        assert (args.text_column, args.label_column, args.encoding) == ("message", "team", "cp1252")
        assert each["seconds"] > 0
        assert 5e8 < each["memory_bytes"] < 2e10
        assert each["command"] in looked.stdout
    line = commands[1].replace("python", shlex.quote(sys.executable), 1)
    done = subprocess.run(
        f"{line} --dry_run plan", shell=True, cwd=looked.home, env=looked.environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "split as in my rows.csv.split.json" in done.stdout
    assert not done.stderr  # the encoding is named, so nobody warns


@pytest.mark.slow
def test_the_second_command_gives_a_tuned_score(looked, tmp_path):
    line = looked.record["commands"][1]["command"].replace("python", shlex.quote(sys.executable), 1)
    done = subprocess.run(
        f"{line} --output_dir {shlex.quote(str(tmp_path / 'out'))}", shell=True, cwd=looked.home,
        env=looked.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert record["data"]["n"]["test"] == looked.record["splits"]["rows"]["test"]


def test_with_a_gpu_the_largest_model_that_fits_is_the_third_command(tmp_path, monkeypatch):
    file = write(tmp_path / "a.csv", tickets(60))
    args = look.parser().parse_args([str(file)])
    choice = guessed(file)
    advisor = advice.Advisor(args, choice, file, [], 0)
    largest = {}
    for size in (1e9, 4.5e9, 80e9):
        advisor.gpu = True
        monkeypatch.setattr(advice.memory, "available_here", lambda size=size: size)
        step = advisor.steps()[2]
        largest[size] = step.run.variant.parameters
        assert step.run.kind == "training"
    assert largest[1e9] < 1e9 < largest[80e9]
    assert largest[1e9] <= largest[4.5e9] <= largest[80e9]
    figures = [each for each in advice.report.known_defaults() if each["task"] == "classification"]
    single = [each["parameters"] for each in figures if "--" not in each["command"]]
    assert largest[80e9] == pytest.approx(max(single), rel=0.01)


@pytest.mark.parametrize(("make", "name", "scripts"), [
    (dialogues, "a.parquet", ("baseline_inference", "summarization", "summarization")),
    (instructions, "a.jsonl", ("instructions", "instructions", "instructions")),
])  # fmt: skip
def test_tasks_with_free_text_have_scripts_of_models_that_write(make, name, scripts, tmp_path):
    file = write(tmp_path / name, make(random.Random(0)))
    advisor = advice.Advisor(look.parser().parse_args([str(file)]), guessed(file), file, [], 0)
    steps = advisor.steps()
    assert tuple(Path(step.experiment.file).stem.split("_", 1)[1] for step in steps) == scripts
    assert not any(step.run.is_encoder for step in steps)
    assert advisor.writing(steps).data.n == steps[1].run.data.n


# The page


def test_the_page_is_one_file_without_scripts_and_shows_texts_as_text(looked):
    html = (looked.home / "page.html").read_text()
    assert html.startswith(f"<!doctype html>\n{page.MARK}")
    assert not re.search(r"<script|<img|<iframe|<link rel=\"stylesheet|@import|url\(|https?://", html)
    record = json.loads(json.dumps(looked.record))
    record["example"]["prompt"] = "<script>alert(1)</script> & <img src=x onerror=alert(2)>"
    record["classes"]["rows"] = {"<b>bold</b>": 3}
    shown = page.rendered(record)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;img" in shown
    assert "<b>bold" not in shown
    assert "<script" not in shown
    assert record["verdict"] in shown


def test_the_page_opens_in_a_browser(looked, tmp_path_factory):
    with browser.opened(tmp_path_factory.mktemp("browser")) as one:
        one.send("Runtime.enable")
        one.open((looked.home / "page.html").as_uri())
        assert one.value("document.querySelector('mark:last-of-type') !== null")
        assert looked.record["verdict"] in one.value("document.body.innerText")
        assert one.dialogs == 0
        one.look(380, 800)
        assert one.value("document.documentElement.scrollWidth <= innerWidth")  # a phone scrolls down, not sideways


# Large files


def large_file(path, megabytes):
    """A csv of about `megabytes`, with a duplicate and an empty text in every 1,000 rows."""
    generator, size, rows = random.Random(0), 0, 0
    blocks = [" ".join(generator.choices(WORDS, k=60)) for _ in range(200)]
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "text", "label"])
        while size < megabytes * 1e6:
            text = f"{rows} {generator.choice(blocks)} {generator.choice(blocks)[:100]}"
            text = {7: "", 8: "the same text"}.get(rows % 1000, text)
            writer.writerow([rows, text, f"class {rows % 5}"])
            size, rows = size + len(text) + 16, rows + 1
    return rows


WITHOUT_MODELS = """
from common import look
from common.look import kept
look.measured, kept.LOADED_ROWS, kept.SAMPLE = lambda *rest: None, 1_000, 2_000
look.main(["big.csv"])
"""


def measured_process(words, home):
    """(return code, seconds, bytes of the highest resident set) of a process."""
    began = time.monotonic()
    process = subprocess.Popen(
        words, cwd=home, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    return process.returncode, time.monotonic() - began, usage.ru_maxrss * 1024


def test_a_file_leaves_few_bytes_a_row_in_memory(tmp_path):
    rows = large_file(tmp_path / "big.csv", 60)
    small = tmp_path / "small"
    small.mkdir()
    large_file(small / "big.csv", 2)
    words = [sys.executable, "-c", WITHOUT_MODELS]
    _, _, floor = measured_process(words, small)
    code, seconds, peak = measured_process(words, tmp_path)
    assert code == 0
    record = json.loads((tmp_path / "big.csv.look.json").read_text())
    assert record["rows"]["read"] == {"big.csv": rows}
    assert record["dropped"]["counts"]["empty"] == len(range(7, rows, 1000))
    assert record["duplicates"] == len(range(8, rows, 1000)) - 1
    assert seconds < 60
    assert peak < floor + 40e6, (peak, floor)  # the texts alone are 60 MB


@pytest.mark.slow
def test_500_mb_within_two_minutes_and_2_gb(tmp_path):
    large_file(tmp_path / "big.csv", 500)
    assert (tmp_path / "big.csv").stat().st_size > 480e6
    code, seconds, peak = measured_process([sys.executable, "-m", "common", "look", "big.csv"], tmp_path)
    print(f"\n{seconds:.0f} s, {peak / 1e9:.2f} GB")
    assert code == 0
    assert seconds < 120
    assert peak < 2e9


def test_an_interruption_is_one_line_and_leaves_nothing(tmp_path):
    large_file(tmp_path / "big.csv", 30)
    process = subprocess.Popen(
        [sys.executable, "-m", "common", "look", "big.csv"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while b"reading" not in os.read(process.stderr.fileno(), 1 << 16):
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert os.listdir(tmp_path) == ["big.csv"]


def test_help_answers_at_once(tmp_path):
    words = [sys.executable, "-m", "common", "look", "--help"]
    seconds = min(measured_process(words, tmp_path)[1] for _ in range(3))
    assert seconds < 1
