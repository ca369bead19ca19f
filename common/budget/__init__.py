"""The budget of a training, estimated before it runs: memory, steps, time and cost, here and on rented instances.

`python -m common budget SCRIPT.py …` prints it; a script passes `before` to its training. README.md says how it is
estimated.
"""

from dataclasses import dataclass

from common import console
from common.budget.job import of_model, of_run
from common.budget.memory import available_here, memory_of
from common.budget.report import CARD, REFERENCE, main, measure_it, of_defaults, peak_of_defaults
from common.budget.seconds import prices, seconds_here
from common.runs import folders
from common.runs.run import quiet_libraries

__all__ = [
    "CARD",
    "REFERENCE",
    "before",
    "main",
    "measure_it",
    "of_defaults",
    "peak_of_defaults",
    "prices",
    "seconds_of_command",
]

MIN_WORK = 5e11  # parameters times tokens; a smaller training takes seconds, so an estimate is not worth its time


def seconds_of_command(script, words):
    """Seconds of the training that a command line starts, on this machine; None if they are not known."""
    run = folders.experiment(script).resolve(words)
    quiet_libraries(run.checkpoint)
    job = of_run(run)
    return job and seconds_here(job)


@dataclass(frozen=True)
class Expectation:
    peak_memory_bytes: int
    seconds: float | None  # None if this machine cannot time the training
    limit: int  # most bytes that the process should hold between steps (machine.hand_back)


def before(model, rows, validation, settings, execution):
    """Estimate a training that is about to begin, and print the estimate. Returns an Expectation; None, without an
    estimate, for a training of a few seconds.

    model: loaded, with its adapter or head; rows, validation: [{"input_ids", "labels"}], the trainer's rows."""
    job = of_model(model, rows, validation, settings, execution)
    if job.parameters * job.tokens < MIN_WORK:
        return None
    parts, seconds = memory_of(job, available_here()), seconds_here(job)
    duration = f"about {console.duration(seconds)}" if seconds else "time not known"
    console.say(f"expected: {duration}, a peak of {parts['peak'] / 1e9:.1f} GB")
    return Expectation(parts["peak"], seconds, parts["peak"] - parts["fragmentation"])
