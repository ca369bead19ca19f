"""READMEs' tables: made of records and published figures, in a copy of the repository."""

import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import copied, run_module
from test_records import METRIC, RECORD, changed, record

from common import records

ROOT = Path(__file__).parent.parent
TABLE_1 = "mistral-1"
ROW = "266 (2.5%)"  # the row of RECORD's setting
SHOWN = "41.00 [36.00, 46.00], n = 300"


@pytest.fixture
def home(tmp_path):
    """A copy of the front README, the Mistral folder and common/, without records."""
    shutil.copy(ROOT / "README.md", tmp_path)
    return copied(tmp_path, "mistral", "common")


def tables(home, *words):
    return run_module(home, "common.tables", *words)


def texts(home):
    return {path: path.read_text(encoding="utf-8") for path in sorted(home.rglob("README.md"))}


def cells(home, name, page="mistral/README.md"):
    """The table between the markers of `name` as {first cell: {head: cell}}, rewritten before it is read."""
    done = tables(home, "mistral")
    assert done.returncode == 0, done.stderr
    text = (home / page).read_text(encoding="utf-8")
    block = text.split(f"<!-- table:{name} -->")[1].split("<!-- /table -->")[0]
    lines = [line.strip("|").split("|") for line in block.splitlines() if line.startswith("|")]
    head, _, *body = [[cell.strip() for cell in line] for line in lines]
    return {row[0]: dict(zip(head, row, strict=True)) for row in body}


def add(home, made, name="added"):
    records.write_json(home / "mistral" / "results" / f"{name}.json", made)


def test_the_readmes_of_this_repository_are_what_its_records_say():
    done = tables(ROOT, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_table_has_two_columns_of_one_name():
    heads = []
    for page in [ROOT / "README.md", *ROOT.glob("*/README.md")]:
        for block in page.read_text(encoding="utf-8").split("<!-- table:")[1:]:
            line = next((line for line in block.splitlines() if line.startswith("|")), None)
            if line:  # the others are pictures
                heads.append((page.parent.name, [cell.strip() for cell in line.strip("|").split("|")]))
    assert len(heads) == 82
    assert [(folder, head) for folder, head in heads if len(set(head)) < len(head)] == []


def test_rewriting_twice_changes_nothing_more(home):
    add(home, record())
    assert tables(home, "mistral").returncode == 0
    first = texts(home)
    assert tables(home, "mistral").stdout == "2 READMEs, 0 rewritten\n"
    assert texts(home) == first


def test_the_check_fails_after_a_figure_is_edited_by_hand(home):
    tables(home, "mistral")
    assert tables(home, "mistral", "--check").returncode == 0
    page = home / "mistral" / "README.md"
    edited = page.read_text(encoding="utf-8").replace("36.24", "36.25", 1)
    page.write_text(edited, encoding="utf-8")
    done = tables(home, "mistral", "--check")
    assert done.returncode == 1
    assert "mistral/README.md" in done.stdout
    assert page.read_text(encoding="utf-8") == edited
    tables(home, "mistral")
    assert "36.25" not in page.read_text(encoding="utf-8")


def test_the_check_fails_after_a_record_is_added(home):
    tables(home)
    add(home, record())
    done = tables(home, "--check")
    assert done.returncode == 1
    assert "stale: mistral/README.md, README.md;" in done.stdout


@pytest.mark.parametrize(
    ("words", "mention"), [(["nothere"], "no model folder nothere; there are: mistral"), (["--chek"], "--check")]
)
def test_wrong_words_are_refused_in_one_line(words, mention, home):
    done = tables(home, *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: ")
    assert mention in done.stderr


def test_a_record_that_is_not_valid_is_refused_and_nothing_is_rewritten(home):
    add(home, changed(("data", "n_test"), 0))
    before = texts(home)
    done = tables(home)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert texts(home) == before


def test_every_published_figure_stands_in_its_cell_with_its_mark(home):
    with open(home / "mistral" / "published.csv", encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 110
    made = {name: cells(home, name) for name in {line["table"] for line in lines}}
    told = {(line["table"], line["column"]) for line in lines if line["value"]}
    for line in lines:
        head, row = f"published: {line['column']}", made[line["table"]][line["row"]]
        if (line["table"], line["column"]) not in told:
            assert head not in row  # a column of ours alone
            continue
        cell = row[head]
        assert cell.split()[0] == (line["value"] or "-")
        assert ("†" in cell) == (line["suspect"] == "yes")
        if line["note"]:
            letter = re.search("<sup>(.)</sup>", cell)[1]
            assert f"<sup>{letter}</sup> {line['note']}  \n" in (home / "mistral" / "README.md").read_text("utf-8")


def test_without_records_every_measured_figure_is_a_dash(home):
    measured = [
        cell
        for row in cells(home, TABLE_1).values()
        for head, cell in row.items()
        if head.startswith("measured:") and not cell.startswith("published")
    ]
    assert measured == ["-"] * 6


def test_the_embedded_models_figure_never_stands_in_the_models_own_column(home):
    add(home, record())
    found = cells(home, TABLE_1)
    assert found[ROW]["smollm2 instead: accuracy"] == SHOWN
    assert {row["measured: accuracy"] for row in found.values()} == {"-"}
    assert [name for name, row in found.items() if row["smollm2 instead: accuracy"] != "-"] == [ROW]


def test_a_figure_of_the_models_own_checkpoint_stands_in_the_measured_column(home):
    add(home, record(checkpoint="mistralai/Mistral-7B-v0.1"))
    found = cells(home, TABLE_1)
    assert found[ROW]["measured: accuracy"] == SHOWN
    assert not [head for head in found[ROW] if "instead" in head]


def test_of_two_records_the_one_with_more_test_rows_counts_and_then_the_newer_one(home):
    def scored(value, n, day):
        made = changed(("data", "n_test"), n)
        made["metrics"]["accuracy"] = METRIC | {"value": value, "n": n}
        return made | {"finished_at": f"2024-01-0{day}T00:00:00+00:00"}

    add(home, scored(50.0, 600, 1), "b")
    add(home, scored(51.0, 300, 2), "c")
    assert cells(home, TABLE_1)[ROW]["smollm2 instead: accuracy"].startswith("50.00 ")
    add(home, scored(52.0, 600, 3), "a")
    assert cells(home, TABLE_1)[ROW]["smollm2 instead: accuracy"].startswith("52.00 ")


def test_a_trained_adapters_figures_stand_in_the_tuned_column_with_their_decoding(home):
    score = {name: METRIC for name in ("rouge1", "bleu", "bertscore_f1", "length")}
    how = {"setting": "max_train_samples=240 temperature=0.25", "settings": {"lora_r": 64}, "training": None}
    add(home, record(task="instructions", metrics=score, metrics_before=None, **how))
    row = cells(home, "scores-instructions")["qlora temperature=0.25"]
    assert (row["ROUGE-1, base"], row["ROUGE-1, tuned"]) == ("-", "41.00 [36.00, 46.00]")
    shown = cells(home, "mistral-7")["temperature 0.25"]
    assert shown["smollm2 instead: BLEU"] == "41.00 [36.00, 46.00], n = 300, trained on 240"
    assert "smollm2 instead: words" in shown


UNKNOWN = [("training", name) for name in RECORD["training"]] + [("inference", name) for name in RECORD["inference"]]
UNKNOWN += [("training",), ("metrics_before",), ("metrics", "accuracy", "value"), ("metrics", "accuracy", "ci95")]


def test_whatever_a_record_does_not_know_is_a_dash(home):
    made = {" ".join(path): changed(path, None) for path in UNKNOWN}
    made["accuracy alone"] = record(metrics={"accuracy": METRIC})
    made["no accuracy"] = record(metrics={"macro_f1": METRIC})
    refused = {}
    for name, each in made.items():
        records.validate(each)
        add(home, each)
        done = tables(home)
        if done.returncode:
            refused[name] = done.stderr.splitlines()[-1]
    assert refused == {}


def test_a_cost_that_is_not_known_is_a_dash_and_never_zero(home):
    nothing = dict.fromkeys(RECORD["inference"])
    add(home, record(training=None, inference=nothing))
    row = cells(home, "cost")["classification"]
    assert [row[name] for name in ("training", "tokens/s", "loss", "peak memory", "cost")] == ["-"] * 5
    assert row["scoring, rows/s"] == "-"
    assert row["latency p50 / p90"] == "- / -"


def test_a_tuned_record_stands_in_the_front_readme(home):
    add(home, record())
    (row,) = cells(home, "front", page="README.md").values()
    assert row["checkpoint"] == "smollm2"
    assert row["base model"] == row["tuned"] == "41.00 [36.00, 46.00]"
    assert row["trained on"] == "281 rows, 3 epochs"
    assert row["training"] == "10 min"


@pytest.mark.parametrize("words", [["--lora_r", "4"], ["--epochs", "50"], ["--dropout", "0.5"]], ids=" ".join)
def test_a_run_with_other_settings_is_not_taken_for_the_tables_run(words, tmp_path):
    """A table finds its record by method and setting, so `setting` must tell such a run apart."""

    def plan(*more):
        script = ROOT / "mistral" / "mistral_summarization.py"
        done = subprocess.run(
            [sys.executable, script, "--dry_run", "plan", *more],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()[0]

    assert plan(*words) != plan()
