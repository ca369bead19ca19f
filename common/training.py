"""Fine-tuning an adapter with TRL's SFTTrainer: loss on the answer only, resumable after a kill.

The only file that imports trl. Rows arrive as token ids with their loss mask (encoding.py), so the trainer
neither cuts nor drops nor reformats anything.
"""

import json
import random
import shutil
import time
from pathlib import Path

from common import architecture, console, encoding, loading, machine, memory, records
from common.console import InputError, say, warn

COMPLETE = "complete.json"  # written into a checkpoint after everything else of it
POINTS = 200  # of a curve in a record
SAVES = 10  # checkpoints a run: a kill costs a tenth of it at most


RECOMPUTE_ABOVE = 1e9  # parameters: activations of smaller models fit, recomputing them costs a third more time
ROOMY = 20e9  # bytes: a CPU run of the embedded model on long dialogues was seen to take up to 13 GB


def tune(run, model, data):
    """Train a new adapter on `data.train`, save it, and return the 4-bit base with the adapter reloaded
    from disk, so that what is scored is what was saved. Fills `run.training` (see `fit`)."""
    encoder = run.encoder(data.labels)
    rows = encoding.training_rows(encoder, data.train)
    run.truncated["train"] = encoder.truncated
    validation = encoding.training_rows(encoder, data.validation)
    adapter = run.folder / "adapter"
    if not finished_before(run):
        seed(run)
        tuned = loading.new_adapter(model, run.settings)
        fit(run, tuned, rows, len(data.train), answers_only, validation)
        tuned.save_pretrained(adapter, safe_serialization=True)
        run.tokenizer.save_pretrained(adapter)
        finish(run, data.labels)
        model = as_loaded(tuned)
    return loading.with_adapter(model, adapter)


def seed(run):
    """Set every generator of random numbers to the run's seed."""
    import transformers

    transformers.set_seed(run.args.seed)


def finished_before(run):
    """Whether --resume finds the training done; then `run.training` is filled from it."""
    kept = run.folder / "training.json"
    if run.args.resume and kept.is_file():
        say("training: finished before; going on to the test")
        run.training = json.loads(kept.read_text())
        run.estimate = run.training.pop("estimate", None)
        return True
    kept.unlink(missing_ok=True)
    return False


def finish(run, labels):
    """After the trained weights are on disk: what belongs to them, and the checkpoints away."""
    records.write_json(run.folder / "labels.json", labels)
    records.write_json(run.folder / "training.json", {**run.training, "estimate": run.estimate})
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)


def fit(run, model, rows, expected, build, validation=(), keep=None):
    """Train what of `model` wants gradients on `rows` of token ids, from the last complete checkpoint if the run
    is resumed. build(run, model, datasets, arguments, sampler, callback) makes the trainer.

    validation: rows whose loss (and accuracy, where a row has a class) is measured after every epoch; keep() is
    called after each that is better than all before it.
    Fills `run.training`: seconds, tokens, tokens_per_second, steps, loss (mean over the last epoch),
    losses, peak_memory_bytes, trainable_parameters, device_batch_size (rows at once in the end: where memory runs
    out they are halved, and a step is made of more parts); with validation rows also validation and curves.
    """
    import datasets
    import torch

    from common import budget

    settings = run.settings
    if len(rows) != expected:
        raise RuntimeError(f"{expected} rows went in, {len(rows)} came out")
    checkpoints = run.folder / "checkpoints"
    if not run.args.resume:
        shutil.rmtree(checkpoints, ignore_errors=True)
    limit = budget.before(run, rows, validation)
    sampler = by_length([len(row["input_ids"]) for row in rows], settings["batch_size"], run.args.seed)
    held = datasets.Dataset.from_list(list(validation)) if validation else None
    data = datasets.Dataset.from_list(rows), held
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    count = sum(parameter.numel() for parameter in trainable)
    untrained = [parameter.detach().to("cpu", copy=True) for parameter in trainable]
    at_once = parts(settings["batch_size"], settings["device_batch_size"])
    while True:
        last = last_complete(checkpoints)
        book = bookkeeper(json.loads((last / COMPLETE).read_text()) if last else {}, keep, limit)
        config = arguments(run, model, len(rows), checkpoints, at_once)
        if validation:
            eval_size = min(settings["inference_batch_size"], 2 * at_once)  # 2: no gradients
            config |= {"eval_strategy": "epoch", "per_device_eval_batch_size": eval_size}
        trainer = ready(build(run, model, data, config, sampler, book))
        say(
            f"training: {len(rows)} rows, {trainer_steps(trainer)} steps, {count / 1e6:.1f} M of "
            f"{model.num_parameters() / 1e6:.0f} M parameters" + (f", resuming at step {book.start}" if last else "")
        )
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if to_the_end(trainer, last, book):
            break
        if at_once == 1:
            raise InputError("out of memory with a single row at once; lower --max_document_tokens")
        fewer = parts(settings["batch_size"], at_once // 2)
        warn(f"out of memory with {at_once} rows at once: going on with {fewer}, as many a step as before")
        at_once = fewer
        memory.give_back()
        for parameter, value in zip(trainable, untrained, strict=True):  # what no checkpoint brings back
            parameter.grad, parameter.data = None, value.to(parameter.device, copy=True)
        seed(run)
    seconds, tokens = book.seconds(), trainer.state.num_input_tokens_seen
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    last_epoch = max(1, round(len(losses) / max(1.0, settings["epochs"])))
    run.training = {
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "steps": trainer.state.global_step,
        "loss": sum(losses[-last_epoch:]) / last_epoch,
        "losses": [round(loss, 4) for loss in losses],
        "peak_memory_bytes": memory.peak(),
        "trainable_parameters": count,
        "device_batch_size": at_once,
    }
    if validation:
        run.training["validation"] = [epoch_of(entry) for entry in evaluations(trainer.state)]
        run.training["curves"] = curves(trainer.state.log_history)


def ready(trainer):
    """`trainer` without what it prints, and with what it trains in float32: trl casts adapters to bfloat16, where small
    Adam steps round to nothing."""
    import transformers

    trainer.remove_callback(transformers.PrinterCallback)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return trainer


def parts(batch_size, most):
    """Rows at once, `most` at most, of which whole passes make up a step."""
    return max(n for n in range(1, max(1, most) + 1) if batch_size % n == 0)


def to_the_end(trainer, checkpoint, book):
    """Train on from a checkpoint (or None). False if memory ran out, with nothing of the attempt left in the way."""
    from peft.helpers import disable_input_dtype_casting

    # peft hands an adapter its input in the weights' float32; under autocast that is a copy to and fro for nothing.
    mixed, start = trainer.args.bf16 or trainer.args.fp16, str(checkpoint) if checkpoint else None
    try:
        with disable_input_dtype_casting(trainer.model, mixed):
            done = memory.attempt(trainer.train, resume_from_checkpoint=start)
    finally:
        if book.bar:
            book.bar.close()
    if done is None and getattr(trainer, "neftune_hook_handle", None):
        trainer.neftune_hook_handle.remove()  # the library removes it after a whole training only
    trainer.optimizer = trainer.lr_scheduler = None
    return done is not None


def as_loaded(tuned):
    """The base model under `tuned` without what training put on it: adapter, trl's forward, recomputation."""
    model = tuned.unload()
    vars(model).pop("forward", None)
    if model.is_gradient_checkpointing:
        model.gradient_checkpointing_disable()
        model.disable_input_require_grads()
    return model.eval()


def evaluations(state):
    return [entry for entry in state.log_history if "eval_loss" in entry]


def epoch_of(entry):
    """An evaluation on the validation rows, as a record has it."""
    return {"epoch": round(entry["epoch"], 2), "loss": entry["eval_loss"], "accuracy": entry.get("eval_accuracy")}


def better(entry):
    """What the best epoch has most of: accuracy on the validation rows, or where there is none the least loss."""
    return (entry["eval_accuracy"], -entry["eval_loss"]) if "eval_accuracy" in entry else (-entry["eval_loss"],)


def curves(history, points=POINTS):
    """Loss, gradient norm and learning rate of at most `points` steps, evenly spread."""
    steps = [entry for entry in history if "loss" in entry]
    chosen = steps[:: -(-len(steps) // points)]
    return {name: [entry.get(name) for entry in chosen] for name in ("step", "loss", "grad_norm", "learning_rate")}


def arguments(run, model, rows, checkpoints, at_once):
    """What every trainer here is told, as keywords of transformers' TrainingArguments. at_once: rows in a pass."""
    import torch

    settings = run.settings
    gpu = torch.cuda.is_available()
    steps = max(1, -(-rows // settings["batch_size"])) * settings["epochs"]
    return {
        "output_dir": str(checkpoints),
        "num_train_epochs": settings["epochs"],
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": settings["batch_size"] // at_once,
        "learning_rate": settings["learning_rate"],
        "lr_scheduler_type": settings["lr_scheduler"],
        "warmup_steps": max(1, round(0.03 * steps)),
        "max_grad_norm": 0.3 if settings["lora_r"] else 1.0,
        "weight_decay": 0.0,
        "optim": "adamw_torch",
        "neftune_noise_alpha": settings["neftune"],
        "seed": run.args.seed,
        "bf16": settings["precision"] in ("bfloat16", machine.MIXED),
        "fp16": gpu and settings["precision"] == "float16",
        "use_cpu": not gpu,
        "gradient_checkpointing": recompute(model.num_parameters(), gpu),
        "use_liger_kernel": run.args.use_liger_kernel,
        "torch_compile": run.args.torch_compile,
        "remove_unused_columns": False,
        "include_num_input_tokens_seen": "non_padding",
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": max(1, round(steps / SAVES)),
        "save_total_limit": 2,
        "report_to": [] if run.args.report_to == "none" else [run.args.report_to],
        "disable_tqdm": True,
        "dataloader_pin_memory": gpu,
    }


def answers_only(run, model, datasets, config, sampler, book):
    """TRL's SFTTrainer for rows that are token ids already, with their loss mask."""
    import torch
    import transformers
    import trl

    class Trainer(trl.SFTTrainer):
        def _get_train_sampler(self, train_dataset=None):
            return sampler

        def compute_loss(self, model, inputs, *rest, **keywords):
            """transformers' own loss of the model's own logits, those of the answers' columns alone: the others have no
            part in it, and are most of the logits. trl computes all of them on a CPU, and their entropy."""
            if architecture.keeps_logits(model):
                learned = (inputs["labels"] != -100).any(0).nonzero()[:, 0]
                columns = torch.arange(learned[0] - 1, learned[-1] + 1, device=learned.device)
                inputs = {**inputs, "labels": inputs["labels"][:, columns], "logits_to_keep": columns}
            return transformers.Trainer.compute_loss(self, model, {**inputs, "use_cache": False}, *rest, **keywords)

    config = trl.SFTConfig(
        **config,
        max_length=None,  # documents were cut; cutting here would take the answer
        packing=False,
        shuffle_dataset=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    train, validation = datasets
    return Trainer(
        model=model,
        args=config,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=run.tokenizer,
        callbacks=[book],
    )


def recompute(parameters, gpu):
    """Whether to recompute activations instead of keeping them: large models on a GPU, any on a small machine."""
    return parameters > RECOMPUTE_ABOVE if gpu else memory.total() < ROOMY


def by_length(lengths, batch_size, seed):
    """A sampler whose batches hold rows of like length: in random batches half of it can be padding.

    Rows are shuffled, sorted within groups of 16 batches, and the batches shuffled, anew every epoch. The
    order depends on seed and epoch alone, unlike that of the library's own, so a resumed run goes on in it.
    """
    import torch

    class ByLength(torch.utils.data.Sampler):
        epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __len__(self):
            return len(lengths)

        def __iter__(self):
            chance = random.Random(f"{seed} {self.epoch}")
            order = chance.sample(range(len(lengths)), len(lengths))
            group = 16 * batch_size
            batches = []
            for start in range(0, len(order), group):
                alike = sorted(order[start : start + group], key=lengths.__getitem__)
                batches += [alike[i : i + batch_size] for i in range(0, len(alike), batch_size)]
            last = batches.pop() if len(batches[-1]) < batch_size else []  # a short batch has to come last
            chance.shuffle(batches)
            return iter([row for batch in [*batches, last] for row in batch])

    return ByLength()


def trainer_steps(trainer):
    per_epoch = -(-len(trainer.get_train_dataloader()) // trainer.args.gradient_accumulation_steps)
    return round(per_epoch * trainer.args.num_train_epochs)


def bookkeeper(before, keep=None, limit=None):
    """A callback that shows progress, counts seconds, and marks each checkpoint complete once all of it is
    written. `before`: the marker of the checkpoint that this run resumes from. keep(): called after the best epoch
    so far. limit: bytes that the process may hold between steps."""
    import transformers

    class Bookkeeper(transformers.TrainerCallback):
        start = before.get("step", 0)
        began = bar = None

        def seconds(self):
            return before.get("seconds", 0.0) + time.monotonic() - self.began

        def on_train_begin(self, args, state, control, **keywords):
            self.began = time.monotonic()
            self.bar = console.progress(state.max_steps, "training", "step", done=self.start)

        def on_log(self, args, state, control, logs=None, **keywords):
            if "loss" in logs:
                self.bar.set_postfix_str(f"loss {float(logs['loss']):.3f}", refresh=False)

        def on_step_end(self, args, state, control, **keywords):
            memory.hand_back(limit)
            self.bar.update(1)

        def on_evaluate(self, args, state, control, metrics=None, **keywords):
            found = evaluations(state)
            said = ", ".join(f"{name} {value:.4f}" for name, value in epoch_of(found[-1]).items() if value is not None)
            say(f"\nvalidation: {said}")
            if keep and all(better(found[-1]) > better(entry) for entry in found[:-1]):
                keep()

        def on_save(self, args, state, control, **keywords):
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            records.write_json(folder / COMPLETE, {"step": state.global_step, "seconds": self.seconds()})

    return Bookkeeper()


def last_complete(folder):
    """The newest checkpoint below `folder` that was written to its end, or None. Incomplete ones, which a
    kill in mid-write leaves behind, are removed."""
    found = []
    for path in Path(folder).glob("checkpoint-*"):
        if (path / COMPLETE).is_file():
            found.append((int(path.name.rpartition("-")[2]), path))
        else:
            shutil.rmtree(path)
    return max(found)[1] if found else None
