"""Advice: the forms find the curves that they are, intervals are as wide as their parts, what is said of what."""

import csv
import json
import random
import re

import numpy
import pytest
import tiny
from conftest import ROOT, tool
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from test_comparisons import scored
from test_join import add, bare

from common.advise import answer, check, curves, heldout, larger, measured
from common.console import InputError
from common.runs import folders

KEPT = {"weights": dict.fromkeys(curves.FORMS, 0.05) | {"power": 0.85}, "reach": 2.0}


def points(error, sizes=(50, 100, 200, 400, 800), rows=1000, runs=3, seed=0):
    """Points of a curve with this error (points) by the number of rows, drawn."""
    draw = numpy.random.default_rng(seed)
    return [curves.Point(n, 100.0 * (draw.random((runs, rows)) >= error(n) / 100)) for n in sizes]


@pytest.mark.parametrize(
    ("form", "parameters"),
    [
        ("power", (10, 20, 0.5)),
        ("rectified", (8, 25, 0.7, 0.4)),
        ("saturating", (15, 10, 0.4)),
        ("logarithmic", (20, 15)),
    ],
)
def test_each_form_finds_the_curve_that_it_is(form, parameters):
    function, sizes = curves.FORMS[form][0], [50, 100, 200, 400, 800]
    errors = [function(n / 800, *parameters) for n in sizes]
    found = curves.fitted(form, sizes, errors, [0.3] * 5)
    assert [found(n) for n in sizes] == pytest.approx(errors, abs=0.7)
    assert found(3200) == pytest.approx(function(4, *parameters), abs=2)


def test_a_forecast_lies_in_its_interval_and_knows_a_plain_power_law():
    error = lambda n: 5 + 40 * (n / 50) ** -0.4  # noqa: E731
    found = curves.forecast(points(error), 3200, KEPT)
    assert found.low <= found.value <= found.high
    assert found.value == pytest.approx(100 - error(3200), abs=4)
    assert found.low < 100 - error(3200) < found.high
    wider = curves.forecast(points(error), 3200, KEPT | {"reach": 6.0})
    assert (wider.low, wider.high) == pytest.approx((found.low - 4, min(100, found.high + 4)))
    assert curves.forecast(points(error), 3200, KEPT) == found  # the same draws each time


def test_fewer_test_rows_make_a_wider_interval():
    error = lambda n: 10 + 30 * (n / 50) ** -0.5  # noqa: E731
    few, many = (curves.forecast(points(error, rows=rows), 3200, KEPT | {"reach": 0.0}) for rows in (60, 4000))
    assert few.high - few.low > 2 * (many.high - many.low)


def test_a_form_that_was_wrong_elsewhere_counts_less_and_the_reach_covers_the_rest():
    def case(power, measured):
        by_form = dict.fromkeys(curves.FORMS, 50.0) | {"power": power}
        draws = {form: [value] * 5 for form, value in by_form.items()}
        return {"n": 1, "by_form": by_form, "draws": draws, "measured": measured}

    kept = check.learned([case(70.0, 50.0)] * 19 + [case(50.0, 60.0)])
    assert kept["weights"]["power"] < 0.02
    assert sum(kept["weights"].values()) == pytest.approx(1, abs=1e-3)
    assert kept["reach"] == pytest.approx(0, abs=0.5)  # nineteen of twenty hold without
    assert check.learned([case(50.0, 60.0)] * 10)["reach"] == pytest.approx(10, abs=0.1)


def tickets(path, n=400):
    draw = random.Random(0)
    words = {"billing": "invoice charge refund payment card", "support": "crash login error screen slow"}
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["message", "team"])
        for i in range(n):
            team = ("billing", "support")[i % 2]
            text = draw.choices(words[team].split() + ["please", "help", "today", "again"] * 3, k=6)
            writer.writerow([f"{' '.join(text)} {i}", team])
    return path


def test_advice_for_a_csv_in_words_and_as_json(tmp_path):
    file = tickets(tmp_path / "my.csv")
    words = ("--data", str(file))  # the columns message and team are guessed
    done = tool(ROOT, "advise", *words, "--json", str(tmp_path / "a.json"), "--max_labels", "5000")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "a.json").read_text())
    assert "text message, label team (guessed" in done.stdout
    assert found["use"] == "TF-IDF + logistic regression"
    assert "Use now: TF-IDF + logistic regression" in done.stdout
    assert [each["n"] for each in found["forecasts"]] == [560, 1120, 5000] * 2
    assert [method["name"] for method in found["methods"][1:]] == ["TF-IDF + logistic regression", measured.FROZEN]
    for method in found["methods"][1:]:
        assert (method["points"][-1]["n"], method["points"][-1]["runs"]) == (280, 1)
    assert all(each["low"] <= each["value"] <= each["high"] for each in found["forecasts"])


def test_points_are_scikit_learns_own():
    draw = random.Random(1)
    rows = [
        {"text": " ".join(draw.choices(list("abcdefg"), k=5)) + f" x{i}", "target": "pqr"[i % 3]} for i in range(90)
    ]
    data = tiny.data(rows[:60], rows[60:], labels=["p", "q", "r"])
    method = measured.words(data)
    vectorizer = TfidfVectorizer(sublinear_tf=True)
    fitted = LogisticRegression(C=20.0, max_iter=2000, random_state=42).fit(
        vectorizer.fit_transform([row["text"] for row in rows[:60]]), [row["target"] for row in rows[:60]]
    )
    right = fitted.predict(vectorizer.transform([row["text"] for row in rows[60:]])) == [
        row["target"] for row in rows[60:]
    ]
    assert method.points[-1].mean == pytest.approx(100 * right.mean())
    assert [each.n for each in method.points] == [30, 60]


def test_frozen_features_are_read_once_in_the_time_there_is(capsys, monkeypatch):
    texts = ["the printer is on fire", "my card was charged twice"]
    rows = [{"text": f"{texts[i % 2]} {i}", "target": "pq"[i % 2]} for i in range(90)]
    data = tiny.data(rows[:60], rows[60:], labels=["p", "q"])
    assert measured.features(data, 0) is None
    assert "left out, its reading would take" in capsys.readouterr().out
    read = []
    embedded = measured.probe.embedded
    monkeypatch.setattr(measured.probe, "embedded", lambda texts, n: read.append(len(texts)) or embedded(texts, n))
    method = measured.features(data, 600)
    assert read == [1, 45, 90]
    assert [(each.n, each.scores.shape) for each in method.points] == [(30, (3, 30)), (60, (1, 30))]
    vectors = embedded([row["text"] for row in rows], measured.TOKENS)
    fitted = LogisticRegression(max_iter=2000, random_state=42).fit(vectors[:60], [row["target"] for row in rows[:60]])
    assert method.score == pytest.approx(100 * fitted.score(vectors[60:], [row["target"] for row in rows[60:]]))


def test_of_methods_that_cannot_be_told_apart_the_quickest_is_used():
    right = numpy.arange(300) < 240  # 80 %
    like = lambda wrong: curves.Point(400, 100.0 * (right & ~numpy.isin(numpy.arange(300), wrong))[None])  # noqa: E731
    slow, quick = measured.Method("slow", [like([])], 900.0), measured.Method("quick", [like([1, 2, 3])], 2.0)
    poor = measured.Method("poor", [like(range(150))], 1.0)
    args = type("args", (), {"max_memory": None, "max_cost": None, "price_per_hour": None, "max_labels": None})
    found = answer.of([poor, slow, quick], args, "COMMAND")
    assert (found["use"], found["ties"]) == ("quick", ["slow"])
    assert found["text"][0].endswith("% of the test rows, learned in 2 s.")
    priced = type("args", (args,), {"price_per_hour": 1.8})
    assert "learned in 2 s for 0.0010 USD" in answer.of([poor, slow, quick], priced, "COMMAND")["text"][0]
    assert "COMMAND" in found["text"][-1]
    trivial = measured.Method(answer.TRIVIAL, [like([4])])
    found = answer.of([trivial, slow], args, "COMMAND")
    assert (found["use"], found["ties"]) == ("slow", [])
    assert "most frequent class" in " ".join(found["text"])
    seen = like(range(90))
    early = measured.Method("early", [curves.Point(100, seen.scores)], 9.0)
    grown = measured.Method("grown", [curves.Point(98, like(range(120)).scores), like([])], 9.0)
    found = answer.of([early, grown], args, "COMMAND")
    told = f"early was measured with 100 of the 400 rows: {seen.mean:.1f}; with 98 rows grown has "
    assert (found["use"], told in " ".join(found["text"]), "COMMAND" in found["text"][-1]) == ("grown", True, True)
    limited = type("args", (args,), {"max_cost": 0.001, "price_per_hour": 0.1})
    assert answer.of([slow], limited, "COMMAND")["use"] is None


def test_larger_models_enter_by_figures_free_of_doubt_and_by_the_budget():
    every = folders.all_folders()
    lines = [line for folder in every for line in folder.published if line["task"] == "classification"]
    doubted = {(line["model"], float(line["value"])) for line in lines if line["suspect"] and line["value"]}
    trusted = {(line["model"], float(line["value"])) for line in lines if line["value"] and not line["suspect"]}
    shown = {(model, value) for (model, _), points in larger.curves(every).items() for value in points.values()}
    assert ("flan-t5-large", 59.86) in shown
    assert shown <= trusted
    assert not shown & (doubted - trusted)
    small, large = (" ".join(larger.sentences(n)) for n in (1_000, 10_000))
    assert "not of your rows" in small
    prices = [float(re.search(r"and ([\d.]+) USD", text)[1]) for text in (small, large)]
    assert prices[1] == pytest.approx(10 * prices[0], abs=0.06)


def test_what_is_missing_or_contradicts_is_one_line(tmp_path):
    file = tickets(tmp_path / "my.csv", 20)
    for words, mention in (
        ((), "--data"),
        (("--data", str(file), "--max_cost", "2"), "--price_per_hour"),
        (("--data", str(file), "--text_column", "x", "--label_column", "team"), "no column x"),
        (("--data", str(file), "--max_memory", "lots"), "--max_memory"),
    ):
        done = tool(ROOT, "advise", *words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert mention in done.stderr


def test_every_size_with_a_quarter_of_its_rows_seen_from_three_sizes_is_predicted():
    sizes = (281, 563, 1127, 2818, 5637, 11275)  # as in the evidence: 2818 is a quarter, rounded down
    cases = check.split(points(lambda n: 30, sizes=sizes, rows=5))
    assert [([point.n for point in seen], asked.n) for seen, asked in cases] == [([281, 563, 1127, 2818], 11275)]
    cases = check.split(points(lambda n: 30, sizes=(62, 125, 250, 500, 1000, 4000), rows=5))
    assert [(len(seen), asked.n) for seen, asked in cases] == [(3, 1000), (5, 4000)]
    assert check.split(points(lambda n: 30, sizes=(10, 20, 70), rows=5)) == []


def test_what_a_killed_check_measured_is_read_again_and_other_rows_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNING_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(heldout.probe, "embedded", lambda texts, tokens: numpy.eye(len(texts)))
    rows = [{"text": f"{'cup' if i % 2 else 'car'} {i} and", "target": str(i % 2)} for i in range(200)]
    train, test = rows[:160], rows[160:]
    first = heldout.measured("made up", train, test, {})
    assert list(first) == list(heldout.METHODS)
    for found in first.values():
        assert [(point.n, point.scores.shape) for point in found[-2:]] == [(40, (3, 40)), (160, (1, 40))]
    assert first[heldout.METHODS[0]][-1].mean == 100
    monkeypatch.setattr(heldout, "fitted", lambda *_: pytest.fail("measured before"))
    again = heldout.measured("made up", train, test, {})
    for method, found in first.items():
        assert [numpy.array_equal(a.scores, b.scores) for a, b in zip(found, again[method], strict=True)] == [True] * 6
    with pytest.raises(pytest.fail.Exception):
        heldout.measured("made up", train[:-1], test, {})


def test_recorded_runs_are_curves_by_folder_method_and_test_rows(tmp_path, monkeypatch):
    bare(tmp_path, monkeypatch)
    script, share = "minilm/minilm_classification.py", "--train_sample_fraction"
    for n, words in (
        (281, ("0.025",)),
        (281, ("0.025", "--seed", "43")),
        (563, ("0.05",)),
        (9, ("1.0", "--epochs", "1")),
    ):
        made = scored(script, share, *words, mean=n / 10)
        add(tmp_path, made | {"data": made["data"] | {"n": made["data"]["n"] | {"train": n}}}, "minilm")
    other = scored(script, share, "0.1", mean=1, digest="c" * 64)
    add(tmp_path, other, "minilm")
    found = heldout.recorded(folders.all_folders())
    assert [(task, name, [(p.n, len(p.scores)) for p in line]) for task, name, line in found] == [
        ("20 Newsgroups", "minilm: full-finetune", [(281, 2), (563, 1)]),
        ("20 Newsgroups", "minilm: full-finetune", [(100, 1)]),
    ]
    assert found[0][2][1].mean == pytest.approx(56.3, abs=5)


def test_the_check_needs_its_data(monkeypatch):
    monkeypatch.delenv("DATA_DIR", raising=False)
    with pytest.raises(InputError, match="DATA_DIR"):
        check.main([])
