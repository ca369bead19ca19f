"""What a sweep would run: the cells of its grid, which of them have a record, and the time of the others."""

import itertools
import shlex
import statistics
from dataclasses import dataclass

from common.console import InputError, duration, say
from common.settings import Settings

DONE, TO_RUN = "done", "to run"  # states of a cell, beside a record's "failed" and "OOM"


LISTS = ("--score_after_epochs",)  # flags whose values belong to one cell


@dataclass
class Cell:
    """A process of a sweep: one run or, with --score_after_epochs, the runs that one training passes through."""

    words: list  # of the command line
    runs: list  # of runs.run.Run
    state: str  # "done" if all its runs are; "failed" or "OOM" if one of them is
    reason: str | None  # of a failed cell
    seconds: float | None  # that a finished cell took, training and scoring

    @property
    def run(self):
        """The last, longest one of its runs."""
        return self.runs[-1]

    @property
    def name(self):
        return shlex.join(self.words)

    @property
    def log(self):
        """File for its output when several cells run at once, beside the run's folder."""
        folder = self.run.execution.folder
        return folder.with_name(f"{folder.name}.log")

    @property
    def failed(self):
        return self.state not in (DONE, TO_RUN)

    @property
    def work(self):
        """What the time of cells is in proportion to: epochs times training rows; 1 for cells without a training."""
        return self.run.settings.epochs * self.run.data.n["train"] if self.run.trains and self.run.data else 1


def parse(words):
    """["--a", "1", "2", "--b"] -> {"--a": ["1", "2"], "--b": []}; the last occurrence of a flag counts. Raises
    InputError for a value before any flag."""
    values, flag = {}, None
    for word in words:
        if word.startswith("--"):
            flag, _, value = word.partition("=")
            values.pop(flag, None)
            values[flag] = [value] if value else []
        elif flag is None:
            raise InputError(f"{word!r} stands before any flag; usage: python -m common sweep SCRIPT --flag v1 v2 …")
        else:
            values[flag].append(word)
    return values


def grid(flags):
    """Every combination of the flags' values, as lists of command-line words, the last axis fastest."""
    axes = [
        [[flag, *values]] if flag in LISTS or not values else [[flag, value] for value in values]
        for flag, values in flags.items()
    ]
    return [list(itertools.chain(*cell)) for cell in itertools.product(*axes)]


def seeds(flags, count):
    """`flags` with an axis of `count` seeds, from the default upwards. Raises InputError if the seed is given, too."""
    if "--seed" in flags:
        raise InputError("give either --seed or --seeds")
    return flags | {"--seed": [str(Settings.seed + number) for number in range(count)]}


def plan(experiment, cells):
    """[Cell], one for each identity, without starting a process. experiment: runs.experiment.Experiment; cells: lists
    of command-line words. Raises InputError if a cell is wrong."""
    planned = {}
    for words in cells:
        try:
            runs = experiment.resolve_all(words)
        except InputError as error:
            raise InputError(f"{shlex.join(words)}: {error}") from None
        except SystemExit:  # the parser has printed the error of the flag
            say(f"in the cell {shlex.join(words)}")
            raise
        identities = tuple(run.identity.id for run in runs)
        if identities not in planned:
            planned[identities] = Cell(words, runs, *state(runs))
    return list(planned.values())


def state(runs):
    """(state, reason, seconds) of the cell of these runs."""
    found = [run.recorded() for run in runs]
    for record in found:
        if record and record["status"] != DONE:
            return record["status"], record["reason"], None
    if not all(found):
        return TO_RUN, None, None
    return DONE, None, taken(found[-1])


def taken(record):
    """Seconds of a record's training and scoring; None if they are not known."""
    training, inference = record["training"] or {}, record["inference"] or {}
    parts = [training.get("seconds"), *(inference.get("stages") or {}).values()]
    return sum(part for part in parts if part) or None


def shard(cells, number, count):
    """Every `count`-th of the cells. It is the same cell in every process, whatever is finished meanwhile."""
    return cells[number - 1 :: count]


@dataclass(frozen=True)
class Expected:
    rate: float | None  # seconds of a cell for each unit of its work; None if it is not known
    source: str  # in words

    def seconds(self, cells):
        return self.rate and self.rate * sum(cell.work for cell in cells)


def expected(cells, estimate):
    """The Expected of the cells to run. estimate: a function of a Cell -> seconds of its training or None, called if no
    cell of the plan is finished."""
    rates = [cell.seconds / cell.work for cell in cells if cell.seconds]
    if rates:
        return Expected(statistics.median(rates), "by the cells that are finished")
    trainings = [cell for cell in cells if cell.run.trains and cell.run.data and cell.state == TO_RUN]
    if not trainings:
        return Expected(None, "the time of a first cell is not known")
    seconds = estimate(trainings[0])
    if not seconds:
        return Expected(None, "this machine cannot time the training")
    return Expected(seconds / trainings[0].work, "by the budget, without scoring")


def within(cells, expectation, seconds):
    """The first of the cells that are expected to end within so many seconds of work."""
    sums = itertools.accumulate(expectation.rate * cell.work for cell in cells)
    return [cell for cell, end in zip(cells, sums, strict=True) if end <= seconds]


def summary(cells, chosen):
    """The plan in a line. chosen: the cells that will run."""
    states = [cell.state for cell in cells]
    parts = [f"{len(cells)} cells", f"{states.count(DONE)} done"]
    parts += [f"{sum(cell.failed for cell in cells)} failed"] if any(cell.failed for cell in cells) else []
    return ", ".join([*parts, f"{len(chosen)} to run"])


def outlook(chosen, expectation, slots, price):
    """Time and cost of the cells to run, in a line. price: USD per hour or None."""
    seconds = expectation.seconds(chosen)
    if seconds is None:
        return f"time not known: {expectation.source}"
    seconds /= min(slots, len(chosen))
    cost = f", {seconds / 3600 * price:.2f} USD" if price else ""
    return f"expected: about {duration(seconds)}{cost} ({expectation.source})"
