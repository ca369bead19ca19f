"""Own data from a file to answers in a file: the wording, the labels' names, what is written and refused, a kill."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import inprocess
import pyarrow
import pyarrow.parquet
import pytest
from conftest import ROOT

from common import data, encoding, evaluation, splits
from common.console import InputError
from common.runs import folders

SCRIPTS = {task: f"mistral/mistral_{task}{{}}.py" for task in ("classification", "summarization")}
WORDS = ("engine", "doctor", "goalie", "planet")


def tickets(path, n=60, labels=("0", "1")):
    """A semicolon-separated file with codes for labels and a column that nobody asks for."""
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=";")
        writer.writerow(["Ticket ", "Body", "kind"])
        for i in range(n):
            writer.writerow([1000 + i, f"ticket {i}; the {WORDS[i % len(labels)]}\nis broken", labels[i % len(labels)]])
    return path


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory):
    """(folder of a tiny Mistral trained on own rows, its record, the file of the rows)."""
    place = tmp_path_factory.mktemp("own")
    file, names, folder = tickets(place / "tickets.csv"), place / "names.txt", place / "run"
    names.write_text("hardware\nhealth\n")
    words = ["--data", file, "--text_column", "body", "--label_column", "kind", "--label_names", names]
    words += ["--instruction", "Which department is it for?", "--pretrained_ckpt", tiny_folder, "--epochs", "1"]
    words += ["--output_dir", folder, "--no_before", "--precision", "float32", "--lora_r", "4"]
    command = [sys.executable, SCRIPTS["classification"].format(""), *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads((folder / "record.json").read_text()), file


def answered(folder, *words):
    script = SCRIPTS["classification"].format("_inference")
    return inprocess.start(ROOT / script, "--experiment_dir", folder, "--precision", "float32", *words)


def test_own_rows_are_asked_about_in_the_users_words_with_the_labels_names(trained):
    _, record, _ = trained
    wording = record["identity"]["wording"]
    assert wording["text"].startswith(
        "Which department is it for? The answer is exactly one of these classes:\n{labels}"
    )
    assert "newsgroup" not in json.dumps(wording)
    assert record["confusion"]["tuned"]["labels"] == ["hardware", "health"]
    assert record["data"]["n"] == {"train": 42, "validation": 6, "test": 12}
    assert (record["data"]["kind"], record["identity"]["data"]["name"]) == ("own", "tickets.csv")
    assert record["metrics"]["ece"]["n"] == 12


def test_many_classes_are_not_listed_in_the_prompt(tmp_path):
    script, labels = folders.experiment(str(ROOT / SCRIPTS["classification"].format(""))), [f"c{i}" for i in range(31)]
    rows = [f'{{"text": "t {i}", "label": "{labels[i % 31]}"}}' for i in range(310)]
    (tmp_path / "x.jsonl").write_text("\n".join(rows))
    asked = script.resolve(["--data", str(tmp_path / "x.jsonl")]).template.text
    assert asked == "Classify the text below. The answer is a class's name.\n\n{examples}### Text:\n{document}"


def test_a_study_and_an_encoder_keep_their_wording(tmp_path):
    tickets(tmp_path / "x.csv")
    with pytest.raises(InputError, match="needs --data"):
        folders.experiment(str(ROOT / "mistral/mistral_sentiment.py")).resolve(["--demo", "--instruction", "Rate it."])
    for script in ("minilm/minilm_classification.py", "mistral/mistral_classification.py"):
        words = ["--data", str(tmp_path / "x.csv"), "--text_column", "Body", "--label_column", "kind"]
        found = folders.experiment(str(ROOT / script)).resolve(words).template.text
        assert found == "{document}" if "minilm" in script else "### Text:" in found
    with pytest.raises(InputError, match=r"leave \{labels\} out"):
        encoding.own_template("One of {labels}, please")


def test_rows_keep_their_order_and_columns_and_get_their_answers(trained, tmp_path):
    folder, _, _ = trained
    lines = [{"n": i, "body": f"the {WORDS[i % 2]} no. {i}", "price": 1.5, "tags": ["a"]} for i in range(9)]
    lines[4]["body"] = " "
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = answered(folder, "--input", tmp_path / "new.jsonl", "--output", tmp_path / "out.jsonl")
    assert done.code == 0, done.err
    assert "1 rows have no text (line 5)" in done.err
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [{name: row[name] for name in lines[0]} for row in rows] == lines
    assert rows[4]["predicted"] is rows[4]["probability"] is rows[4]["probabilities"] is None
    for row in rows[:4] + rows[5:]:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert row["probability"] == max(row["probabilities"].values()) == row["probabilities"][row["predicted"]]
    alone = answered(folder, "--text", lines[7]["body"]).out.strip().splitlines()[-2:]
    assert alone == [f"{label}  {rows[7]['probabilities'][label]:.1%}" for label in (
        sorted(rows[7]["probabilities"], key=rows[7]["probabilities"].get, reverse=True))]  # fmt: skip
    table = pyarrow.Table.from_pylist([{"body": line["body"], "n": line["n"]} for line in lines])
    pyarrow.parquet.write_table(table, tmp_path / "new.parquet")
    done = answered(folder, "--input", tmp_path / "new.parquet", "--output", tmp_path / "out.csv")
    assert done.code == 0, done.err
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as stream:
        cells = list(csv.DictReader(stream))
    assert [cell["n"] for cell in cells] == [str(i) for i in range(9)]
    assert [cell["predicted"] for cell in cells] == [row["predicted"] or "" for row in rows]
    assert json.loads(cells[0]["probabilities"]) == rows[0]["probabilities"]
    assert not list(tmp_path.glob("*.partial"))


def test_a_killed_run_of_answers_goes_on_and_gives_the_same(trained, tmp_path):
    folder, _, file = trained
    words = ["--experiment_dir", folder, "--input", file, "--output", tmp_path / "out.csv", "--precision", "float32"]
    command = [sys.executable, SCRIPTS["classification"].format("_inference"), *map(str, words)]
    command += ["--inference_batch_size", "1"]
    partial = tmp_path / "out.csv.partial" / "predictions-tuned-labels.jsonl"
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        while not partial.is_file() or len(partial.read_bytes().splitlines()) < 5:
            assert child.poll() is None, child.communicate()
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
    before = partial.read_bytes().splitlines()
    assert 5 <= len(before) < 60
    done = answered(folder, *words[2:], "--resume", "--inference_batch_size", "1")
    assert done.code == 0, done.err
    whole = answered(folder, "--input", file, "--output", tmp_path / "whole.csv", "--inference_batch_size", "1")
    assert whole.code == 0, whole.err
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    again = answered(folder, *words[2:], "--resume")
    assert (again.code, "nothing to do" in again.out) == (0, True)
    (tmp_path / "out.csv").rename(tmp_path / "kept.csv")
    partial.parent.mkdir()
    partial.with_name("questions.json").write_text("{}")
    other = answered(folder, *words[2:], "--resume")
    assert (other.code, "other rows or of another model" in other.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "mention"),
    [
        (("--input", "{file}"), "--input and --output go together"),
        (("--output", "{new}.csv"), "--input and --output go together"),
        (("--input", "{file}", "--output", "{new}.xlsx"), ".csv, a .tsv, a .jsonl"),
        (("--input", "{file}", "--output", "{file}"), "exists: name another --output"),
        (("--input", "{file}", "--output", "{new}.csv", "--text", "a"), "without --text"),
        (("--input", "{file}", "--output", "{new}.csv", "--demo"), "give one of them"),
        (("--input", "{new}", "--output", "{new}.csv"), "no file"),
        (("--input", "{file}", "--output", "{new}/x/y.csv"), "no folder"),
        (
            ("--input", "{file}", "--output", "{new}.csv", "--text_column", "x"),
            "no column x; its first line names 'Ticket', 'Body'",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_and_nothing_is_written(words, mention, trained, tmp_path):
    folder, _, file = trained
    before = file.read_bytes()
    done = answered(folder, *(word.format(file=file, new=tmp_path / "new") for word in words))
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert mention in done.err
    assert file.read_bytes() == before
    assert not list(tmp_path.iterdir())


def test_a_column_that_the_answers_would_have_is_told_before_any_row_is_read(trained, tmp_path, monkeypatch):
    folder, _, _ = trained
    monkeypatch.setattr(evaluation, "answers", lambda *given: pytest.fail("the model was asked"))
    (tmp_path / "in.csv").write_text("body,predicted\na b,c\n")
    done = answered(folder, "--input", tmp_path / "in.csv", "--output", tmp_path / "out.csv")
    assert (done.code, "has a column predicted" in done.err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


# The split that `look` keeps


def test_a_kept_split_stays_when_rows_are_added(tmp_path):
    file = tickets(tmp_path / "x.csv")
    columns = {"text_column": "Body", "target_column": "kind"}
    first = data.load("classification", path=str(file), **columns)
    keep = {part: [splits.digest(row) for row in getattr(first, part)] for part in ("validation", "test")}
    data.split_record(file).write_text(json.dumps(keep))
    assert data.load("classification", path=str(file), **columns).sha256 == first.sha256
    tickets(file, 90)
    grown = data.load("classification", path=str(file), **columns)
    for part in ("validation", "test"):
        assert {row["text"] for row in getattr(grown, part)} == {row["text"] for row in getattr(first, part)}
    assert len(grown.train) == len(first.train) + 30
    assert "split as in x.csv.split.json" in grown.source
    with pytest.raises(InputError, match="of another column"):
        data.load("classification", path=str(file), text_column="Ticket", target_column="kind")
    data.split_record(file).write_text('{"test": 3}')
    with pytest.raises(InputError, match="no split that `look` wrote"):
        data.load("classification", path=str(file), **columns)
