"""Three commands that make sense next, each with its expected time and memory on this machine.

They come from the model folders: the scripts of the embedded encoder and of the embedded model that writes, and, for a
GPU, those of the largest model whose training fits it. A command is cut to a time by fewer epochs, then by fewer rows.
"""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from common import budget, checkpoints, console, data, files, machine
from common.budget import job as jobs
from common.budget import memory, report, seconds
from common.console import InputError
from common.runs import flags, folders
from common.runs.run import quiet_libraries

FIRST, LATER = 240, 3_600  # seconds that the first tuned score and the third command may take, scoring included
STARTUP = 30  # seconds until a script begins to train: imports, rows, weights, its own estimate
SCORING_SHARE = 0.3  # of the time, at most, for scoring the test rows
EPOCHS, ROWS, TEST_ROWS = 3, 100, 50  # a command is not cut below these


@dataclass
class Step:
    """A command before it is cut to a time. words: flags beside those of the data; run: run.Run on all rows."""

    what: str
    experiment: object
    words: list
    run: object
    limit: float | None = None


def check_writer(name):
    """Raises InputError if --pretrained_ckpt names no model, one that is out of reach, or one that only reads."""
    home = folders.home(name)
    if home and home[1].format == "encoder":
        raise InputError(
            f"{name} reads and cannot write: name a model that writes, such as {checkpoints.stand_in('plain')}"
        )
    checkpoints.prepare(checkpoints.find(name, home and home[1].revision))


class Advisor:
    """Makes the commands for one file.

    args: of the command line; choice: guess.Choice; path: what the runs here read, the file or a sample of it; more:
    flags that say how to read the file; reading_seconds: of a script, for its rows."""

    def __init__(self, args, choice, path, more, reading_seconds):
        self.args, self.choice, self.path, self.task = args, choice, path, choice.task
        self.more, self.reading_seconds = more, reading_seconds
        self.more_here = more if path == Path(args.file) else []  # a sample is in UTF-8 and has the labels' names
        self.gpu = bool(machine.cuda())
        self.jobs, self.paces = {}, {}

    def flags(self, experiment, path, more):
        """Words that name the data, for a script of `experiment`."""
        dataset, columns = data.TASKS[self.task][0], self.choice.columns
        target = next(name for name in flags.TARGET[self.task] if name.endswith("_column"))
        words = ["--data", str(path)]
        words += ["--text_column", columns["text"]] if columns["text"] != dataset["text"] else []
        words += [f"--{target}", columns["target"]] if columns["target"] != dataset["target"] else []
        if self.args.instruction and experiment.first.format != "encoder" and self.task != "instructions":
            words += ["--instruction", self.args.instruction]
        if self.args.max_document_tokens:
            words += ["--max_document_tokens", str(self.args.max_document_tokens)]
        return words + more

    def step(self, what, experiment, words=(), limit=None):
        """The Step of a script, resolved on all rows that are read here."""
        words = [*words]
        if len(experiment.by_task) > 1:
            words = ["--task_type", self.task, *words]
        with console.silenced():  # the rows are described by `look`
            run = experiment.resolve([*self.flags(experiment, self.path, self.more_here), *words])
        return Step(what, experiment, words, run, limit)

    def writer(self):
        """(folder, words) of the model that writes: --pretrained_ckpt or the embedded one."""
        embedded = folders.home_path(checkpoints.stand_in("plain"))
        if not self.args.pretrained_ckpt:
            return embedded, []
        home = folders.home_path(self.args.pretrained_ckpt) or embedded
        first = folders.script(home, "training", self.task).first.checkpoint
        return home, [] if first == self.args.pretrained_ckpt else ["--pretrained_ckpt", self.args.pretrained_ckpt]

    def writing(self, steps):
        """The run.Run of the model that writes: its tokenizer counts, its prompt is the example."""
        home, words = self.writer()
        same = [step.run for step in steps if Path(step.experiment.file).parent == home and step.run.kind == "training"]
        return same[0] if same else self.step("", folders.script(home, "training", self.task), words).run

    def steps(self):
        """The three Steps, the training of the model that writes among them."""
        encoder = folders.home_path(checkpoints.stand_in("encoder"))
        home, words = self.writer()
        tune = folders.script(home, "training", self.task)
        large = self.large(home)
        if self.choice.labelled:
            steps = [
                self.step("frozen features: no fine-tuning", folders.script(encoder, "untrained", self.task), [], FIRST)
            ]
            fine_tune = folders.script(encoder, "training", self.task)
            steps += [self.step("fine-tune the encoder", fine_tune, ["--no_before"], FIRST)]
            if large and self.gpu and not words:
                return [*steps, self.step("QLoRA of a larger model", large)]
            return [*steps, self.step("QLoRA of the model that writes", tune, words, None if self.gpu else LATER)]
        untrained = folders.script(home, "baseline", self.task)
        if untrained:
            shot = ["--prompt_type", "zero-shot", *words]
            steps = [self.step("a prompt: no fine-tuning", untrained, shot, FIRST)]
            steps += [self.step("QLoRA of the model that writes", tune, ["--no_before", *words], FIRST)]
        else:
            steps = [self.step("QLoRA, a first score", tune, words, FIRST)]
            steps += [self.step("QLoRA of the model that writes", tune, words)]
        return [*steps, *([self.step("QLoRA of a larger model", large)] if large else [])]

    def large(self, beside):
        """The training script of the largest model whose training fits the GPU or, without one, the card of
        budget.REFERENCE; None if that is the model in the folder `beside`."""
        card = memory.available_here() if self.gpu else self.instance["memory_bytes"] - memory.CONTEXT
        fitting = [
            entry
            for entry in report.known_defaults()
            if entry["task"] == self.task and "--" not in entry["command"] and entry["memory"]["peak"] <= card
        ]
        largest = min(fitting, key=lambda entry: (-entry["parameters"], entry["script"]), default=None)
        if not largest or largest["script"].split("/")[0] == Path(beside).name:
            return None
        return folders.experiment(files.ROOT / largest["script"])

    @property
    def instance(self):
        return next(each for each in budget.prices()["instances"] if each["name"] == budget.REFERENCE)

    def commands(self, steps, total):
        """[{"what", "command", "seconds", "whole_seconds", "memory_bytes", "fits", "where", "usd"}] of the Steps, None
        where not known. total: usable rows of the file; whole_seconds: without the flags that cut it."""
        return [self.command(step, total) for step in steps]

    def command(self, step, total):
        run = step.run
        quiet_libraries(run.checkpoint)
        elsewhere = run.checkpoint.source == "hub" and not self.gpu
        job = self.job(step, elsewhere)
        found = {"what": step.what, "seconds": None, "memory_bytes": None, "fits": None, "where": "here", "usd": None}
        words, whole = [], None
        if job and elsewhere:
            peak, fits, spent, usd = seconds.on_instance(job, self.instance)
            found |= {"memory_bytes": peak + memory.CONTEXT, "seconds": spent, "usd": usd, "fits": fits}
            found["where"] = f"a GPU with {self.instance['memory_bytes'] / 1e9:.0f} GB ({self.instance['name']})"
        elif job:
            peak = memory.memory_of(job, memory.available_here())["peak"]
            found["memory_bytes"] = peak + self.reading(total)
            found["fits"] = found["memory_bytes"] <= memory.available_here()
            pace = self.pace(job, run)
            if pace:
                scale = total / max(1, sum(run.data.n.values()))
                plan = Plan(step, job, pace, scale, STARTUP + self.reading_seconds)
                whole = plan.seconds()
                words = plan.cut()
                found["seconds"] = plan.seconds()
        script_path = files.display(Path(step.experiment.file).resolve())
        line = ["python", script_path, *self.flags(step.experiment, self.args.file, self.more), *step.words, *words]
        return found | {"whole_seconds": whole if words else None, "command": shlex.join(line)}

    def job(self, step, elsewhere):
        """The budget's Job of a Step; of an untrained model that of its folder's training, whose pace is the same."""
        run, home = step.run, Path(step.experiment.file).parent
        if run.kind != "training":
            at = step.words.index("--pretrained_ckpt") if "--pretrained_ckpt" in step.words else len(step.words)
            run = self.step("", folders.script(home, "training", self.task), step.words[at : at + 2]).run
        key = (run.checkpoint.name, home)
        if key not in self.jobs:
            self.jobs[key] = jobs.of_run(run, gpu=True if elsewhere else None)
        return self.jobs[key]

    def pace(self, job, run):
        if run.checkpoint.name not in self.paces:
            self.paces[run.checkpoint.name] = seconds.pace_here(job)
        return self.paces[run.checkpoint.name]

    def reading(self, total):
        """Bytes that the rows of a large file take in a script, about; 0 for a small one."""
        size = Path(self.args.file).stat().st_size if os.path.isfile(self.args.file) else 0
        return 2 * size + 1_000 * total if size > 50_000_000 else 0


class Plan:
    """The time of a Step, and what to cut so that it keeps its limit. scale: rows of the file for each row read here;
    startup: seconds before the training begins."""

    def __init__(self, step, job, pace, scale, startup):
        self.step, self.job, self.pace, self.startup = step, job, pace, startup
        self.settings, counts = step.run.settings, step.run.data.n
        self.epochs = self.settings.epochs or 0
        self.train, self.test = (round(scale * counts[split]) for split in ("train", "test"))
        self.validated = counts["validation"] / max(1, counts["train"])
        self.tokens = job.tokens / job.settings.epochs / max(1, counts["train"])  # padded tokens of a training row
        self.per_step = job.settings.batch_size
        answers = sum(each[2] for each in job.batches) / max(1, counts["train"])
        self.written = 0 if step.run.is_encoder else min(self.settings.max_new_tokens or 0, 2 * answers)

    def training(self):
        """Seconds of the training; of frozen features, of reading the training rows."""
        if not self.epochs:
            return self.train * self.tokens * self.pace.token / 3 if self.settings.baseline else 0.0
        rows = self.train * (1 + self.validated / 3)  # they are read after every epoch
        return self.epochs * (rows * self.tokens * self.pace.token + self.train / self.per_step * self.pace.step)

    def scoring(self):
        """Seconds of the test stages. A forward pass is a third of a step; models that write read a prompt twice, for
        the labels and for the answer."""
        reading = 1 if self.step.run.is_encoder else 2
        row = self.pace.token * (reading * self.tokens / 3 + self.written)
        stages = len(self.step.run.execution.stages)
        before = self.train * self.tokens * self.pace.token / 3 if self.step.run.is_encoder and stages > 1 else 0
        return stages * self.test * row + before

    def seconds(self):
        return self.startup + self.training() + self.scoring()

    def cut(self):
        """Flags that bring the time down to the limit: fewer test rows, then epochs, then training rows. As many
        steps in one epoch of three times the rows learned less (banking77: accuracy 41, with three epochs 51)."""
        limit, words = self.step.limit, []
        if not limit or self.seconds() <= limit:
            return words
        trains = self.training() > 0
        left = (limit - self.startup) * (SCORING_SHARE if trains else 1)
        if self.scoring() > left:
            self.test = fewer(self.test, left / self.scoring(), TEST_ROWS)
            words += ["--max_test_samples", str(self.test)]
        left = limit - self.startup - self.scoring()
        if self.training() > left and self.epochs > EPOCHS:
            self.epochs = max(EPOCHS, int(self.epochs * left / self.training()))
            words += ["--epochs", str(self.epochs)]
        if self.training() > left and self.train > ROWS:
            self.train = fewer(self.train, left / self.training(), ROWS)
            words += ["--max_train_samples", str(self.train)]
        return words


def fewer(rows, share, least):
    """A share of the rows, cut to two digits (1234 -> 1200), at least `least`."""
    number = int(rows * max(0, share))
    digits = max(0, len(str(number)) - 2)
    return min(rows, max(least, number // 10**digits * 10**digits))
