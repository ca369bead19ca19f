"""What a training records while it runs: curves, validation of every epoch, and checkpoints that survive a kill."""

import contextlib
import errno
import hashlib
import json
import math
import re
import shutil
import signal
import threading
import time
from pathlib import Path

from common import console, files, machine, processes
from common.console import Failed, InputError, say, warn

SEAL = "complete.json"  # written into a checkpoint last: step, seconds so far, size and sha256 of every file
STATE = ("optimizer.pt", "scheduler.pt", "trainer_state.json")  # to resume from, with rng_state*.pth
GRACE = 20  # seconds: machines that can be taken away give 30 or more
POINTS = 200  # steps in a record's curves, at most
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
NO_SPACE_WORDS = ("No space left", "Read-only file system", "File too large", "quota exceeded", "inline_container")


def bookkeeper(description="", checkpoint=None, keep=None, limit=None):
    """A transformers callback: it shows progress, counts seconds, ends a training that diverges, and seals checkpoints.

    description: what is trained, in words; checkpoint: the one that training resumes from, or None; keep(): called
    after every epoch that is better than all before it; limit: bytes that the process may hold between steps.
    """
    import transformers

    earlier_seconds = seconds_of(checkpoint) if checkpoint else 0.0

    class Bookkeeper(transformers.TrainerCallback):
        began = bar = None
        save_at_epoch_end = stopping = False

        def seconds(self):
            return earlier_seconds + time.monotonic() - self.began

        def on_train_begin(self, args, state, control, **keywords):
            self.began = time.monotonic()
            resuming = f", resuming at step {state.global_step}" if state.global_step else ""
            say(f"training: {description}, {state.max_steps} steps{resuming}")
            self.bar = console.progress(state.max_steps, "training", "step", done=state.global_step)

        def on_log(self, args, state, control, logs=None, **keywords):
            if "loss" in logs:
                check_finite(state.global_step, float(logs["loss"]), logs.get("grad_norm"))
                self.bar.set_postfix_str(f"loss {float(logs['loss']):.3f}", refresh=False)

        def on_step_end(self, args, state, control, **keywords):
            machine.hand_back(limit)
            self.bar.update(1)
            control.should_save = control.should_save or self.stopping
            # A checkpoint at an epoch's end is saved after its evaluation: a resumed training would else lack that.
            ends_epoch = state.epoch % 1 == 0 or state.global_step >= state.max_steps
            self.save_at_epoch_end = control.should_save and ends_epoch
            control.should_save = control.should_save and not self.save_at_epoch_end

        def on_epoch_end(self, args, state, control, **keywords):
            control.should_save = control.should_save or self.save_at_epoch_end

        def on_evaluate(self, args, state, control, metrics=None, **keywords):
            entries = evaluations(state)
            check_finite(state.global_step, entries[-1]["eval_loss"])
            scores = {name: value for name, value in epoch_of(entries[-1]).items() if value is not None}
            say("\nvalidation: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
            if keep and not processes.rank() and is_best([epoch_of(entry) for entry in entries]):
                keep()

        def on_save(self, args, state, control, **keywords):
            folder = Path(args.output_dir)
            processes.wait()  # until each has written its part
            if processes.rank():
                return
            seal(folder / f"checkpoint-{state.global_step}", state.global_step, self.seconds())
            for old in written(folder)[:-2]:
                shutil.rmtree(old)
            if self.stopping:
                raise console.Terminated

    return Bookkeeper()


@contextlib.contextmanager
def graceful(callback):
    """Context of a training in which SIGTERM first lets the step end and saves a checkpoint, for GRACE seconds at most.
    With several processes it ends at once: they would stop at different steps. callback: from `bookkeeper`."""

    def end(signum, frame):
        raise console.Terminated

    def stop(signum, frame):
        callback.stopping = True
        for each in (signal.SIGTERM, signal.SIGALRM):
            signal.signal(each, end)
        signal.alarm(GRACE)

    if processes.count() > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGTERM, earlier)


def evaluations(state):
    """The log entries of the evaluations on the validation rows, an epoch each."""
    return [entry for entry in state.log_history if "eval_loss" in entry]


def epoch_of(entry):
    """{"epoch", "loss", "accuracy" or None} of an evaluation's log entry, as a record has it."""
    return {"epoch": round(entry["epoch"], 2), "loss": entry["eval_loss"], "accuracy": entry.get("eval_accuracy")}


def is_best(epochs):
    """Whether the last of `epochs` ([{"accuracy" or None, "loss"}] on the validation rows) is better than all before
    it: by accuracy, then by loss. True for an empty list, that is, without validation."""
    scores = [(epoch["accuracy"] or 0.0, -epoch["loss"]) for epoch in epochs]
    return all(scores[-1] > earlier for earlier in scores[:-1])


def losses_of(state, epochs):
    """{"loss": mean over the last epoch, "losses": of every step}, as a record has them; with validation rows also
    "validation" and "curves"."""
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    last_epoch = losses[-max(1, round(len(losses) / max(1.0, epochs))) :]
    fields = {"loss": sum(last_epoch) / len(last_epoch), "losses": [round(loss, 4) for loss in losses]}
    if evaluations(state):
        fields["validation"] = [epoch_of(entry) for entry in evaluations(state)]
        fields["curves"] = curves(state.log_history)
    return fields


def curves(history, points=POINTS):
    """{name: list} of step, loss, gradient norm and learning rate at `points` evenly spread steps, at most."""
    steps = [entry for entry in history if "loss" in entry]
    chosen = steps[:: -(-len(steps) // points)]
    return {name: [entry.get(name) for entry in chosen] for name in ("step", "loss", "grad_norm", "learning_rate")}


def check_finite(step, loss=None, grad_norm=None, **_):
    """Raises Failed if the loss or gradient norm of a step is not finite: what is learned after it is lost."""
    for name, value in (("loss", loss), ("gradient norm", grad_norm)):
        if value is not None and not math.isfinite(value):
            raise Failed("failed", f"the {name} is not finite at step {step}: lower --learning_rate")


# Checkpoints are folders checkpoint-<step>, as transformers writes them, each with our own seal.


def checkpoint_folder(execution):
    """The folder of the run's checkpoints. Those of earlier attempts are removed, unless the run is resumed; those of
    the shorter training that it continues are moved there."""
    folder = execution.folder / "checkpoints"
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} is no folder of this run's: name another --output_dir")
    if not execution.resume:
        remove_checkpoints(folder)
    if execution.goes_on_from:
        for path in written(shorter := execution.goes_on_from / "checkpoints"):
            folder.mkdir(exist_ok=True)
            path.rename(folder / path.name)
        remove_checkpoints(shorter)
    return folder


def step_of(checkpoint):
    return int(checkpoint.name.rpartition("-")[2])


def written(folder):
    """The checkpoints in `folder`, complete or not, oldest first: real directories named checkpoint-<number>."""
    paths = folder.iterdir() if folder.is_dir() and not folder.is_symlink() else []
    ours = [path for path in paths if re.fullmatch(r"checkpoint-\d{1,18}", path.name)]
    return sorted((path for path in ours if path.is_dir() and not path.is_symlink()), key=step_of)


def remove_checkpoints(folder, after=-1):
    """Remove the checkpoints of steps later than `after`, and the folder if it is then empty."""
    for path in written(folder):
        if step_of(path) > after:
            shutil.rmtree(path)
    with contextlib.suppress(OSError):  # it does not exist, or other files are in it
        folder.rmdir()


def seal(checkpoint, step, seconds):
    """Write a checkpoint's seal, after all its other files. seconds: of the training so far."""
    contents = {path.name: fingerprint(path) for path in sorted(checkpoint.iterdir()) if path.name != SEAL}
    files.write_json(checkpoint / SEAL, {"step": step, "seconds": seconds, "files": contents})


def fingerprint(path):
    with open(path, "rb") as stream:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def seconds_of(checkpoint):
    """Seconds that the training had taken when the checkpoint was sealed."""
    return float(json.loads((checkpoint / SEAL).read_text())["seconds"])


def last_whole(folder, needed=STATE):
    """The newest checkpoint in `folder` that matches its seal and has the `needed` files, or None. Any other one, such
    as one that a kill cut short, is skipped with a warning."""
    for path in reversed(written(folder)):
        defect = lacking(path, needed)
        if not defect:
            return path
        warn(f"{files.display(path)} is not as it was written ({defect}): going back to the one before, if any")
    return None


def resume_point(folder, needed=STATE):
    """The checkpoint to resume from: `last_whole`. Those of later steps are removed: they are written again."""
    checkpoint = last_whole(folder, needed)
    remove_checkpoints(folder, after=step_of(checkpoint) if checkpoint else -1)
    return checkpoint


def lacking(checkpoint, needed):
    """The first file of a checkpoint that is wrong (or what else is, in words); None if it matches its seal."""
    try:
        sealed = json.loads((checkpoint / SEAL).read_text())
        contents, step = sealed["files"], step_of(checkpoint)
        present = {path.name for path in checkpoint.iterdir()} - {SEAL}
        wrong = sorted(present ^ contents.keys()) or [n for n in present if (checkpoint / n).is_symlink()]
        wrong = wrong or [name for name in sorted(present) if fingerprint(checkpoint / name) != contents[name]]
        wrong = wrong or [name for name in needed if name not in contents]
        if wrong:
            return wrong[0]
        if needed == STATE and not any(name.startswith("rng_state") for name in present):
            return "rng_state.pth"
        steps = [sealed["step"]]
        if "trainer_state.json" in needed:
            steps.append(json.loads((checkpoint / "trainer_state.json").read_text())["global_step"])
        if steps != [step] * len(steps) or not float(sealed["seconds"]) >= 0:
            return "another step"
    except FileNotFoundError:
        return f"no {SEAL}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return SEAL
    return None


@contextlib.contextmanager
def guarded(weights, execution):
    """Context of a training that saves to the file `weights`: a failed one leaves no weights, and a full disk raises
    InputError."""
    if not execution.resume:  # a resumed training may have saved its best epoch
        weights.unlink(missing_ok=True)
    try:
        with disk_errors(execution.folder):
            yield
    except Failed:
        weights.unlink(missing_ok=True)  # of the best epoch before the failure
        raise


@contextlib.contextmanager
def disk_errors(folder):
    """Context of a training: a full or read-only disk raises InputError, whichever library was writing."""
    try:
        yield
    except (InputError, Failed):  # said already, by a context within this one
        raise
    except Exception as error:
        no_space = isinstance(error, OSError) and error.errno in NO_SPACE
        if not no_space and not any(words in str(error) for words in NO_SPACE_WORDS):
            raise
        reason = console.one_line(error)[:200]
        raise InputError(f"cannot write to {folder} ({reason}): make room, then add --resume") from None
