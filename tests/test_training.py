"""Fine-tuning: the loss is transformers' own on the answer, tuned models stop, what is saved is what was trained,
a killed run ends where an uninterrupted one does."""

import contextlib
import dataclasses
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import types

import pytest
import tiny
import torch
from conftest import ROOT, record_of

from common import batches, bookkeeping, checkpoints, console, encoding, evaluation, machine, qlora, training
from common.console import Failed, InputError

TEMPLATE = encoding.Template("Summarize.\n\n### Dialogue:\n{document}", cue="\n\n### Summary:")
LONG = "Bob: are we still on for Sunday? Ann: yes, at ten, bring the tent. " * 40


def toy(n=16, answer="They meet on Sunday.", validation=0):
    rows = [{"text": f"Ann: Sunday at {i}? Bob: fine", "target": answer} for i in range(n + validation)]
    return tiny.data(rows[:n], rows[:4], rows[n:])


@pytest.fixture
def train(load, tokenizer, tmp_path):
    """train(data, folder=…, resume=False, …Settings…) -> the model, the report and what else a stage needs."""

    def train(data, folder=tmp_path / "run", dtype="float32", resume=False, base=None, expect=None, **changes):
        settings = tiny.settings(**{"targets": tiny.LINEAR, "epochs": 8, **changes})
        execution = tiny.execution(folder, precision=dtype, resume=resume)
        encoder = encoding.prompter(tokenizer, TEMPLATE, "plain", settings, [])
        model, report = training.tune(base or load(dtype), encoder, data, settings, execution, expect)
        return types.SimpleNamespace(
            model=model,
            report=report,
            losses=report["training"]["losses"],
            encoder=encoder,
            settings=settings,
            execution=execution,
        )

    return train


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_toy_tuned_model_says_what_it_learned_and_stops_before_the_budget(train, dtype):
    data = toy()
    run = train(data, dtype=dtype, epochs=24)  # rounding to bfloat16 costs steps, on some processors more
    scores = evaluation.summaries(run.model, run.encoder, data, run.settings, run.execution)
    assert scores["tuned"]["rouge1"]["value"] == 100
    assert scores["tuned"]["stopped"]["value"] == 100
    assert scores["base"]["stopped"]["value"] < 100
    assert scores["base"]["rouge1"]["value"] < 50
    assert run.losses[-1] < run.losses[0] - 1
    assert run.report["training"]["unpacked"] is True


def test_every_setting_of_a_training_reaches_the_trainer(load, tmp_path):
    asked = {"batch_size": 8, "micro_batch_size": 2, "learning_rate": 3e-4, "lr_scheduler": "linear", "seed": 7}
    asked |= {"warmup_ratio": 0.25, "optimizer": "sgd", "weight_decay": 0.1, "max_grad_norm": 0.7, "neftune": 5.0}
    told = training.arguments(
        tiny.settings(epochs=2, **asked), tiny.execution(tmp_path, torch_compile=True), load(), 80, tmp_path, 2
    )
    assert (told["per_device_train_batch_size"], told["gradient_accumulation_steps"]) == (2, 4)
    assert (told["warmup_steps"], told["num_train_epochs"]) == (5, 2)
    assert (told["learning_rate"], told["lr_scheduler_type"], told["seed"]) == (3e-4, "linear", 7)
    assert (told["optim"], told["weight_decay"], told["max_grad_norm"]) == ("sgd", 0.1, 0.7)
    assert (told["neftune_noise_alpha"], told["torch_compile"]) == (5.0, True)


def test_loss_is_transformers_own_on_the_answer_alone(load, tokenizer, tmp_path):
    import datasets

    settings, execution = tiny.settings(), tiny.execution(tmp_path)
    encoder = encoding.prompter(tokenizer, TEMPLATE, "plain", settings, [])
    rows = encoding.training_rows(encoder, [*toy(3).train, {"text": LONG, "target": "A long one."}])
    model = qlora.new_adapter(load("float32"), settings)
    config = training.arguments(settings, execution, model, len(rows), tmp_path, 4)
    sampler = batches.by_length([len(row["input_ids"]) for row in rows], 4, seed=1)
    pair = datasets.Dataset.from_list(rows), None
    trainer = training.answers_only(tokenizer, model, pair, config, sampler, bookkeeping.bookkeeper())
    batch = next(iter(trainer.get_train_dataloader()))
    assert sorted(map(len, (row["input_ids"] for row in rows))) == sorted(batch["attention_mask"].sum(1).tolist())
    supervised = int((batch["labels"] != -100).sum())
    assert supervised == sum(sum(label != -100 for label in row["labels"]) for row in rows)
    mine = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=torch.tensor(supervised))
    plain = load("float32")  # the adapter starts as zero
    theirs = plain(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}).loss
    assert float(mine) == pytest.approx(float(theirs), rel=1e-5)


def test_batches_hold_rows_of_like_length_every_row_once_and_differ_by_epoch_and_seed():
    lengths = [(i * 37) % 400 for i in range(150)]
    sampler = batches.by_length(lengths, 4, seed=1)
    first = list(sampler)
    assert sorted(first) == list(range(150))
    padded = sum(4 * max(lengths[i] for i in first[at : at + 4]) for at in range(0, 150, 4))
    assert padded < 1.1 * sum(lengths)
    assert first == list(sampler) == list(batches.by_length(lengths, 4, seed=1))
    assert first != list(batches.by_length(lengths, 4, seed=2))
    sampler.set_epoch(1)
    assert first != list(sampler)


def test_no_row_is_lost_however_long_its_document(train):
    data = toy(6)
    data.train[2]["text"] = LONG * 20
    run = train(data, epochs=1, max_document_tokens=64)
    assert run.report["training"]["steps"] == 2
    assert run.encoder.truncated == {"train": 1, "validation": 0}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_was_saved_is_what_was_trained_and_the_base_is_untouched(train, load, dtype):
    run = train(toy(8), dtype=dtype, epochs=2)
    ids = torch.arange(3, 40)[None]
    fresh = qlora.with_adapter(load(dtype), run.execution.folder / "adapter")
    with torch.no_grad():
        assert torch.equal(run.model(ids).logits, fresh(ids).logits)
        with run.model.disable_adapter():
            assert torch.equal(run.model(ids).logits, load(dtype)(ids).logits)
        assert not torch.equal(run.model(ids).logits, load(dtype)(ids).logits)


def test_adapters_are_trained_in_float32(train):
    model = train(toy(4), dtype="bfloat16", epochs=1).model
    assert {p.dtype for name, p in model.named_parameters() if "lora" in name} == {torch.float32}


def test_same_seed_same_losses_another_seed_other_losses(train, tmp_path):
    losses = [train(toy(8), tmp_path / str(i), epochs=1, seed=seed).losses for i, seed in enumerate([1, 1, 2])]
    assert losses[0] == losses[1] != losses[2]


def test_a_small_machine_recomputes_activations_and_learns_the_same(train, tmp_path, monkeypatch):
    plain = train(toy(8), tmp_path / "plain", epochs=1)
    monkeypatch.setattr(training, "recompute", lambda parameters, gpu: True)
    lean = train(toy(8), tmp_path / "lean", epochs=1)
    assert lean.losses == plain.losses
    assert not lean.model.is_gradient_checkpointing
    monkeypatch.undo()
    monkeypatch.setattr(machine, "total", lambda: 8e9)
    assert training.recompute(plain.model.num_parameters(), gpu=False)
    assert not training.recompute(plain.model.num_parameters(), gpu=True)


def test_neftune_changes_training_and_leaves_no_noise_behind(train, tmp_path):
    plain = train(toy(8), tmp_path / "plain", epochs=1)
    noisy = train(toy(8), tmp_path / "noisy", epochs=1, neftune=5.0)
    assert noisy.losses != plain.losses
    ids, model = torch.arange(3, 20)[None], noisy.model
    model.train()
    with torch.no_grad():
        assert torch.equal(model(ids).logits, model(ids).logits)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_a_compiled_training_learns_the_same(load, tokenizer, tmp_path):
    losses = []
    for compiled in (False, True):
        settings = tiny.settings(targets=tiny.LINEAR)
        execution = tiny.execution(tmp_path / str(compiled), torch_compile=compiled)
        encoder = encoding.prompter(tokenizer, TEMPLATE, "plain", settings, [])
        model, report = training.tune(load(), encoder, toy(8), settings, execution)
        losses.append(report["training"]["losses"])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert model(torch.arange(3, 20)[None]).logits.isfinite().all()


@pytest.mark.parametrize("targets", [tiny.ATTENTION, tiny.LINEAR, ("all-linear",), "all-linear"])
def test_an_adapter_is_on_the_named_targets_alone(load, targets):
    adapted = qlora.new_adapter(load(), dataclasses.replace(tiny.settings(), targets=targets))
    names = {n.split(".lora_A")[0].rpartition(".")[2] for n, _ in adapted.named_parameters() if "lora_A" in n}
    assert names == set(tiny.LINEAR if "all-linear" in targets else targets)


# Choosing an epoch


def losses_of(monkeypatch, values):
    """Have the evaluation after each epoch find these losses."""
    import trl

    left = list(values)

    def log(self, logs, *rest, plain=trl.SFTTrainer.log, **named):
        if "eval_loss" in logs:
            logs["eval_loss"] = left.pop(0)
        return plain(self, logs, *rest, **named)

    monkeypatch.setattr(trl.SFTTrainer, "log", log)


@pytest.mark.parametrize(("keep", "kept"), [("best", 2), ("last", 4)])
def test_the_epoch_that_is_kept_is_the_one_that_the_settings_name(train, tmp_path, monkeypatch, keep, kept):
    plain = train(toy(8), tmp_path / "plain", epochs=kept)
    losses_of(monkeypatch, [3.0, 1.0, 1.0, 2.0])
    chosen = train(toy(8, validation=3), tmp_path / "chosen", epochs=4, keep=keep)
    assert [epoch["loss"] for epoch in chosen.report["training"]["validation"]] == [3.0, 1.0, 1.0, 2.0]
    assert len(chosen.report["training"]["curves"]["loss"]) == 8
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(chosen.model(ids).logits, plain.model(ids).logits)


@pytest.mark.parametrize(("after", "evaluated"), [(7, 2), (5, 1)], ids=["in an epoch", "in an evaluation"])
def test_a_resumed_training_measures_every_epoch_and_keeps_the_best_of_all(
    train, tmp_path, monkeypatch, after, evaluated
):
    values = [1.0, 2.0, 3.0, 4.0]
    plain = train(toy(8), tmp_path / "plain", epochs=1)
    with monkeypatch.context() as patch:
        losses_of(patch, values[:evaluated])
        patch.setattr(training, "answers_only", stopping(after))
        with pytest.raises(Stop):
            train(toy(8, validation=3), tmp_path / "chosen", epochs=4, keep="best")
    losses_of(monkeypatch, values[evaluated:])
    chosen = train(toy(8, validation=3), tmp_path / "chosen", epochs=4, keep="best", resume=True)
    assert [epoch["loss"] for epoch in chosen.report["training"]["validation"]] == values
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(chosen.model(ids).logits, plain.model(ids).logits)


# Trainings that end badly


@pytest.mark.parametrize("changes", [{"learning_rate": 1e30}, {"learning_rate": 1e30, "batch_size": 16}])
@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_training_that_diverges_fails_and_leaves_no_adapter(train, tmp_path, changes, keep):
    with pytest.raises(Failed, match=r"not finite.*lower --learning_rate|not numbers") as failure:
        run = train(toy(16, validation=2), tmp_path, keep=keep, **{"epochs": 3, "max_grad_norm": 1e30, **changes})
        evaluation.summaries(run.model, run.encoder, toy(4), run.settings, run.execution)
    assert failure.value.status == "failed"
    assert not (tmp_path / "adapter" / qlora.WEIGHTS).exists()
    assert not (tmp_path / "training.json").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_or_a_gradient_that_is_not_finite_fails_at_its_step(value):
    bookkeeping.check_finite(3, 1.0, None)
    bookkeeping.check_finite(step=3, loss=1.0, grad_norm=2.0, learning_rate=value)
    for measured in ({"loss": value}, {"loss": 1.0, "grad_norm": value}):
        with pytest.raises(Failed, match="not finite at step 3"):
            bookkeeping.check_finite(step=3, **measured)


def short_of_memory(after, passes):
    """training.answers_only whose passes fail on more than `fits` rows once there were `after` of them."""
    plain = training.answers_only

    def build(*given):
        trainer = plain(*given)
        compute = trainer.compute_loss

        def compute_loss(model, inputs, *rest, **keywords):
            passes.append(len(inputs["input_ids"]))
            if passes[-1] > 2 and len(passes) > after:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return compute(model, inputs, *rest, **keywords)

        trainer.compute_loss = compute_loss
        return trainer

    return build


@pytest.mark.parametrize("saves", [10, 1], ids=["from a checkpoint", "from the beginning"])
def test_where_memory_ends_training_goes_on_with_fewer_rows_at_once_and_learns_the_same(
    saves, train, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(training, "SAVES", saves)
    few = train(toy(20), tmp_path / "few", epochs=2, micro_batch_size=2)
    passes = []
    monkeypatch.setattr(training, "answers_only", short_of_memory(5, passes))
    many = train(toy(20), tmp_path / "many", epochs=2)
    assert passes[:6] == [4] * 6
    assert set(passes[6:]) == {2}
    assert len(passes[6:]) == 2 * (10 if saves == 1 else 5)
    assert many.report["training"]["micro_batch_size"] == few.report["training"]["micro_batch_size"] == 2
    assert many.losses == pytest.approx(few.losses, rel=1e-4)
    assert "out of memory with 4 rows at once: going on with 2" in capsys.readouterr().err


def test_where_memory_does_not_hold_one_row_the_run_ends_as_out_of_memory(train, tmp_path, monkeypatch):
    def full(model, *rest, **keywords):
        raise torch.OutOfMemoryError("CUDA out of memory")

    plain = training.answers_only

    def build(*given):
        trainer = plain(*given)
        trainer.compute_loss = full
        return trainer

    monkeypatch.setattr(training, "answers_only", build)
    with pytest.raises(Failed, match="single row") as failure:
        train(toy(8), tmp_path, epochs=1)
    assert failure.value.status == "OOM"
    assert not (tmp_path / "adapter").exists()


def test_noise_on_the_embeddings_ends_with_the_attempt_that_failed(train, monkeypatch):
    monkeypatch.setattr(training, "answers_only", short_of_memory(1, []))
    run = train(toy(8), epochs=1, neftune=5.0)
    assert run.report["training"]["micro_batch_size"] == 2
    assert not run.model.get_input_embeddings()._forward_hooks


def test_a_step_has_the_rows_that_were_asked_for_whatever_fits_at_once():
    assert [batches.largest_divisor(8, most) for most in (16, 8, 5, 4, 3, 1, 0)] == [8, 8, 4, 4, 2, 1, 1]
    assert batches.largest_divisor(6, 4) == 3


def test_an_estimate_is_asked_before_the_training_and_stands_in_the_report(train):
    asked = []

    def expect(model, rows, validation, settings, execution):
        asked.append((len(rows), len(validation), settings.batch_size, execution.precision))
        return types.SimpleNamespace(peak_memory_bytes=5, seconds=7.0, limit=None, extra=1)

    assert train(toy(8), epochs=1, expect=expect).report["estimate"] == {"peak_memory_bytes": 5, "seconds": 7.0}
    assert asked == [(8, 0, 4, "float32")]
    assert train(toy(8), epochs=1, expect=lambda *given: None).report["estimate"] is None


# Interrupted trainings


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def whole(tiny_folder, tokenizer, tmp_path_factory):
    """An uninterrupted training and, beside it, one that stopped after step 9 of 16: (its report, the folder)."""
    settings = tiny.settings(targets=tiny.LINEAR, epochs=4, dropout=0.1, lr_scheduler="cosine", learning_rate=0.003)
    encoder = encoding.prompter(tokenizer, TEMPLATE, "plain", settings, [])
    folder = tmp_path_factory.mktemp("whole")

    def run(execution, build=None):
        base = qlora.base(checkpoints.find(str(tiny_folder)), execution)
        with pytest.MonkeyPatch.context() as patch:
            if build:
                patch.setattr(training, "answers_only", build)
            return training.tune(base, encoder, toy(16), settings, execution)

    _, report = run(tiny.execution(folder / "all"))
    with pytest.raises(Stop):
        run(tiny.execution(folder / "half"), stopping(9))
    return report["training"], folder / "half", run


def watched(act):
    """training.answers_only that calls act(number) before every pass, counted from 1."""
    plain, passes = training.answers_only, itertools.count(1)

    def build(*given):
        trainer = plain(*given)
        compute = trainer.compute_loss

        def compute_loss(*rest, **keywords):
            act(next(passes))
            return compute(*rest, **keywords)

        trainer.compute_loss = compute_loss
        return trainer

    return build


def stopping(after):
    """training.answers_only that stops in the pass after that many."""

    def act(number):
        if number > after:
            raise Stop

    return watched(act)


def test_what_is_kept_of_an_interrupted_training_are_its_last_two_checkpoints(whole):
    assert [path.name for path in bookkeeping.written(whole[1] / "checkpoints")] == ["checkpoint-6", "checkpoint-8"]


def lose(name):
    return lambda folder: (folder / name).unlink()


def damage(name, content):
    """Overwrite a file and leave its size, or cut it short."""
    return lambda folder: (folder / name).write_bytes(content((folder / name).read_bytes()))


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def half(content):
    return content[: len(content) // 2]


def seal(**changes):
    def change(folder):
        told = json.loads((folder / bookkeeping.SEAL).read_text())
        (folder / bookkeeping.SEAL).write_text(json.dumps({**told, **changes}))

    return change


def again(change):
    """Damage a checkpoint and seal it anew: as if it had been written so."""

    def sealed(folder):
        change(folder)
        bookkeeping.seal(folder, bookkeeping.step_of(folder), 1.0)

    return sealed


def other_step(folder):
    path = folder / "trainer_state.json"
    path.write_text(path.read_text().replace('"global_step": 8', '"global_step": 7'))


def link(name):
    def replace(folder):
        shutil.copy(folder / name, folder.parent.parent / name)
        (folder / name).unlink()
        (folder / name).symlink_to(folder.parent.parent / name)

    return replace


FILES = ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", qlora.WEIGHTS]
DAMAGES = {
    "no seal": lose(bookkeeping.SEAL),
    "a torn seal": damage(bookkeeping.SEAL, half),
    "a seal of no object": damage(bookkeeping.SEAL, lambda _: b"[]"),
    "a seal nested deeply": damage(bookkeeping.SEAL, lambda _: b"[" * 200_000),
    "a seal of nothing": damage(bookkeeping.SEAL, lambda _: b""),
    "a seal of another step": seal(step=7),
    "seconds that are none": seal(seconds="long"),
    "seconds that are not a number": seal(seconds=float("nan")),
    "a seal without files": seal(files={}),
    "a seal with paths": seal(files={"../../labels.json": {"size": 1, "sha256": "0"}}),
    "a seal of other kinds": seal(files=[1]),
    "a file more": lambda folder: (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cposix\nsystem\n."),
    "a link": link("optimizer.pt"),
    "a folder": lambda folder: (folder / "more").mkdir(),
    "another step, sealed": again(other_step),
    "no checkpoint but a file": lambda folder: (shutil.rmtree(folder), folder.write_text("")),
    **{f"lost {name}": lose(name) for name in FILES},
    **{f"lost {name}, sealed": again(lose(name)) for name in FILES[:4]},
    **{f"flipped {name}": damage(name, flip) for name in FILES},
    **{f"torn {name}": damage(name, half) for name in FILES},
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_checkpoint_that_is_not_as_written_is_passed_over(whole, tmp_path, kind, capsys):
    shutil.copytree(whole[1], tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    DAMAGES[kind](folder / "checkpoint-8")
    assert bookkeeping.last_whole(folder).name == "checkpoint-6"
    said = capsys.readouterr().err
    assert said.count("\n") == (kind != "no checkpoint but a file")
    DAMAGES["no seal"](folder / "checkpoint-6")
    assert bookkeeping.last_whole(folder) is None


@pytest.mark.parametrize(
    "kind", [None, "lost optimizer.pt", "flipped rng_state.pth", "another step, sealed", "a file more", "both"]
)
def test_a_resumed_training_learns_what_an_uninterrupted_one_does(whole, tmp_path, kind, capsys):
    report, half_way, run = whole
    folder = tmp_path / "run"
    shutil.copytree(half_way, folder)
    for path in bookkeeping.written(folder / "checkpoints") if kind == "both" else []:
        DAMAGES["lost scheduler.pt"](path)
    if kind in DAMAGES:
        DAMAGES[kind](folder / "checkpoints" / "checkpoint-8")
    model, resumed = run(tiny.execution(folder, resume=True))
    said = capsys.readouterr()
    step = {None: "at step 8", "both": "steps\n"}.get(kind, "at step 6")
    assert step in said.out
    assert said.err.count("is not as it was written") == {None: 0, "both": 2}.get(kind, 1)
    same = ("losses", "tokens", "steps", "loss")
    assert {name: resumed["training"][name] for name in same} == {name: report[name] for name in same}
    ids = torch.arange(3, 40)[None]
    other, _ = run(tiny.execution(half_way.parent / "all", resume=True))
    with torch.no_grad():
        assert torch.equal(model(ids).logits, other(ids).logits)
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize("after", [4, 7], ids=["within an epoch", "at its end"])
def test_sigterm_lets_the_step_end_and_saves_it(whole, tmp_path, after):
    """A machine that is taken away says so half a minute before. Checkpoints are written after every second step."""
    report, _, run = whole
    earlier = signal.getsignal(signal.SIGTERM)
    with pytest.raises(console.Terminated):
        run(tiny.execution(tmp_path), terminating(after))
    assert signal.getsignal(signal.SIGTERM) is earlier
    assert bookkeeping.last_whole(tmp_path / "checkpoints").name == f"checkpoint-{after + 1}"
    _, resumed = run(tiny.execution(tmp_path, resume=True))
    assert resumed["training"]["losses"] == report["losses"]


def terminating(after):
    """training.answers_only that sends this process SIGTERM in the pass after that many."""

    def act(number):
        if number == after + 1:
            os.kill(os.getpid(), signal.SIGTERM)

    return watched(act)


def test_a_step_that_takes_longer_than_the_grace_is_cut_off(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(bookkeeping, "GRACE", 1)
    callback = types.SimpleNamespace(stopping=False)
    began = time.monotonic()
    with pytest.raises(console.Terminated), bookkeeping.graceful(callback):
        os.kill(os.getpid(), signal.SIGTERM)
        assert callback.stopping
        time.sleep(30)
    assert 0.9 < time.monotonic() - began < 10


def test_a_planted_pickle_is_never_loaded_even_if_it_was_sealed(whole, tmp_path):
    shutil.copytree(whole[1], tmp_path / "run")

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    checkpoint = tmp_path / "run" / "checkpoints" / "checkpoint-8"
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save(Evil(), checkpoint / name)
    bookkeeping.seal(checkpoint, 8, 1.0)
    with pytest.raises(InputError, match="remove"):
        whole[2](tiny.execution(tmp_path / "run", resume=True))
    assert not (tmp_path / "ran").exists()


def test_what_a_run_did_not_write_stays_where_it_is(whole, tmp_path):
    """Files of the user's, and links to them, are neither followed nor removed, with --resume and without."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for resume in (False, True):
        folder = tmp_path / f"run {resume}"
        shutil.copytree(whole[1], folder)
        checkpoints_of = folder / "checkpoints"
        (checkpoints_of / "README.md").write_text("mine")
        (checkpoints_of / "photos").mkdir()
        (checkpoints_of / "checkpoint-best").mkdir()
        (checkpoints_of / "checkpoint-99").symlink_to(mine)
        (checkpoints_of / "checkpoint-98").write_text("a file")
        whole[2](tiny.execution(folder, resume=resume))
        left = sorted(path.name for path in checkpoints_of.iterdir())
        assert (checkpoints_of / "README.md").read_text() == "mine"
        assert left == ["README.md", "checkpoint-98", "checkpoint-99", "checkpoint-best", "photos"]
        assert (mine / "thesis.txt").read_text() == "years of work"
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "checkpoints").symlink_to(mine)
    (mine / "checkpoint-5").mkdir()
    for resume in (False, True):
        with pytest.raises(InputError, match="name another --output_dir"):
            whole[2](tiny.execution(linked, resume=resume))
    assert sorted(path.name for path in mine.iterdir()) == ["checkpoint-5", "thesis.txt"]


def test_a_run_that_is_not_resumed_begins_anew(whole, tmp_path, capsys):
    report, half_way, run = whole
    shutil.copytree(half_way, tmp_path / "run")
    _, anew = run(tiny.execution(tmp_path / "run"))
    assert "resuming" not in capsys.readouterr().out
    assert anew["training"]["losses"] == report["losses"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"training": 5, "estimate": null}', "[" * 200_000])
def test_a_torn_report_repeats_the_training(tmp_path, content, capsys):
    (tmp_path / "training.json").write_text(content)
    assert training.finished(tiny.execution(tmp_path, resume=True)) is None
    assert "is repeated" in capsys.readouterr().err
    assert not (tmp_path / "training.json").exists()


def test_a_finished_training_is_not_repeated(train, tmp_path, capsys):
    first = train(toy(8), tmp_path, epochs=1)
    again = train(toy(8), tmp_path, epochs=1, resume=True)
    assert again.report == json.loads(json.dumps(first.report))
    assert "finished before" in capsys.readouterr().out
    assert again.encoder.truncated == first.encoder.truncated


@pytest.mark.parametrize("files", ["optimizer.pt", "adapter_model.safetensors"])
def test_a_disk_that_fills_in_mid_training_is_one_line_and_the_resumed_run_is_the_same(whole, tmp_path, files):
    """The limit on the size of files stands for the disk: past it a write fails as on a full one."""
    report, _, run = whole
    sizes = {"optimizer.pt": 200_000, "adapter_model.safetensors": 20_000}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    plain, passes = training.answers_only, []

    def build(*given):
        trainer = plain(*given)
        compute = trainer.compute_loss

        def compute_loss(*rest, **keywords):
            passes.append(1)
            if len(passes) == 7:
                resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[files], before[1]))
            return compute(*rest, **keywords)

        trainer.compute_loss = compute_loss
        return trainer

    try:
        with pytest.raises(InputError, match=r"cannot write to .*make room, then add --resume"):
            run(tiny.execution(tmp_path), build)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    _, resumed = run(tiny.execution(tmp_path, resume=True))
    assert resumed["training"]["losses"] == report["losses"]


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="shapes"), bookkeeping.disk_errors(tmp_path):
        raise RuntimeError("shapes do not match")
    with pytest.raises(InputError, match="Read-only"), bookkeeping.disk_errors(tmp_path):
        raise OSError(30, "Read-only file system", "x")


def test_a_full_disk_is_told_once_however_many_contexts_watch(tmp_path):
    with pytest.raises(InputError) as refused, bookkeeping.disk_errors(tmp_path), bookkeeping.disk_errors(tmp_path):
        raise OSError(28, "No space left on device", "x")
    assert str(refused.value).count("make room") == 1


def start(tiny_folder, folder, *words):
    command = [sys.executable, str(ROOT / "mistral/mistral_summarization.py"), "--pretrained_ckpt", str(tiny_folder)]
    command += [
        "--demo",
        "--epochs",
        "6",
        "--no_before",
        "--max_test_samples",
        "2",
        "--output_dir",
        str(folder),
        *words,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def wait_for(condition, child):
    for _ in range(1200):
        if condition():
            return
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    raise AssertionError("nothing to interrupt after a minute")


@pytest.fixture(scope="module")
def uninterrupted(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    child = start(tiny_folder, folder)
    out, err = child.communicate(timeout=300)
    return record_of(subprocess.CompletedProcess([], child.returncode, out, err))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_resumed_equals_the_uninterrupted_one(tiny_folder, tmp_path, uninterrupted, how):
    child = start(tiny_folder, tmp_path)
    checkpoints = tmp_path / "checkpoints"
    wait_for(lambda: len(list(checkpoints.glob(f"*/{bookkeeping.SEAL}"))) == 2, child)
    child.send_signal(how)
    _, err = child.communicate(timeout=60)
    assert child.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    if how == signal.SIGINT:
        assert "--resume" in err.strip().splitlines()[-1]
    half = checkpoints / "checkpoint-9999"  # what a kill in the middle of writing leaves
    half.mkdir()
    (half / "trainer_state.json").write_text("{}")

    child = start(tiny_folder, tmp_path, "--resume")
    out, err = child.communicate(timeout=300)
    resumed = record_of(subprocess.CompletedProcess([], child.returncode, out, err))
    assert "resuming at step" in out
    assert resumed["training"]["losses"] == uninterrupted["training"]["losses"]
    assert resumed["training"]["tokens"] == uninterrupted["training"]["tokens"]
    assert resumed["training"]["steps"] == uninterrupted["training"]["steps"] > 20
    assert resumed["metrics"] == uninterrupted["metrics"]
    assert not checkpoints.exists()


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("DATA_DIR"), reason="DATA_DIR is not set")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.01)])
def test_the_first_20_losses_on_real_weights_and_dialogues_are_those_of_plain_qlora(
    dtype, tolerance, tmp_path, monkeypatch
):
    """Plain: peft's layers on 4-bit weights, trl's own loss over all logits. Same rows, batches and seed, without
    dropout, whose draws differ, at the learning rate of the folders; at the embedded model's own, 15 times that,
    bfloat16's rounding grows to 1.1 % within 20 steps."""
    import trl

    from common import data

    def plainly(tokenizer, model, datasets, config, sampler, callback):
        class Trainer(trl.SFTTrainer):
            def _get_train_sampler(self, train_dataset=None):
                return sampler

        told = {"max_length": None, "shuffle_dataset": False, "dataset_kwargs": {"skip_prepare_dataset": True}}
        config = trl.SFTConfig(**config, **told)
        rows = {"train_dataset": datasets[0], "processing_class": tokenizer}
        return Trainer(model=model, args=config, callbacks=[callback], **rows)

    asked = {"lora_r": 64, "batch_size": 8, "micro_batch_size": 8, "learning_rate": 2e-4, "dropout": 0.0}
    settings = tiny.settings(targets=tiny.LINEAR, max_document_tokens=512, lr_scheduler="cosine", **asked)
    checkpoint, losses = checkpoints.find("smollm2"), {}
    rows = data.samsum(max_train_samples=160, max_test_samples=4)
    tokenizer = qlora.tokenizer(checkpoint)
    encoder = encoding.prompter(tokenizer, TEMPLATE, "chat", settings, [])
    for name in ("here", "plain"):
        execution = tiny.execution(tmp_path / name, precision=dtype)
        if name == "plain":
            monkeypatch.setattr(qlora, "UNPACK_SHARE", 0)
            monkeypatch.setattr(training, "answers_only", plainly)
            monkeypatch.setattr(training, "fused_layers", lambda *args: contextlib.nullcontext())
        model = qlora.base(checkpoint, execution)
        losses[name] = training.tune(model, encoder, rows, settings, execution)[1]["training"]["losses"]
    assert len(losses["here"]) == 20
    assert losses["here"] == pytest.approx(losses["plain"], rel=tolerance)
