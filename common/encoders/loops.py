"""Parts of a plain training loop: batches of tensors, the precision to compute in, and checkpoints that survive a
kill."""

import contextlib
import shutil

from common import bookkeeping, console, files, machine
from common.console import InputError

STATE, PROGRESS = "state.safetensors", "progress.json"  # the files of a checkpoint, beside its seal


def batches(reader, rows, size):
    """Padded batches of `size` rows of Reader.training_rows with a class each, as tensors on the device."""
    import torch

    device = machine.device()[""]
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        padded = reader.tokenizer.pad({"input_ids": [row["input_ids"] for row in batch]}, return_tensors="pt")
        yield {**padded.to(device), "labels": torch.tensor([row["labels"] for row in batch], device=device)}


def autocast(execution):
    """Context of a forward pass in execution.precision; weights stay float32, as in the Trainer. Raises InputError for
    float16: small gradients would need scaling, which only the Trainer does."""
    import torch

    if execution.precision == "float32":
        return contextlib.nullcontext()
    if execution.precision == "float16":
        raise InputError("the plain loop has no gradient scaling for float16: take --precision bfloat16 or float32")
    return torch.autocast(torch.device(machine.device()[""]).type, torch.bfloat16)


def report(model, history, epochs, tokens, seconds, per_epoch, micro_batch, expected=None):
    """The report of a loop, as training.fit returns it. history, epochs, tokens: as Progress.keep takes them; seconds:
    of the whole training, validation included; per_epoch: steps of an epoch; micro_batch: rows of a forward pass;
    expected: the estimate of budget.before, or None."""
    losses = [step["loss"] for step in history]
    block = {
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "steps": len(history),
        "loss": sum(losses[-per_epoch:]) / len(losses[-per_epoch:]),
        "losses": [round(loss, 4) for loss in losses],
        "peak_memory_bytes": machine.peak(),
        "trainable_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "micro_batch_size": micro_batch,
        "validation": epochs,
        "curves": bookkeeping.curves(history),
    }
    estimate = expected and {"peak_memory_bytes": expected.peak_memory_bytes, "seconds": expected.seconds}
    return {"training": block, "estimate": estimate}


class Progress:
    """The checkpoints of a loop: weights, optimizer, schedule and history at the end of an epoch.

    A checkpoint is a folder checkpoint-<step>, sealed like the Trainer's (bookkeeping.seal); one that does not match
    its seal is skipped for the one before. Tensors are safetensors files, so that loading runs no code.
    """

    def __init__(self, model, optimizer, schedule, execution):
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.folder = bookkeeping.checkpoint_folder(execution)  # empty unless the run is resumed

    def keep(self, history, epochs, tokens, seconds):
        """Write a checkpoint. history: [{"step", "loss", …}] of every step; epochs: [{"accuracy", "loss"}] of every
        validation; tokens, seconds: of the training so far."""
        import safetensors.torch

        moments = self.optimizer.state_dict()["state"]
        tensors = {f"model.{name}": tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        tensors |= {f"{number}.{name}": value for number, state in moments.items() for name, value in state.items()}
        checkpoint = self.folder / f"checkpoint-{len(history)}"
        checkpoint.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(tensors, checkpoint / STATE)
        progress = {"history": history, "epochs": epochs, "tokens": tokens, "schedule": self.schedule.state_dict()}
        files.write_json(checkpoint / PROGRESS, progress)
        bookkeeping.seal(checkpoint, len(history), seconds)
        for old in bookkeeping.written(self.folder)[:-2]:
            shutil.rmtree(old)

    def restore_or_reset(self):
        """(history, epochs, tokens, seconds) of the last valid checkpoint, after loading its weights and moments; those
        of a new training if there is none. Checkpoints of later steps are removed: they are written again."""
        import safetensors.torch

        checkpoint = bookkeeping.resume_point(self.folder, (STATE, PROGRESS))
        if checkpoint is None:
            return [], [], 0, 0.0
        progress = files.read_json(checkpoint / PROGRESS)
        tensors = safetensors.torch.load_file(checkpoint / STATE)
        self.model.load_state_dict({n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")})
        state = {}
        for name, tensor in tensors.items():
            number, _, moment = name.partition(".")
            if number.isdigit():
                state.setdefault(int(number), {})[moment] = tensor
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.schedule.load_state_dict(progress["schedule"])
        for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = rate
        console.say(f"resuming after step {len(progress['history'])}")
        return progress["history"], progress["epochs"], progress["tokens"], bookkeeping.seconds_of(checkpoint)
