"""The test stage: what it keeps of an interrupted test, what it counts, what it says of one text."""

import dataclasses
import json
import math

import numpy
import pytest
import tiny
import torch

from common import checkpoints, encoding, evaluation, qlora
from common.console import Failed, InputError
from common.evaluation import Predictions, Timing, calibration
from common.evaluation import kept as kept_rows
from common.runs import questions

LABELS = ["rec.autos", "sci.med"]
ROWS = [{"text": f"engine {i} and doctor", "target": LABELS[i % 2]} for i in range(6)]
TEMPLATE = encoding.Template("{labels}\n{document}", cue="\n### Class:")


@pytest.fixture(scope="module")
def model(tiny_folder):
    return qlora.base(checkpoints.find(str(tiny_folder)), tiny.execution(tiny_folder))


@pytest.fixture
def encoder(tokenizer):
    return encoding.prompter(tokenizer, TEMPLATE, "plain", tiny.settings(), LABELS)


def kept(folder, resume, n=4, valid=kept_rows.is_scores):
    return Predictions(tiny.execution(folder, resume=resume), "x", n, Timing(), valid)


def test_predictions_survive_and_only_a_resumed_run_takes_them_over(tmp_path):
    first = kept(tmp_path, False)
    first.add([2, 0], [{"scores": [1.0, 2.0]}, {"scores": [3.0, 4.0]}], 0.5)
    again = kept(tmp_path, True)
    assert (again.done, again.rows[0]["scores"], again.timing.batches) == ({0, 2}, [3.0, 4.0], [(0.5, 2)])
    again.add([1, 3], [{"scores": [0.0, 1.0]}, {"scores": [0.0, 2.0]}], 0.25)
    assert kept(tmp_path, True).rows == again.rows
    assert kept(tmp_path, False).done == frozenset()
    assert (tmp_path / "predictions-x.jsonl").read_text() == ""


GOOD = {"rows": [0, 1], "seconds": 0.5, "found": [{"scores": [1.0, 2.0]}] * 2}
LINES = {
    "torn": json.dumps(GOOD)[:-9].encode(),
    "torn at its end": json.dumps(GOOD).encode(),
    "binary": b"\xff\x00\xfe\n",
    "empty": b"\n",
    "no object": b"[1, 2]\n",
    "nested deeply": b"[" * 200_000 + b"\n",
    **{
        f"{field} {value!r:.40}": json.dumps({**GOOD, field: value}).encode() + b"\n"
        for field, value in [
            ("rows", [0, 4]),
            ("rows", [-1, 1]),
            ("rows", [0, 0]),
            ("rows", [0]),
            ("rows", []),
            ("rows", "01"),
            ("rows", [True, False]),
            ("rows", [2, 3]),  # of a line before
            ("seconds", "long"),
            ("seconds", -1),
            ("seconds", math.nan),
            ("found", [{"scores": [1.0]}, 5]),
            ("found", [{"text": "a"}] * 2),
            ("found", [{"scores": []}] * 2),
            ("found", [{"scores": [1.0, None]}] * 2),
            ("found", [{"scores": [1.0, math.nan]}] * 2),
            ("found", None),
        ]
    },
    "without a field": b'{"rows": [0, 1], "seconds": 1}\n',
}


@pytest.mark.parametrize("line", LINES)
def test_lines_that_are_torn_or_foreign_are_passed_over_with_a_warning(tmp_path, line, capsys):
    whole = json.dumps({**GOOD, "rows": [3, 2]}).encode() + b"\n"
    (tmp_path / "predictions-x.jsonl").write_bytes(whole + LINES[line])
    again = kept(tmp_path, True)
    assert again.done == {2, 3}
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "predictions-x.jsonl").read_bytes() == whole


def test_rows_of_another_stage_or_of_other_labels_are_foreign(tmp_path):
    written = {"text": "a", "tokens": 2, "stopped": True}
    assert kept_rows.is_answer(written)
    for name, value in (("tokens", 2.0), ("stopped", 1), ("text", None), ("more", 1)):
        assert not kept_rows.is_answer({**written, name: value})
    assert kept_rows.scores_of(LABELS)({"scores": [1.0, 2]})
    assert not kept_rows.scores_of(LABELS)({"scores": [1.0]})


def test_an_interrupted_test_goes_on_and_scores_the_same(model, encoder, tmp_path):
    data = tiny.data(ROWS, ROWS, labels=LABELS)
    told = (model, encoder, data, tiny.settings(max_new_tokens=4))
    execution = {"stages": ("tuned",), "inference_batch_size": 2}
    whole = evaluation.labels(*told, tiny.execution(tmp_path, **execution))
    for name in ("labels", "answers"):
        path = tmp_path / f"predictions-tuned-{name}.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
    again = evaluation.labels(*told, tiny.execution(tmp_path, resume=True, **execution))
    assert again["tuned"] == whole["tuned"]
    assert again["confusion"] == whole["confusion"]


def test_seconds_of_every_stage_and_part_are_told(model, encoder, tmp_path):
    data = tiny.data(ROWS, ROWS, labels=LABELS)
    scores = evaluation.labels(model, encoder, data, tiny.settings(max_new_tokens=4), tiny.execution(tmp_path))
    seconds = scores["inference"]["stages"]
    assert list(seconds) == ["base", "base, free answers", "tuned", "tuned, free answers"]
    assert all(each > 0 for each in seconds.values())
    assert scores["inference"]["seconds"] == seconds["tuned"]
    assert set(scores["confusion"]) == {"base", "tuned"}
    assert scores["base"] == scores["tuned"]  # there is no adapter to switch off
    assert encoder.truncated == {"test": 0}


def test_a_task_has_its_stage_and_a_random_head_is_chance(model, encoder, tiny_folder, tmp_path):
    data = tiny.data(ROWS, ROWS, labels=LABELS)
    settings, execution = tiny.settings(max_new_tokens=4), tiny.execution(tmp_path, stages=("base",))
    scores = evaluation.of_task("classification", model, encoder, data, settings, execution)
    assert scores["tuned"] is None
    assert scores["base"]["accuracy"]["n"] == 6
    summaries = evaluation.of_task("summarization", model, encoder, data, settings, execution)
    assert {"rouge1", "stopped"} < set(summaries["base"])
    assert summaries["confusion"] is None
    found = [
        evaluation.random_head(checkpoints.find(str(tiny_folder)), encoder, data, tiny.settings(seed=seed), execution)[
            "confusion"
        ]
        for seed in (1, 1)
    ]
    assert found[0] == found[1]


def asked(*texts, temperature=1.0):
    return questions.Questions([{"text": text} for text in texts], list(range(len(texts))), temperature)


def test_texts_get_their_likeliest_class_or_a_summary(model, encoder, tokenizer, tmp_path, capsys):
    nowhere = tiny.execution(None)
    (said,) = evaluation.answers(model, encoder, asked("engine " * 600), tiny.settings(), nowhere)
    assert said["answer"] == max(said["probabilities"], key=said["probabilities"].get)
    assert sum(said["probabilities"].values()) == pytest.approx(1)
    assert "was cut" in capsys.readouterr().err
    (cooler,) = evaluation.answers(model, encoder, asked("engine " * 600, temperature=1e6), tiny.settings(), nowhere)
    assert list(cooler["probabilities"].values()) == pytest.approx([0.5, 0.5], abs=1e-3)
    plain, settings = (
        encoding.prompter(tokenizer, TEMPLATE, "plain", tiny.settings(), []),
        tiny.settings(max_new_tokens=5),
    )
    alone = [evaluation.answers(model, plain, asked(text), settings, nowhere)[0] for text in ("engine", "a b")]
    assert alone == evaluation.answers(model, plain, asked("engine", "a b"), settings, tiny.execution(tmp_path))
    assert alone[0]["probabilities"] is None


def test_labels_whose_probability_is_nearly_nothing_still_have_shares(model, encoder, tokenizer):
    labels = ["engine " * 150, "doctor " * 150]
    long = encoding.prompter(tokenizer, TEMPLATE, "plain", tiny.settings(), labels)
    (said,) = evaluation.answers(model, long, asked("a"), tiny.settings(), tiny.execution(None))
    assert sum(said["probabilities"].values()) == pytest.approx(1)


def test_the_temperature_is_the_one_with_the_least_loss_and_mends_the_probabilities():
    """Against torch's own optimizer and loss, with Platt's counts. The scores are true, but three times too sure."""
    draw = numpy.random.default_rng(0)
    scores = draw.normal(size=(4000, 5))
    shares = calibration.probabilities(scores)
    truth = numpy.array([draw.choice(5, p=row) for row in shares])
    found = calibration.temperature(3 * scores, truth)
    targets = (torch.nn.functional.one_hot(torch.tensor(truth), 5).double() * 4000 + 1) / 4005
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100)

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(torch.tensor(3 * scores) / log_temperature.exp(), targets)
        value.backward()
        return value

    optimizer.step(loss)
    assert found == pytest.approx(float(log_temperature.exp().detach()), rel=1e-3)
    assert found == pytest.approx(3, rel=0.1)
    raw, mended = (calibration.error(calibration.probabilities(3 * scores, t), truth) for t in (1, found))
    assert raw["value"] > 15
    assert mended["value"] < 3
    assert calibration.temperature(3 * scores[:10], truth[:10]) == 1


def test_rows_that_are_all_right_do_not_make_a_model_certain():
    """Without the counts of Platt the least loss is at probabilities of 1."""
    truth = numpy.arange(60) % 3
    scores = 8.0 * numpy.eye(3)[truth] + numpy.random.default_rng(0).normal(size=(60, 3))
    shares = calibration.probabilities(scores, calibration.temperature(scores, truth))
    assert shares.max(axis=1).mean() == pytest.approx(61 / 63, abs=0.01)


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy():
    shares = numpy.array([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10)
    right = [0] * 8 + [1] * 2 + [1] * 3 + [0] * 7  # 0.8 of those with 0.9, and 0.3 of those with 0.6
    assert calibration.error(shares, right)["value"] == pytest.approx(100 * (10 * 0.1 + 10 * 0.3) / 20)
    assert calibration.error(numpy.array([[1.0, 0.0]] * 4), [0, 0, 0, 1])["value"] == pytest.approx(25)


@pytest.mark.parametrize("kind", ["own", "study"])
def test_own_data_calibrate_the_probabilities(kind, model, encoder, tmp_path):
    data = dataclasses.replace(tiny.data(ROWS, ROWS, ROWS * 5, labels=LABELS), kind=kind)
    execution = tiny.execution(tmp_path, stages=("tuned",))
    scores = evaluation.labels(model, encoder, data, tiny.settings(max_new_tokens=4), execution)["tuned"]
    assert ({"ece", "ece_raw"} <= set(scores)) == (kind == "own")
    assert (tmp_path / "calibration.json").is_file() == (kind == "own")
    if kind == "own":
        assert calibration.stored(tmp_path) != 1
        (tmp_path / "calibration.json").write_text("{}")
        with pytest.raises(InputError, match="no temperature"):
            calibration.stored(tmp_path)


def test_a_model_whose_scores_are_nan_fails(model, encoder, tmp_path, monkeypatch):
    forward = type(model).forward

    def broken(self, *given, **named):
        out = forward(self, *given, **named)
        out.logits = torch.full_like(out.logits, math.nan)
        return out

    broken.__signature__ = __import__("inspect").signature(forward)
    monkeypatch.setattr(type(model), "forward", broken)
    with pytest.raises(Failed, match="not numbers"):
        evaluation.labels(
            model, encoder, tiny.data(ROWS, ROWS, labels=LABELS), tiny.settings(), tiny.execution(tmp_path)
        )
