"""Scores against the libraries that define them, intervals against theory, outcomes against hand-made answers."""

import json
import textwrap

import numpy
import pytest
from rouge_score import rouge_scorer
from sklearn import metrics as reference

from common import data, metrics
from common.console import InputError
from common.runs import checks, run

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
    f1 = reference.f1_score(true, predicted, labels=LABELS, average="macro", zero_division=0)
    assert found["accuracy"]["value"] == pytest.approx(100 * reference.accuracy_score(true, predicted), abs=ROUNDING)
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
    assert run.counts(found) == shown
    assert run.counts({}) == ""


@pytest.mark.parametrize(
    ("right", "n", "expected"),
    [(20, 20, (83.887, 100)), (0, 20, (0, 16.113)), (1, 1, (20.655, 100)), (36, 40, (76.948, 96.042))],
)
def test_a_share_has_wilsons_interval(right, n, expected):
    rows = [True] * right + [False] * (n - right)
    for metric in (metrics.share(rows), metrics.mean(rows), metrics.classification(rows, [True] * n, [True, False, 3])):
        metric = metric.get("accuracy", metric)  # noqa: PLW2901
        assert metric["value"] == pytest.approx(100 * right / n)
        assert metric["ci95"] == pytest.approx(expected, abs=1e-3)


def test_a_share_is_of_zeros_and_ones_and_of_no_rows_it_is_unknown():
    assert metrics.share([]) == metrics.UNKNOWN
    with pytest.raises(TypeError):
        metrics.share([0.5, 0.5])


def test_wilsons_interval_covers_what_a_bootstrap_misses():
    shares = numpy.random.default_rng(4).binomial(40, 0.9, 400)
    intervals = [metrics.share([True] * right + [False] * (40 - right))["ci95"] for right in shares]
    assert numpy.mean([low <= 90 <= high for low, high in intervals]) > 0.93


def test_the_interval_of_an_accuracy_is_close_to_the_normal_approximation():
    low, high = metrics.share([True] * 700 + [False] * 300)["ci95"]
    half = 100 * 1.96 * (0.7 * 0.3 / 1000) ** 0.5
    assert low == pytest.approx(70 - half, abs=0.4)
    assert high == pytest.approx(70 + half, abs=0.4)


def test_the_interval_of_a_mean_is_close_to_the_normal_approximation_and_widens_with_fewer_rows():
    values = numpy.random.default_rng(6).beta(3, 5, 400)
    low, high = metrics.mean(values)["ci95"]
    assert (high - low) / 2 == pytest.approx(100 * 1.96 * values.std() / 20, rel=0.1)
    fewer = metrics.mean(values[:100])["ci95"]
    assert fewer[1] - fewer[0] > 1.6 * (high - low)


def test_the_interval_of_macro_f1_is_that_of_sklearns_f1_over_resampled_rows():
    random = numpy.random.default_rng(7)
    true = random.integers(0, 3, 150)
    predicted = numpy.where(random.random(150) < 0.7, true, random.integers(0, 3, 150))
    scores = []
    for _ in range(500):
        rows = random.integers(0, 150, 150)
        scores.append(100 * reference.f1_score(true[rows], predicted[rows], average="macro"))
    found = metrics.classification(predicted, true, range(3))["macro_f1"]
    assert found["ci95"] == pytest.approx(numpy.percentile(scores, [2.5, 97.5]), abs=1.5)


def test_the_interval_of_bleu_is_close_to_sacrebleus_own(texts):
    import sacrebleu

    predictions, references = texts
    own = sacrebleu.BLEU().corpus_score(predictions, [references], n_bootstrap=1000)
    found = metrics.bleu(predictions, references)
    assert found["value"] == pytest.approx(own.score, abs=ROUNDING)
    assert (found["ci95"][1] - found["ci95"][0]) / 2 == pytest.approx(own._ci, rel=0.15)


def test_intervals_are_the_same_every_time():
    values = numpy.random.default_rng(3).random(50)
    assert metrics.mean(values) == metrics.mean(values)


def test_intervals_contain_their_value(texts):
    found = metrics.rouge(*texts)
    true, predicted = ["a", "b", "c"] * 30, ["a", "b", "b"] * 30
    for metric in [*found.values(), *metrics.classification(predicted, true, LABELS[:3]).values()]:
        assert metric["ci95"][0] < metric["value"] < metric["ci95"][1]


def test_no_interval_leaves_its_value_out_or_has_no_width_whatever_the_rows_are(monkeypatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 50)
    random = numpy.random.default_rng(8)
    for _ in range(60):
        n, labels = int(random.integers(1, 12)), LABELS[: random.integers(2, 6)]
        true = list(random.choice(labels, n))
        predicted = [label if random.random() < 0.8 else str(random.choice(labels)) for label in true]
        texts = [str(random.choice([label, "something else"])) for label in predicted]
        found = metrics.classification(predicted, true, labels) | metrics.generated(texts, true, labels)
        found |= metrics.outcomes(texts, true, labels) | {"score": metrics.mean(random.choice([0, 0.25, 1], n))}
        for metric in found.values():
            if metric["ci95"]:
                low, high = metric["ci95"]
                assert 0 <= low <= metric["value"] <= high <= 100 + ROUNDING
                assert low < high


def test_an_interval_is_widened_to_a_value_that_the_bootstrap_misses():
    distinct = metrics.bootstrap(lambda rows: len(set(rows)) / len(rows), numpy.arange(30))  # about 0.64 in resamples
    assert distinct["value"] == distinct["ci95"][1] == 100
    assert distinct["ci95"][0] < 70


@pytest.mark.parametrize("count", [1, 2])
def test_the_interval_of_macro_f1_contains_its_value_with_one_test_row_a_class(count):
    labels = [f"class {i:02}" for i in range(20)]
    for predicted in (labels, labels[:15] + ["class 00"] * 5):
        metric = metrics.classification(predicted * count, labels * count, labels)["macro_f1"]
        assert metric["ci95"][0] <= metric["value"] <= metric["ci95"][1]


@pytest.mark.parametrize("hit", [0, 1])
def test_one_row_is_enough_for_a_share(hit):
    found = metrics.mean([hit])
    assert (found["value"], found["n"]) == (100.0 * hit, 1)
    assert found["ci95"] == pytest.approx([0, 79.3451] if hit == 0 else [20.6549, 100], abs=1e-3)


def test_the_spread_of_one_row_or_of_equal_rows_is_not_known():
    assert metrics.mean([0.4]) == {"value": 40.0, "ci95": None, "n": 1}
    assert metrics.mean([0.4, 0.4]) == {"value": 40.0, "ci95": None, "n": 2}
    assert metrics.rouge(["the cat"], ["the cat sat"])["rouge1"]["ci95"] is None
    assert metrics.mean([7], scale=1) == {"value": 7.0, "ci95": None, "n": 1}


def test_perfect_answers_have_an_interval_too():
    texts = ["the cat sat on the mat", "a dog came by", "it was late in the day"] * 7
    for metric in [*metrics.rouge(texts, texts).values(), metrics.bleu(texts, texts)]:
        assert (metric["value"], metric["ci95"]) == (100, pytest.approx([84.536, 100], abs=1e-2))


def test_confusion_and_report_are_those_of_sklearn():
    random = numpy.random.default_rng(9)
    labels = ["b", "a", "never"]  # not sorted: rows stand in the order of the labels
    true, predicted = list(random.choice(labels[:2], 50)), list(random.choice(labels[:2], 50))
    matrix = metrics.confusion(predicted, true, labels)
    assert matrix == {"labels": labels, "counts": reference.confusion_matrix(true, predicted, labels=labels).tolist()}
    told = reference.classification_report(true, predicted, labels=labels, output_dict=True, zero_division=numpy.nan)
    for label, *values, rows in metrics.report(matrix):
        assert float(rows) == told[label]["support"]
        for value, name in zip(values, ("precision", "recall", "f1-score"), strict=True):
            expected = told[label][name]
            assert value == ("-" if numpy.isnan(expected) else f"{100 * expected:.2f}")


def test_a_figure_shows_what_is_known():
    assert metrics.figure({"value": 36.9, "ci95": [35.1, 38.7], "n": 9}) == "36.90 [35.10, 38.70]"
    assert metrics.figure({"value": 36.9, "ci95": None, "n": 1}) == "36.90"
    assert metrics.figure(metrics.UNKNOWN) == metrics.figure(None) == "-"


def test_every_score_has_a_title():
    texts, labels = ["negative", "positive"], ["negative", "positive"]
    names = {*metrics.classification(texts, texts, labels), *metrics.generated(texts, texts, labels), *metrics.ROUGES}
    names |= {*metrics.outcomes(texts, texts, labels), *metrics.RESPONSES, *(f"echo_{n}" for n in metrics.RESPONSES)}
    assert names - set(metrics.TITLES) == set()


def test_an_empty_answer_has_no_bertscore():
    wanted = ["The cat sat on the mat.", "A dog came by.", "Late."]
    found = metrics.bertscore([wanted[0], "", " \n"], wanted)
    assert found["value"] == pytest.approx(100 / 3, abs=1e-2)
    assert found["n"] == 3
    assert metrics.bertscore(wanted, wanted)["ci95"] == pytest.approx([43.85, 100], abs=1e-2)  # rounding is no spread
    assert metrics.bertscore(["", ""], wanted[:2])["value"] == 0


def test_an_encoder_that_bertscore_does_not_know_is_refused():
    checks.check_encoder("minilm")
    checks.check_encoder("roberta-large")
    for name in ("smollm2", "", "roberta-larg"):
        with pytest.raises(InputError, match="give minilm or, say, roberta-large"):
            checks.check_encoder(name)
