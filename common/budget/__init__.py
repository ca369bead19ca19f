"""What a training takes, before it runs: memory, steps, time and money, on this machine and on named ones.

`python -m common budget SCRIPT.py …` prints it; a script hands `before` to its training. README.md says how it is
counted.
"""

from dataclasses import dataclass

from common import console
from common.budget.job import of_model
from common.budget.memory import available_here, memory_of
from common.budget.report import CARD, REFERENCE, main, measure_it, of_defaults, peak_of_defaults
from common.budget.seconds import prices, seconds_here

__all__ = ["CARD", "REFERENCE", "before", "main", "measure_it", "of_defaults", "peak_of_defaults", "prices"]

MIN_WORK = 5e11  # parameters times tokens: a training of less takes seconds, and is not estimated before it runs


@dataclass(frozen=True)
class Expectation:
    peak_memory_bytes: int
    seconds: float | None  # None where this machine cannot time it
    limit: int  # bytes that the process should hold between steps (machine.hand_back)


def before(model, rows, validation, settings, execution):
    """Estimate a training that is about to begin, and say so. A training of a few seconds is not worth it: None.

    model: loaded, with what is trained on it; rows, validation: [{"input_ids", "labels"}] as the trainer gets them."""
    job = of_model(model, rows, validation, settings, execution)
    if job.parameters * job.tokens < MIN_WORK:
        return None
    parts, seconds = memory_of(job, available_here()), seconds_here(job)
    took = f"about {console.duration(seconds)}" if seconds else "time not known"
    console.say(f"expected: {took}, a peak of {parts['peak'] / 1e9:.1f} GB")
    return Expectation(parts["peak"], seconds, parts["peak"] - parts["fragmentation"])
