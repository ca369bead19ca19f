"""The test stage: what it keeps of an interrupted test, what it counts, what it says of one text."""

import json
import math

import pytest
import tiny
import torch

from common import checkpoints, encoding, evaluation, qlora
from common.console import Failed
from common.evaluation import Predictions, Timing
from common.evaluation import kept as kept_rows

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


def test_a_text_gets_its_likeliest_classes_or_a_summary(model, encoder, tokenizer, capsys):
    said = evaluation.answer(model, encoder, "engine " * 600, tiny.settings()).splitlines()
    assert len(said) == 2
    shares = [float(line.split("  ")[1].split("%")[0]) for line in said]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert "was cut" in capsys.readouterr().err
    plain = encoding.prompter(tokenizer, TEMPLATE, "plain", tiny.settings(), [])
    settings = tiny.settings(max_new_tokens=5)
    written = evaluation.answer(model, plain, "engine", settings)
    assert written == evaluation.answer(model, plain, "engine", settings)


def test_labels_whose_probability_is_nearly_nothing_still_have_shares(model, encoder, tokenizer):
    labels = ["engine " * 150, "doctor " * 150]
    long = encoding.prompter(tokenizer, TEMPLATE, "plain", tiny.settings(), labels)
    assert "% of the labels' probability" in evaluation.answer(model, long, "a", tiny.settings())


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
