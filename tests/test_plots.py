"""Pictures: what they show is what the records say, and assets/ holds those of today's records."""

import csv

import pytest
from conftest import ROOT, tool
from sklearn import metrics as reference
from test_join import SUMMARIZATION, TRAINING, add, bare, inferred, record, scores

from common import metrics
from common.reports import drawings, plots, speed
from common.runs import folders

CURVES = {"step": [1, 2, 3, 4], "loss": [0.9, 0.7, 0.5, 0.4], "grad_norm": [3.0, 2.0, 1.5, 1.0]}
CURVES["learning_rate"] = [1e-3, 2e-3, 1e-3, 0.0]
CONFUSION = {"labels": ["negative", "positive"], "counts": [[30, 10], [5, 55]]}
TRAINED = {**TRAINING, "curves": CURVES}
SENTIMENT = "mistral/mistral_sentiment.py"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A copy of the folders, with a training and three ways of decoding of its adapter."""
    monkeypatch.setattr(plots, "ASSETS", bare(tmp_path, monkeypatch) / "assets")
    monkeypatch.setattr(speed, "ASSETS", plots.ASSETS)  # without what this repository measured
    plots.ASSETS.mkdir()
    add(tmp_path, record(SENTIMENT, confusion={"base": CONFUSION, "tuned": CONFUSION}, training=TRAINED))
    trained = record("mistral/mistral_instructions.py")
    for value, settings in ((30, {"num_beams": 2}), (20, {}), (25, {"temperature": 0.25})):
        made = inferred(trained, "mistral/mistral_instructions_inference.py", **settings)
        add(tmp_path, {**made, "metrics": scores(value)})
    return tmp_path


def files(home):
    return sorted(path.name for path in (home / "assets").iterdir())


def of_mistral():
    all_folders = folders.all_folders()
    return plots.of_folder(next(each for each in all_folders if each.name == "mistral"))


FOLDERS_OWN = ["mistral_decoding.svg", "mistral_sentiment_confusion.svg", "mistral_sentiment_curves.svg"]


def test_each_picture_is_drawn_once_and_again_when_its_record_changes(home, capsys):
    plots.main(["mistral"])
    assert capsys.readouterr().out.endswith("3 pictures, 3 drawn\n")
    assert files(home) == FOLDERS_OWN
    before = {name: (home / "assets" / name).read_bytes() for name in FOLDERS_OWN}
    plots.main(["mistral"])
    assert capsys.readouterr().out.endswith("3 pictures, 0 drawn\n")
    for name in FOLDERS_OWN:
        (home / "assets" / name).unlink()
    plots.main(["mistral"])
    assert {name: (home / "assets" / name).read_bytes() for name in FOLDERS_OWN} == before
    assert plots.main(["mistral", "--check"]) is None
    old = next(path for path in home.glob("mistral/results/*") if '"sentiment"' in path.read_text())
    old.unlink()
    changed = {**TRAINED, "curves": {**CURVES, "loss": [0.9, 0.7, 0.5, 0.3]}}
    add(home, record(SENTIMENT, confusion={"base": CONFUSION, "tuned": CONFUSION}, training=changed))
    capsys.readouterr()
    assert plots.main(["mistral", "--check"]) == 1
    assert capsys.readouterr().out.endswith("stale: mistral_sentiment_curves.svg; run python -m common plots\n")


def test_a_picture_goes_with_its_record_and_no_other_file_does(home, capsys):
    plots.main([])
    (home / "assets" / "mistral_mine.svg").write_text("<svg>drawn by hand</svg>")
    for path in home.glob("mistral/results/*"):
        path.unlink()
    assert plots.main(["--check"]) == 1
    plots.main([])
    assert "removed" in capsys.readouterr().out
    assert files(home) == ["mistral_mine.svg", "sample_efficiency.svg"]


def test_an_unknown_folder_is_one_line():
    done = tool(ROOT, "plots", "bert")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_curves_show_every_step_and_the_validation_rows_at_the_end_of_each_epoch(home):
    picture = next(each for each in of_mistral() if each.kind == "curves")
    figure = drawings.curves(picture.content)
    drawn = {axis.get_ylabel(): axis.lines for axis in figure.axes}
    assert {axis.get_xlabel() for axis in figure.axes} == {"optimizer step"}
    for title, name in {"loss": "loss", "gradient norm": "grad_norm", "learning rate": "learning_rate"}.items():
        assert list(drawn[title][0].get_xdata()) == CURVES["step"]
        assert list(drawn[title][0].get_ydata()) == CURVES[name]
    validation = drawn["loss"][2]
    assert (list(validation.get_xdata()), list(validation.get_ydata())) == ([2, 4], [0.6, 0.4])
    assert [text.get_text() for text in figure.axes[0].texts] == ["75.0%", "87.5%"]


def test_two_methods_of_one_task_share_a_picture(home):
    """D.7: near-identical pairs stood beside one another."""
    add(home, record("distilbert/distilbert_sentiment.py", training=TRAINED), "distilbert")
    add(home, record("distilbert/distilbert_sentiment_loop.py", training=TRAINED), "distilbert")
    folder = next(each for each in folders.all_folders() if each.name == "distilbert")
    (picture,) = plots.of_folder(folder)
    assert list(picture.content) == ["full-finetune", "full-finetune+loop"]


def test_the_matrix_shows_the_counts_by_class_and_by_what_they_were_taken_for(home):
    picture = next(each for each in of_mistral() if each.kind == "confusion")
    figure = drawings.confusion(picture.content)
    assert [axis.get_title() for axis in figure.axes] == ["qlora: base", "qlora: tuned"]
    found = {text.get_position(): text.get_text() for text in figure.axes[1].texts}
    assert found == {(0, 0): "30", (1, 0): "10", (0, 1): "5", (1, 1): "55"}
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("taken for", "is")


def test_decoding_has_a_panel_a_setting_in_its_order_and_the_echo_dashed(home):
    picture = next(each for each in of_mistral() if each.kind == "decoding")
    figure = drawings.decoding(picture.content)
    drawn = {axis.get_xlabel(): axis for axis in figure.axes}
    assert list(drawn) == ["temperature", "beams"]
    assert {axis.get_ylabel() for axis in figure.axes} == {"score, %"}
    assert [label.get_text() for label in drawn["beams"].get_xticklabels()] == ["1", "2"]
    lines = [list(line.get_ydata()) for line in drawn["beams"].lines if line.get_linestyle() == "--"]
    assert lines == [[20, 30]] * 3
    assert [label.get_text() for label in drawn["temperature"].get_xticklabels()] == ["0.25"]


def test_the_heat_map_has_the_score_of_every_rank_and_dropout_in_its_place(home):
    for number, (rank, dropout) in enumerate([("4", "0.1"), ("4", "0.2"), ("8", "0.1"), ("8", "0.2")]):
        made = record("mistral/mistral_summarization.py", "--lora_r", rank, "--dropout", dropout, "--epochs", "2")
        made["metrics"]["rouge1"] = {"value": 30.0 + number, "ci95": None, "n": 300}
        add(home, made)
    picture = next(each for each in of_mistral() if each.kind == "heat")
    (axis,) = drawings.heat(picture.content).axes
    placed = {text.get_position(): text.get_text() for text in axis.texts}
    assert placed == {(0, 0): "30.0", (1, 0): "31.0", (0, 1): "32.0", (1, 1): "33.0"}  # (column, row)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["4", "8"]
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_title()) == ("dropout", "rank", "2 epochs")


def test_the_effects_stand_at_their_difference_with_its_interval():
    (axis,) = drawings.factors([["one", 2.0, 0.5, 3.0], ["two", -1.0, -4.0, 2.0]]).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["one", "two"]
    segments = [list(map(float, bar.get_segments()[0][:, 0])) for bar in axis.collections]
    assert segments == [[0.5, 3.0], [-4.0, 2.0]]


def test_sample_efficiency_has_every_published_curve_once_and_measured_points_with_intervals(home):
    words = ("--train_sample_fraction", "0.1")
    add(home, record("distilbert/distilbert_classification.py", *words, n=(1129, 0, 300)), "distilbert")
    fewer = record("distilbert/distilbert_classification.py", *words, "--max_test_samples", "50", n=(1129, 0, 50))
    add(home, fewer | {"metrics": scores(99.0, 50)}, "distilbert")  # a point is of the run with the most test rows
    content = plots.sample_efficiency(folders.all_folders())
    with open(ROOT / "distilbert/published.csv", encoding="utf-8", newline="") as stream:
        lines = [line for line in csv.DictReader(stream) if (line["table"], line["column"]) == ("distilbert-1", "BERT")]
    curve = next(each for each in content if each["label"] == "distilbert: BERT")
    assert [point[1] for point in curve["points"]] == [float(line["value"]) for line in lines]
    assert not curve["suspect"]
    curves = [tuple(point[1] for point in each["points"]) for each in content]
    assert len(set(curves)) == len(curves)  # Mistral's first column is DistilBERT's
    measured = [each for each in content if each["measured"]]
    assert [each["label"] for each in measured] == ["distilbert, full-finetune: measured"]
    assert measured[0]["points"] == [[1129, 41.0, 36.0, 46.0]]
    (axis,) = drawings.sample_efficiency(content).axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("training rows", "accuracy on the test rows, %")
    styles = {line.get_linestyle() for line in axis.lines}
    assert {"-", "--"} <= styles


def test_before_and_after_and_cost_against_quality_show_declared_runs(home):
    add(home, record(SUMMARIZATION, "--lora_r", "2", metrics=scores(99.0)))
    add(home, record(SUMMARIZATION))
    all_folders = folders.all_folders()
    tuned = plots.base_to_tuned(all_folders)
    assert [label for label, *_ in tuned] == [
        "mistral, summarization (ROUGE-1), qlora, 281 rows",
        "mistral, sentiment (accuracy), qlora, 281 rows",
    ]
    assert (tuned[0][1]["value"], tuned[0][2]["value"]) == (20.0, 41.0)
    alone = record("smollm2/smollm2_summarization.py", "--no_before", metrics_before=None)
    prompted = record("smollm2/smollm2_baseline_inference.py", "--task_type", "summarization", metrics=scores(12.0))
    add(home, alone, "smollm2")
    assert len(plots.base_to_tuned(folders.all_folders())) == 2
    add(home, prompted, "smollm2")  # the untrained model on the same rows
    assert [both[0]["value"] for _, *both in plots.base_to_tuned(folders.all_folders())] == [20.0, 20.0, 12.0]
    (axis,) = drawings.base_to_tuned(tuned).axes
    assert axis.get_xlabel() == "score, %"
    quality = plots.cost_quality(all_folders)
    (points,) = [curves["mistral, qlora"] for title, curves in quality.items() if title == "summarization: ROUGE-1"]
    assert [seconds for seconds, _ in points] == [600.0]
    for axis in drawings.cost_quality(quality).axes:
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("learning, seconds", "score, %")


def test_a_label_with_a_formulas_sign_and_curves_with_gaps_are_drawn(home):
    """B.4: a dollar in a label broke the picture; odd curves and matrices ended in tracebacks."""
    odd = {**TRAINED, "curves": {**CURVES, "loss": [None, 0.7, None, 0.4]}, "validation": []}
    labels = {"tuned": {**CONFUSION, "labels": ["$5_{ off", "a & b"]}}
    add(home, record("zephyr/zephyr_classification.py", training=odd, confusion=labels), "zephyr")
    shorter = {**TRAINED, "curves": {**CURVES, "loss": [0.1]}}
    add(home, record("falcon/falcon_summarization.py", training=shorter, confusion=None), "falcon")
    plots.main(["zephyr", "falcon"])
    assert [name for name in files(home) if name.startswith(("zephyr", "falcon"))] == [
        "zephyr_classification_confusion.svg",
        "zephyr_classification_curves.svg",
    ]


def test_a_readme_shows_the_pictures_of_its_records(home):
    folder = next(each for each in folders.all_folders() if each.name == "mistral")
    for kind, file in zip(("decoding", "confusion", "curves"), FOLDERS_OWN, strict=True):
        assert plots.shown(folder, kind).endswith(f"](../assets/{file})")
    assert plots.shown(folder, "curves", "summarization") == ""
    folder.records.clear()
    assert plots.shown(folder, "curves") == ""


def test_assets_hold_the_pictures_of_todays_records_and_nothing_else():
    all_folders = folders.all_folders()
    pictures = [picture for folder in all_folders for picture in plots.of_folder(folder)] + plots.of_front(all_folders)
    assert [picture.file for picture in pictures if not picture.stands()] == []
    kept = {path.name for path in (ROOT / "assets").glob("*.svg")} - set(plots.OTHERS)
    assert sorted(picture.file for picture in pictures) == sorted(kept)


def test_the_class_report_is_sklearns():
    truth = ["negative"] * 40 + ["positive"] * 60
    guessed = ["negative"] * 30 + ["positive"] * 10 + ["negative"] * 5 + ["positive"] * 55
    expected = reference.precision_recall_fscore_support(truth, guessed, labels=CONFUSION["labels"])
    for i, line in enumerate(metrics.report(metrics.confusion(guessed, truth, CONFUSION["labels"]))):
        assert line[0] == CONFUSION["labels"][i]
        assert line[1:4] == [f"{100 * column[i]:.2f}" for column in expected[:3]]
        assert line[4] == str(expected[3][i])
