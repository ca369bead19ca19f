"""Pictures: what they show is what the records say, and assets/ holds those of today's records."""

import json
from pathlib import Path

import pytest
from conftest import copied, run_module
from sklearn import metrics as reference
from test_records import METRIC, RECORD, record

from common import folders, metrics, plots, ratings, records, tables

ROOT = Path(__file__).parent.parent
CURVES = {"step": [1, 2, 3, 4], "loss": [0.9, 0.7, 0.5, 0.4], "grad_norm": [3.0, 2.0, 1.5, 1.0]}
CURVES["learning_rate"] = [1e-3, 2e-3, 1e-3, 0.0]
VALIDATION = [{"epoch": 1, "loss": 0.6, "accuracy": 0.75}, {"epoch": 2, "loss": 0.5, "accuracy": 0.875}]
CONFUSION = {"labels": ["negative", "positive"], "counts": [[30, 10], [5, 55]]}


def trained():
    training = RECORD["training"] | {"steps": 4, "validation": VALIDATION, "curves": CURVES}
    return record(task="sentiment", training=training, confusion={"base": CONFUSION, "tuned": CONFUSION})


def answered(value, **asked):
    names = [f"{echo}{name}" for name in plots.LINES for echo in ("", "echo_")]
    scores = {name: METRIC | {"value": value + i, "ci95": [value - 1, value + 9]} for i, name in enumerate(names)}
    how = {"temperature": None, "top_k": None, "num_beams": 1} | asked
    return record(task="instructions", training=None, settings={"decoding": how}, metrics=scores)


@pytest.fixture
def home(tmp_path):
    """A copy of common/ and the mistral folder, with a fine-tuning record and three ways of decoding."""
    copied(tmp_path, "mistral", "common")
    made = {"a": trained(), "beams2": answered(30, num_beams=2), "beams1": answered(20)}
    made["cold"] = answered(25, temperature=0.25)
    for name, each in made.items():
        records.validate(each)
        records.write_json(tmp_path / "mistral" / "results" / f"{name}.json", each)
    return tmp_path


def draw(home, *words):
    return run_module(home, "common.plots", *words)


FILES = ["mistral_a_confusion.svg", "mistral_a_curves.svg", "mistral_instructions_smollm2_decoding.svg"]


def test_each_picture_is_drawn_once_and_again_when_its_record_changes(home):
    assert draw(home).stdout == "3 pictures, 3 drawn\n"
    assert sorted(path.name for path in (home / "assets").iterdir()) == FILES
    before = {name: (home / "assets" / name).read_bytes() for name in FILES}
    assert draw(home).stdout == "3 pictures, 0 drawn\n"
    for name in FILES:
        (home / "assets" / name).unlink()
    draw(home)
    assert {name: (home / "assets" / name).read_bytes() for name in FILES} == before
    assert draw(home, "--check").returncode == 0
    changed = trained()
    changed["training"]["curves"] = CURVES | {"loss": [0.9, 0.7, 0.5, 0.3]}
    records.write_json(home / "mistral" / "results" / "a.json", changed)
    done = draw(home, "--check")
    assert (done.returncode, done.stdout) == (1, "stale: mistral_a_curves.svg; run python -m common.plots\n")
    assert draw(home, "mistral").stdout == "3 pictures, 1 drawn\n"


def test_a_picture_goes_with_its_record(home):
    draw(home)
    (home / "mistral" / "results" / "a.json").unlink()
    assert draw(home, "--check").returncode == 1
    assert draw(home).stdout == "1 pictures, 0 drawn, 2 removed\n"
    assert [path.name for path in (home / "assets").iterdir()] == FILES[2:]


def test_an_unknown_folder_is_one_line(home):
    done = draw(home, "bert")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_curves_show_every_step_and_the_validation_rows_at_the_end_of_each_epoch():
    figure = plots.curves({"curves": CURVES, "validation": VALIDATION, "steps": 4})
    drawn = {axis.get_title(): axis.lines for axis in figure.axes}
    for title, name in {"loss": "loss", "gradient norm": "grad_norm", "learning rate": "learning_rate"}.items():
        assert list(drawn[title][0].get_xdata()) == CURVES["step"]
        assert list(drawn[title][0].get_ydata()) == CURVES[name]
    validation = drawn["loss"][1]
    assert (list(validation.get_xdata()), list(validation.get_ydata())) == ([2, 4], [0.6, 0.5])
    assert [text.get_text() for text in figure.axes[0].texts] == ["75.0%", "87.5%"]


def test_the_matrix_shows_the_counts_by_class_and_by_what_they_were_taken_for():
    figure = plots.confusion({"tuned": CONFUSION})
    found = {text.get_position(): text.get_text() for text in figure.axes[0].texts}
    assert found == {(0, 0): "30", (1, 0): "10", (0, 1): "5", (1, 1): "55"}
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("taken for", "is")


def test_decoding_has_a_panel_a_setting_in_its_order_and_the_echo_dashed(home, monkeypatch):
    monkeypatch.setattr(records, "ROOT", home)
    folder = next(each for each in folders.everyone() if each.path.name == "mistral")
    picture = next(each for each in plots.of_folder(folder) if each.kind == "decoding")
    figure = plots.decoding(picture.content)
    drawn = {axis.get_title(): axis for axis in figure.axes}
    assert list(drawn) == ["temperature", "beams", "top-k"]
    assert [label.get_text() for label in drawn["beams"].get_xticklabels()] == ["1", "2"]
    lines = {line.get_linestyle(): [] for line in drawn["beams"].lines}
    for line in drawn["beams"].lines:
        if len(line.get_xdata()) == 2 and line.get_linestyle() in ("-", "--") and line.get_marker() in ("o", "None"):
            lines[line.get_linestyle()].append(list(line.get_ydata()))
    assert lines["-"] == [[20, 30], [22, 32], [24, 34]]
    assert lines["--"] == [[21, 31], [23, 33], [25, 35]]
    assert [label.get_text() for label in drawn["temperature"].get_xticklabels()] == ["0.25"]


def test_a_readme_shows_the_pictures_of_its_records(home, monkeypatch):
    monkeypatch.setattr(records, "ROOT", home)
    folder = next(each for each in folders.everyone() if each.path.name == "mistral")
    shown = [plots.shown(folder, kind) for kind in ("confusion", "curves", "decoding")]
    for text, file in zip(shown, FILES, strict=True):
        assert text.endswith(f"](../assets/{file})\n")
    folder.records = []
    assert plots.shown(folder, "curves") == "-\n"


def test_assets_hold_the_pictures_of_todays_records_and_nothing_else():
    pictures = [picture for folder in folders.everyone() for picture in plots.of_folder(folder)] + plots.of_front()
    assert [picture.file for picture in pictures if not picture.stands()] == []
    assert sorted(picture.file for picture in pictures) == sorted(path.name for path in (ROOT / "assets").glob("*.svg"))


def test_the_class_report_is_sklearns():
    truth = ["negative"] * 40 + ["positive"] * 60
    guessed = ["negative"] * 30 + ["positive"] * 10 + ["negative"] * 5 + ["positive"] * 55
    expected = reference.precision_recall_fscore_support(truth, guessed, labels=CONFUSION["labels"])
    for i, line in enumerate(metrics.report(metrics.confusion(guessed, truth, CONFUSION["labels"]))):
        assert line[0] == CONFUSION["labels"][i]
        assert line[1:4] == [f"{100 * column[i]:.2f}" for column in expected[:3]]
        assert line[4] == str(expected[3][i])
    never = {"labels": ["a", "b"], "counts": [[0, 3], [0, 4]]}
    assert metrics.report(never)[0] == ["a", "-", "0.00", "0.00", "3"]


def test_ratings_beside_the_records_fill_the_human_column(home, monkeypatch):
    monkeypatch.setattr(records, "ROOT", home)
    name = str(tables.human({"human": ratings.human(home / "mistral/results/cold.json", {})}))
    assert name == "-"
    lines = [
        {"record": "cold.json", "row": row, "rater": rater, "score": score}
        for rater, scores in {"ann": [5, 4, 3], "bob": [5, 3, 3]}.items()
        for row, score in enumerate(scores)
    ]
    (home / "mistral" / "results" / ratings.FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    folder = next(each for each in folders.everyone() if each.path.name == "mistral")
    told = {each["name"]: tables.human(each) for each in folder.records}
    assert (told["a"], told["beams1"]) == ("-", "-")
    assert told["cold"].startswith("3.83 [")
    assert "of 5, 6 ratings by 2, alpha 0." in told["cold"]
    row = next(line for line in tables.scores(folder, "instructions").splitlines() if "3.83" in line)
    assert row.split("|")[-2].strip() == told["cold"]
