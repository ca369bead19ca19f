"""Scores against the libraries that define them, intervals against theory, outcomes against hand-made answers."""

import json
import textwrap

import numpy
import pytest
from rouge_score import rouge_scorer
from sklearn.metrics import accuracy_score, f1_score

from common import data, metrics

ROUNDING = 1e-4  # values are percentages with 4 decimals


@pytest.fixture(scope="module")
def texts():
    """Predictions of every quality for the sample's summaries: in other forms, cut, of another row, empty."""
    lines = (data.SAMPLE / "dialogues.jsonl").read_text(encoding="utf-8").splitlines()
    references = [json.loads(line)["summary"] for line in lines]
    predictions = references[1:] + references[:1]
    predictions[::4] = [text.replace(" to ", " is going to ").replace("s ", "ed ") for text in references[::4]]
    predictions[1::4] = [text[: len(text) // 2] for text in references[1::4]]
    predictions[2] = ""
    return predictions, references


def reference_rouge(predictions, references, name):
    scorer = rouge_scorer.RougeScorer([name], use_stemmer=True)
    return 100 * numpy.mean([scorer.score(r, p)[name].fmeasure for p, r in zip(predictions, references, strict=True)])


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_the_mean_of_rouge_score(name, texts):
    assert metrics.rouge(*texts)[name]["value"] == pytest.approx(reference_rouge(*texts, name), abs=ROUNDING)


def test_rouge_lsum_is_rouge_score_on_one_sentence_a_line():
    predictions = ["He will be home at six.\nPiotr is buying feta and mint.", "Gwen has a flat tyre.\nOmar comes."]
    references = ["Piotr buys feta and mint.\nHe will be home at six.", "Omar helps Gwen.\nShe has a flat tyre."]
    found = metrics.rouge(*([text.replace("\n", " ") for text in column] for column in (predictions, references)))
    expected = reference_rouge(predictions, references, "rougeLsum")
    assert found["rougeLsum"]["value"] == pytest.approx(expected, abs=ROUNDING)
    assert found["rougeLsum"]["value"] > found["rougeL"]["value"] + 10  # the sentences' order does not count


LOCAL_METRIC = """
    import datasets
    import evaluate
    from rouge_score import rouge_scorer


    class Rouge(evaluate.Metric):
        def _info(self):
            text = datasets.Value("string")
            features = datasets.Features({"predictions": text, "references": text})
            return evaluate.MetricInfo(description="", citation="", features=features)

        def _compute(self, predictions, references):
            names = ["rouge1", "rouge2", "rougeL"]
            scorer = rouge_scorer.RougeScorer(names, use_stemmer=True)
            scores = [scorer.score(r, p) for p, r in zip(predictions, references)]
            return {name: sum(score[name].fmeasure for score in scores) / len(scores) for name in names}
"""


def test_rouge_is_what_evaluate_computes(texts, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_EVALUATE_OFFLINE", "1")
    import evaluate

    path = tmp_path / "local_rouge.py"
    path.write_text(textwrap.dedent(LOCAL_METRIC))
    predictions, references = texts
    loaded = evaluate.load(str(path), cache_dir=str(tmp_path))
    expected = loaded.compute(predictions=predictions, references=references)
    found = metrics.rouge(predictions, references)
    for name, value in expected.items():
        assert found[name]["value"] == pytest.approx(100 * value, abs=ROUNDING)


LABELS = ["a", "b", "c", "never predicted", "neither"]


def test_accuracy_and_macro_f1_are_those_of_sklearn():
    random = numpy.random.default_rng(1)
    true = random.choice(LABELS[:4], 200, p=[0.5, 0.3, 0.15, 0.05])
    predicted = numpy.where(random.random(200) < 0.6, true, random.choice(LABELS[:3], 200))
    predicted[predicted == LABELS[3]] = "a"
    found = metrics.classification(list(predicted), list(true), LABELS)
    f1 = f1_score(true, predicted, labels=LABELS, average="macro", zero_division=0)
    assert found["accuracy"]["value"] == pytest.approx(100 * accuracy_score(true, predicted), abs=ROUNDING)
    assert found["macro_f1"]["value"] == pytest.approx(100 * f1, abs=ROUNDING)
    assert found["accuracy"]["n"] == found["macro_f1"]["n"] == 200


NAMES = ["sci.med", "sci.space", "comp.sys", "comp.sys.mac"]


@pytest.mark.parametrize(
    ("text", "label", "expected"),
    [
        ("sci.med", "sci.med", "right"),
        (" Sci.MED\n", "sci.med", "right"),
        ("sci.med.", "sci.med", "right_extra"),
        ("sci.med\n\n### Post:", "sci.med", "right_extra"),
        ("sci.med, because", "sci.med", "right_extra"),
        ("sci.space", "sci.med", "wrong"),
        ("sci.space!", "sci.med", "wrong_extra"),
        ("comp.sys.mac", "comp.sys.mac", "right"),
        ("comp.sys.mac", "comp.sys", "wrong"),
        ("comp.sys", "comp.sys.mac", "wrong"),
        ("comp.sys and more", "comp.sys", "right_extra"),
        ("sci.medicine", "sci.med", "not_a_label"),
        ("sci", "sci.med", "not_a_label"),
        ("The class is sci.med", "sci.med", "not_a_label"),
        ("", "sci.med", "empty"),
        (" \n", "sci.med", "empty"),
    ],
)
def test_what_was_written_is_sorted_by_how_it_begins(text, label, expected):
    assert metrics.outcome(text, label, NAMES) == expected


def test_outcomes_are_shares_of_all_rows_and_are_shown_as_rows():
    texts = ["sci.med", "sci.med.", "what?", ""] + ["sci.space"] * 4
    found = metrics.outcomes(texts, ["sci.med"] * 8, NAMES)
    assert sum(metric["value"] for metric in found.values()) == 100
    assert found["generated_wrong"]["value"] == 50
    shown = "right 1, right extra 1, wrong 4, wrong extra 0, not a label 1, empty 1"
    assert metrics.counts(found) == shown
    assert metrics.counts({}) == ""


def test_the_interval_of_an_accuracy_is_close_to_the_normal_approximation():
    low, high = metrics.mean([True] * 700 + [False] * 300)["ci95"]
    half = 100 * 1.96 * (0.7 * 0.3 / 1000) ** 0.5
    assert low == pytest.approx(70 - half, abs=0.4)
    assert high == pytest.approx(70 + half, abs=0.4)


def test_intervals_are_the_same_every_time():
    values = numpy.random.default_rng(3).random(50)
    assert metrics.mean(values) == metrics.mean(values)


def test_intervals_contain_their_value(texts):
    found = metrics.rouge(*texts)
    true, predicted = ["a", "b", "c"] * 30, ["a", "b", "b"] * 30
    for metric in [*found.values(), *metrics.classification(predicted, true, LABELS[:3]).values()]:
        assert metric["ci95"][0] < metric["value"] < metric["ci95"][1]


def test_the_interval_of_macro_f1_contains_its_value_with_one_test_row_a_class():
    labels = [f"class {i:02}" for i in range(20)]
    for predicted in (labels, labels[:15] + ["class 00"] * 5):
        metric = metrics.classification(predicted, labels, labels)["macro_f1"]
        assert metric["ci95"][0] <= metric["value"] <= metric["ci95"][1]


@pytest.mark.parametrize("hit", [0, 1])
def test_one_row_is_enough(hit):
    assert metrics.mean([hit]) == {"value": 100.0 * hit, "ci95": [100.0 * hit] * 2, "n": 1}
