"""What a training keeps while it runs: its curves, its best epoch, and checkpoints that a kill cannot spoil."""

import contextlib
import errno
import hashlib
import json
import math
import re
import shutil
import time
from pathlib import Path

from common import console, files, machine
from common.console import Failed, InputError, say, warn

SEAL = "complete.json"  # written into a checkpoint last: its step, seconds so far, and every file's size and sha256
STATE = ("optimizer.pt", "scheduler.pt", "trainer_state.json")  # that training goes on from, beside rng_state*.pth
POINTS = 200  # of a curve in a record
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
NO_SPACE_WORDS = ("No space left", "Read-only file system", "File too large", "quota exceeded", "inline_container")


def bookkeeper(what="", checkpoint=None, keep=None, limit=None):
    """A callback that shows progress, counts seconds, ends a training that diverges, and seals each checkpoint.

    what: is trained, in words; checkpoint: that the training resumes from; keep(): called after the best epoch so far;
    limit: bytes that the process may hold between steps.
    """
    import transformers

    before = seconds_of(checkpoint) if checkpoint else 0.0

    class Bookkeeper(transformers.TrainerCallback):
        began = bar = None
        waits = False  # whether a checkpoint is due at the end of the epoch

        def seconds(self):
            return before + time.monotonic() - self.began

        def on_train_begin(self, args, state, control, **keywords):
            self.began = time.monotonic()
            resuming = f", resuming at step {state.global_step}" if state.global_step else ""
            say(f"training: {what}, {state.max_steps} steps{resuming}")
            self.bar = console.progress(state.max_steps, "training", "step", done=state.global_step)

        def on_log(self, args, state, control, logs=None, **keywords):
            if "loss" in logs:
                check_finite(state.global_step, float(logs["loss"]), logs.get("grad_norm"))
                self.bar.set_postfix_str(f"loss {float(logs['loss']):.3f}", refresh=False)

        def on_step_end(self, args, state, control, **keywords):
            machine.hand_back(limit)
            self.bar.update(1)
            # The last checkpoint of an epoch comes after its evaluation: one before it would resume without.
            self.waits = control.should_save and (state.epoch % 1 == 0 or state.global_step >= state.max_steps)
            control.should_save = control.should_save and not self.waits

        def on_epoch_end(self, args, state, control, **keywords):
            control.should_save = control.should_save or self.waits

        def on_evaluate(self, args, state, control, metrics=None, **keywords):
            measured = evaluations(state)
            check_finite(state.global_step, measured[-1]["eval_loss"])
            told = {name: value for name, value in epoch_of(measured[-1]).items() if value is not None}
            say("\nvalidation: " + ", ".join(f"{name} {value:.4f}" for name, value in told.items()))
            if keep and all(better(measured[-1]) > better(entry) for entry in measured[:-1]):
                keep()

        def on_save(self, args, state, control, **keywords):
            folder = Path(args.output_dir)
            seal(folder / f"checkpoint-{state.global_step}", state.global_step, self.seconds())
            for old in written(folder)[:-2]:
                shutil.rmtree(old)

    return Bookkeeper()


def evaluations(state):
    return [entry for entry in state.log_history if "eval_loss" in entry]


def epoch_of(entry):
    """An evaluation on the validation rows, as a record has it."""
    return {"epoch": round(entry["epoch"], 2), "loss": entry["eval_loss"], "accuracy": entry.get("eval_accuracy")}


def better(entry):
    """What the best epoch has most of: accuracy on the validation rows, or where there is none the least loss."""
    return (entry["eval_accuracy"], -entry["eval_loss"]) if "eval_accuracy" in entry else (-entry["eval_loss"],)


def losses_of(state, epochs):
    """Loss (mean over the last epoch) and losses of a training, as a record has them; with validation rows also
    validation and curves."""
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    last_epoch = losses[-max(1, round(len(losses) / max(1.0, epochs))) :]
    measured = {"loss": sum(last_epoch) / len(last_epoch), "losses": [round(loss, 4) for loss in losses]}
    if evaluations(state):
        measured["validation"] = [epoch_of(entry) for entry in evaluations(state)]
        measured["curves"] = curves(state.log_history)
    return measured


def curves(history, points=POINTS):
    """Loss, gradient norm and learning rate of at most `points` steps, evenly spread."""
    steps = [entry for entry in history if "loss" in entry]
    chosen = steps[:: -(-len(steps) // points)]
    return {name: [entry.get(name) for entry in chosen] for name in ("step", "loss", "grad_norm", "learning_rate")}


def check_finite(step, loss=None, grad_norm=None, **_):
    """Raises Failed if what a step measured is not a finite number: everything learned after it is lost."""
    for name, value in (("loss", loss), ("gradient norm", grad_norm)):
        if value is not None and not math.isfinite(value):
            raise Failed("failed", f"the {name} is not finite at step {step}: lower --learning_rate")


# Checkpoints: folders checkpoint-<step>, as the library writes them, each with a seal of our own.


def checkpoint_folder(execution):
    """Where the run's checkpoints lie, without those of earlier attempts unless it is resumed."""
    folder = execution.folder / "checkpoints"
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} is no folder of this run's: name another --output_dir")
    if not execution.resume:
        remove_checkpoints(folder)
    return folder


def step_of(checkpoint):
    return int(checkpoint.name.rpartition("-")[2])


def written(folder):
    """The checkpoints below `folder`, whole or not, oldest first: real directories called checkpoint-<number>."""
    paths = folder.iterdir() if folder.is_dir() and not folder.is_symlink() else []
    ours = [path for path in paths if re.fullmatch(r"checkpoint-\d{1,18}", path.name)]
    return sorted((path for path in ours if path.is_dir() and not path.is_symlink()), key=step_of)


def remove_checkpoints(folder, after=-1):
    """Remove the checkpoints of later steps than `after`, and the folder if nothing else is in it."""
    for path in written(folder):
        if step_of(path) > after:
            shutil.rmtree(path)
    with contextlib.suppress(OSError):  # not there, or it holds what is not ours
        folder.rmdir()


def seal(checkpoint, step, seconds):
    """Write down what a checkpoint holds, once all of it is written. seconds: of the training so far."""
    contents = {path.name: fingerprint(path) for path in sorted(checkpoint.iterdir()) if path.name != SEAL}
    files.write_json(checkpoint / SEAL, {"step": step, "seconds": seconds, "files": contents})


def fingerprint(path):
    with open(path, "rb") as stream:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def seconds_of(checkpoint):
    """Seconds that the training had taken when the checkpoint was sealed."""
    return float(json.loads((checkpoint / SEAL).read_text())["seconds"])


def last_whole(folder, needed=STATE):
    """The newest checkpoint below `folder` that is as it was sealed and holds the files `needed`, or None. Each that is
    not, which a kill in mid-write leaves behind, is passed over with one line."""
    for path in reversed(written(folder)):
        lack = lacking(path, needed)
        if not lack:
            return path
        warn(f"{files.display(path)} is not as it was written ({lack}): going back to the one before, if any")
    return None


def lacking(checkpoint, needed):
    """What is wrong with a checkpoint, or None."""
    try:
        told = json.loads((checkpoint / SEAL).read_text())
        contents, step = told["files"], step_of(checkpoint)
        names = {path.name for path in checkpoint.iterdir()} - {SEAL}
        changed = sorted(names ^ contents.keys()) or [n for n in names if (checkpoint / n).is_symlink()]
        changed = changed or [name for name in sorted(names) if fingerprint(checkpoint / name) != contents[name]]
        changed = changed or [name for name in needed if name not in contents]
        if changed:
            return changed[0]
        if needed == STATE and not any(name.startswith("rng_state") for name in names):
            return "rng_state.pth"
        steps = [told["step"]]
        if "trainer_state.json" in needed:
            steps.append(json.loads((checkpoint / "trainer_state.json").read_text())["global_step"])
        if steps != [step] * len(steps) or not float(told["seconds"]) >= 0:
            return "another step"
    except FileNotFoundError:
        return f"no {SEAL}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return SEAL
    return None


@contextlib.contextmanager
def disk_errors(folder):
    """A disk that is full or turned read-only ends a training in one line, whichever library was writing."""
    try:
        yield
    except Exception as error:
        known = isinstance(error, OSError) and error.errno in NO_SPACE
        if not known and not any(words in str(error) for words in NO_SPACE_WORDS):
            raise
        reason = console.one_line(error)[:200]
        raise InputError(f"cannot write to {folder} ({reason}): make room, then add --resume") from None
