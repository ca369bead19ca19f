"""The IMDB study with encoders: one split for all, the Trainer and the plain loop, one training in two ways."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import types

import numpy
import pytest
import torch
from conftest import ROOT, record_of
from sklearn import metrics as reference

from common import bookkeeping, checkpoints, console, data, encoders, metrics, precision, qlora, splits, training
from common.encoders import loops
from common.runs import folders, records
from common.settings import Execution

LABELS = ["negative", "positive"]
FACTS = folders.load_module(ROOT / "distilbert" / "model.py")
WORDING = folders.load_module(ROOT / "distilbert" / "prompts.py")
LOOP = folders.load_module(ROOT / "distilbert" / "distilbert_sentiment_loop.py")
TRAINER = folders.load_module(ROOT / "distilbert" / "distilbert_sentiment.py")


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory):
    """Without dropout: then Trainer and loop are one training."""
    import tiny

    still = dict.fromkeys(("dropout", "attention_dropout", "seq_classif_dropout"), 0.0)
    return tiny.write_encoder(tmp_path_factory.mktemp("encoder"), FACTS.VARIANTS[0].shape | still)


# The rows


def reviews(folder, n=200):
    """A folder with IMDB's files: a tenth of the texts stands twice, once in each file."""
    rows = [{"text": f"review {i} was {LABELS[i % 2]}", "label": LABELS[i % 2]} for i in range(n)]
    (folder / "imdb").mkdir()
    for name, part in (("train", rows[: n // 2]), ("test", rows[n // 2 :] + rows[: n // 10])):
        (folder / "imdb" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    return folder


def test_reviews_are_split_70_10_20_balanced_and_no_review_stands_in_two_splits(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(reviews(tmp_path)))
    found = data.imdb()
    parts = (found.train, found.validation, found.test)
    assert [len(rows) for rows in parts] == [140, 20, 40]
    assert found.dropped == {"duplicate": 20}
    keys = [splits.key(row) for rows in parts for row in rows]
    assert len(set(keys)) == len(keys) == 200
    for rows in parts:
        assert abs(sum(row["target"] == "positive" for row in rows) - len(rows) / 2) <= 1
    assert found.n == {"train": 140, "validation": 20, "test": 40}


def test_limits_hold_and_subsets_are_nested(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(reviews(tmp_path)))
    found = data.imdb(max_train_samples=90, max_validation_samples=10, max_test_samples=25)
    assert [len(rows) for rows in (found.train, found.validation, found.test)] == [90, 10, 25]
    fewer = data.imdb(max_train_samples=30, max_test_samples=8)
    assert (fewer.train, fewer.test) == (found.train[:30], found.test[:8])


@pytest.mark.skipif(not os.environ.get("DATA_DIR"), reason="DATA_DIR is not set")
def test_no_real_review_stands_in_two_splits():
    found = data.imdb()
    keys = [{splits.key(row) for row in rows} for rows in (found.train, found.validation, found.test)]
    assert sum(map(len, keys)) == len(set.union(*keys)) == len(found.train + found.validation + found.test)
    assert found.labels == LABELS


def test_own_test_rows_are_never_trained_on(tmp_path):
    found = data.imdb(path=str(reviews(tmp_path) / "imdb"))
    assert {splits.key(row) for row in found.test} & {splits.key(row) for row in found.train} == set()
    assert len(found.test) == 120


def test_two_classes_have_their_own_accuracies_and_sklearns_precision_and_recall():
    chance = numpy.random.default_rng(0)
    truth, guessed = ([LABELS[i] for i in chance.integers(0, 2, 60)] for _ in range(2))
    found = metrics.classification(guessed, truth, LABELS)
    for name, function in (("precision", reference.precision_score), ("recall", reference.recall_score)):
        assert found[name]["value"] == pytest.approx(100 * function(truth, guessed, average="macro"), abs=1e-3)
    by_class = reference.recall_score(truth, guessed, average=None, labels=LABELS)
    for label, value in zip(LABELS, by_class, strict=True):
        assert found[f"accuracy_{label}"]["value"] == pytest.approx(100 * value, abs=1e-3)
    counts = metrics.confusion(guessed, truth, LABELS)["counts"]
    assert counts == reference.confusion_matrix(truth, guessed, labels=LABELS).tolist()


# The Trainer and the loop


def start(tiny_encoder, script, folder, *words):
    command = [sys.executable, str(ROOT / "distilbert" / f"{script}.py"), "--pretrained_ckpt", str(tiny_encoder)]
    return subprocess.Popen(
        [*command, "--demo", "--output_dir", str(folder), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT / "distilbert",
    )


def ended(child):
    out, err = child.communicate(timeout=300)
    return record_of(subprocess.CompletedProcess([], child.returncode, out, err), ROOT / "distilbert")


@pytest.fixture(scope="module")
def looped(tiny_encoder, tmp_path_factory):
    return ended(start(tiny_encoder, "distilbert_sentiment_loop", tmp_path_factory.mktemp("loop"), "--epochs", "4"))


@pytest.fixture(scope="module")
def trained(tiny_encoder, tmp_path_factory):
    return ended(start(tiny_encoder, "distilbert_sentiment", tmp_path_factory.mktemp("trainer"), "--epochs", "4"))


def test_trainer_and_loop_see_the_same_rows_and_keep_the_curves_of_every_step(looped, trained):
    for record in (looped, trained):
        records.validate(record)
        assert record["identity"]["task"] == "sentiment"
        assert len(record["training"]["validation"]) == 4
        assert record["training"]["steps"] == len(record["training"]["losses"]) == 4 * 2
        for name in ("loss", "grad_norm", "learning_rate"):
            assert len(record["training"]["curves"][name]) == 8
        rates = record["training"]["curves"]["learning_rate"]
        assert rates[-1] < max(rates) / 2
        assert sum(map(sum, record["confusion"]["tuned"]["counts"])) == record["data"]["n"]["test"] == 8
        assert record["data"]["truncated"].keys() == {"train", "validation", "test"}
    assert looped["identity"]["data"] == trained["identity"]["data"]
    mine, theirs = (record["identity"]["settings"] for record in (looped, trained))
    assert {name for name in mine if mine[name] != theirs[name]} == {"trainer"}


def test_without_dropout_trainer_and_loop_are_one_training(looped, trained):
    """The same head, batches, optimizer, schedule and validation."""
    mine, theirs = looped["training"], trained["training"]
    assert mine.keys() == theirs.keys() - {"unpacked"}
    assert mine["losses"] == pytest.approx(theirs["losses"], abs=1e-3)
    for name, tolerance in (("learning_rate", 1e-12), ("grad_norm", 1e-2)):
        assert mine["curves"][name] == pytest.approx(theirs["curves"][name], rel=tolerance, abs=tolerance)
    for one, other in zip(mine["validation"], theirs["validation"], strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    assert looped["metrics"] == trained["metrics"]
    assert (mine["tokens"], mine["steps"]) == (theirs["tokens"], theirs["steps"])
    assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-3)


# Within one process


@pytest.fixture
def make(tiny_encoder, tmp_path):
    """make(script, execution changes, **settings) -> what the script's stages are handed, on the sample."""

    def made(script, folder="run", precision="float32", **changes):
        settings = script.SETTINGS.replaced(changes)
        checkpoint = checkpoints.find(str(tiny_encoder))
        execution = Execution(folder=tmp_path / folder, precision=precision, inference_batch_size=64)
        reader = encoders.reader(qlora.tokenizer(checkpoint), WORDING.SENTIMENT, settings)
        rows = data.imdb(demo=True)
        network = encoders.network(checkpoint, rows.labels, settings, execution)
        return types.SimpleNamespace(
            settings=settings, execution=execution, reader=reader, rows=rows, network=network, checkpoint=checkpoint
        )

    return made


def encoded(run):
    return (
        run.reader.training_rows(run.rows.train, run.rows.labels, "train"),
        run.reader.training_rows(run.rows.validation, run.rows.labels, "validation"),
    )


def by_loop(run):
    rows, validation = encoded(run)
    with training.fused_layers(run.network):
        return LOOP.loop(run.network, run.reader, rows, validation, run.settings, run.execution, None)["training"]


def by_trainer(run):
    return encoders.tune(run.network, run.reader, run.rows, run.settings, run.execution)[1]["training"]


def test_both_validate_under_autocast_where_products_are_in_bfloat16(make):
    """Review A.9. In bfloat16 a loss has three digits: validated in float32 it would differ in the third."""
    mine = by_loop(make(LOOP, "loop", precision.MIXED, epochs=2))["validation"]
    theirs = by_trainer(make(TRAINER, "trainer", precision.MIXED, epochs=2))["validation"]
    plain = by_loop(make(LOOP, "plain", epochs=2))["validation"]
    for one, other, float32 in zip(mine, theirs, plain, strict=True):
        assert one == pytest.approx(other, abs=2e-4)
        assert one["loss"] != float32["loss"]


@pytest.mark.parametrize("script", [LOOP, TRAINER], ids=["loop", "Trainer"])
def test_seconds_are_of_the_whole_training_with_its_validation(make, monkeypatch, script):
    """Review A.9: a validation that takes two seconds counts in both."""
    run = make(script, epochs=2)
    pause = 2.0

    def slow(function):
        def call(*given, **named):
            time.sleep(pause)
            return function(*given, **named)

        return call

    if script is LOOP:
        monkeypatch.setattr(LOOP, "validate", slow(LOOP.validate))
        report = by_loop(run)
    else:
        import transformers

        monkeypatch.setattr(transformers.Trainer, "evaluation_loop", slow(transformers.Trainer.evaluation_loop))
        report = by_trainer(run)
    assert report["seconds"] > 2 * pause
    assert report["tokens_per_second"] == pytest.approx(report["tokens"] / report["seconds"])


@pytest.mark.parametrize("script", [LOOP, TRAINER], ids=["loop", "Trainer"])
def test_of_epochs_that_are_equally_right_both_keep_the_one_with_the_least_loss(make, monkeypatch, script):
    """Review A.9. Of five epochs the fourth is as right as the second, at a lower loss; the fifth equals it."""
    told = [(0.5, 0.9), (0.75, 0.8), (0.5, 0.1), (0.75, 0.7), (0.75, 0.7)]
    run, saved, seen = make(script, epochs=5), [], []
    keep = encoders.heads.save

    def validated():
        seen.append(told[len(seen)])
        return dict(zip(("accuracy", "loss"), seen[-1], strict=True))

    def save_now(*given):
        saved.append(len(seen))
        return keep(*given)

    monkeypatch.setattr(encoders.heads, "save", save_now)
    monkeypatch.setattr(encoders, "save", save_now)
    if script is LOOP:
        monkeypatch.setattr(LOOP, "validate", lambda *_: validated())
        by_loop(run)
    else:
        import transformers

        whole = transformers.Trainer.evaluation_loop

        def evaluation_loop(self, *given, **named):
            output = whole(self, *given, **named)
            output.metrics.update({f"eval_{name}": value for name, value in validated().items()})
            return output

        monkeypatch.setattr(transformers.Trainer, "evaluation_loop", evaluation_loop)
        by_trainer(run)
    assert saved == [1, 2, 4]


@pytest.mark.parametrize("script", [LOOP, TRAINER], ids=["loop", "Trainer"])
def test_a_best_epoch_before_a_kill_is_still_what_is_kept_after_it(make, monkeypatch, script):
    """The first epoch is the best one; the run is interrupted in the third and resumed."""
    run, told, weights = make(script, epochs=4), iter([0.9, 0.5, None, 0.4, 0.3]), []

    def validated(network):
        weights.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        accuracy = next(told)
        if accuracy is None:
            raise KeyboardInterrupt
        return {"accuracy": accuracy, "loss": 1.0}

    if script is LOOP:
        monkeypatch.setattr(LOOP, "validate", lambda network, *_: validated(network))
    else:
        import transformers

        whole = transformers.Trainer.evaluation_loop

        def evaluation_loop(self, *given, **named):
            output = whole(self, *given, **named)
            output.metrics.update({f"eval_{name}": value for name, value in validated(self.model).items()})
            return output

        monkeypatch.setattr(transformers.Trainer, "evaluation_loop", evaluation_loop)
    train = guarded_loop if script is LOOP else by_trainer
    with pytest.raises(KeyboardInterrupt):
        train(run)
    again = make(script, epochs=4)
    again.execution = dataclasses.replace(again.execution, resume=True)
    assert [each["accuracy"] for each in train(again)["validation"]] == [0.9, 0.5, 0.4, 0.3]
    kept = encoders.saved(again.network, again.rows.labels, again.settings, again.execution.folder).state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in weights[0].items())


def guarded_loop(run):
    with encoders.guarded(run.settings, run.execution):
        return by_loop(run)


def test_what_the_loop_keeps_is_the_best_epochs_weights(make, monkeypatch):
    """An epoch that is worse than the one before does not replace it."""
    run, told = make(LOOP, epochs=3, learning_rate=1e-3), iter([(0.5, 1.0), (0.9, 0.5), (0.6, 0.7)])
    weights = []

    def validate(network, *_):
        weights.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return dict(zip(("accuracy", "loss"), next(told), strict=True))

    monkeypatch.setattr(LOOP, "validate", validate)
    by_loop(run)
    kept = encoders.saved(run.network, run.rows.labels, run.settings, run.execution.folder).state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in weights[1].items())
    assert not all(torch.equal(kept[name], tensor) for name, tensor in weights[2].items())


def test_a_loop_that_diverges_ends_as_failed_and_leaves_no_finished_training(make):
    run = make(LOOP, epochs=2, learning_rate=1e30)
    with pytest.raises(console.Failed, match="--learning_rate"):
        by_loop(run)
    assert training.finished(run.execution) is None


def test_a_step_that_memory_does_not_hold_ends_as_oom(tiny_encoder, make, monkeypatch):
    run = make(LOOP, epochs=1)
    run.template, run.trained, run.tokenizer = WORDING.SENTIMENT, None, qlora.tokenizer(run.checkpoint)
    run.rows = {"demo": True}
    monkeypatch.setattr(LOOP.budget, "before", lambda *_: None)
    monkeypatch.setattr(loops, "batches", None)

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(encoders, "batches", full)
    with pytest.raises(console.Failed, match="--batch_size") as failure:
        LOOP.main(run)
    assert failure.value.status == "OOM"


def test_float16_is_refused_by_the_loop():
    with pytest.raises(console.InputError, match="bfloat16"):
        loops.autocast(Execution(folder=ROOT, precision="float16"))


def test_fewer_rows_a_forward_pass_are_the_same_training(make):
    whole, parts = (by_loop(make(LOOP, f"{rows}", epochs=2, micro_batch_size=rows)) for rows in (16, 4))
    assert parts["losses"] == pytest.approx(whole["losses"], abs=1e-4)
    assert (parts["tokens"], parts["micro_batch_size"]) == (whole["tokens"], 4)
    assert parts["curves"]["grad_norm"] == pytest.approx(whole["curves"]["grad_norm"], rel=1e-3)


def test_a_loop_counts_a_fraction_of_an_epoch_as_the_trainer_does(make):
    mine, theirs = by_loop(make(LOOP, "loop", epochs=1.5)), by_trainer(make(TRAINER, "trainer", epochs=1.5))
    assert (mine["steps"], mine["tokens"]) == (theirs["steps"], theirs["tokens"])
    assert [each["epoch"] for each in mine["validation"]] == [each["epoch"] for each in theirs["validation"]]


# After a kill


def test_a_killed_loop_goes_on_after_its_last_epoch_and_ends_the_same(tiny_encoder, tmp_path, looped):
    child = start(tiny_encoder, "distilbert_sentiment_loop", tmp_path, "--epochs", "4")
    while not list(tmp_path.glob(f"checkpoints/*/{bookkeeping.SEAL}")):
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    again = start(tiny_encoder, "distilbert_sentiment_loop", tmp_path, "--epochs", "4", "--resume")
    out, err = again.communicate(timeout=300)
    resumed = record_of(subprocess.CompletedProcess([], again.returncode, out, err), ROOT / "distilbert")
    assert "resuming after step" in out
    assert resumed["training"]["losses"] == looped["training"]["losses"]
    assert resumed["training"]["validation"] == looped["training"]["validation"]
    assert resumed["metrics"] == looped["metrics"]
    assert not (tmp_path / "checkpoints").exists()
