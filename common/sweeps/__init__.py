"""Run a grid of one script's flags, one cell after the other, and skip finished cells:

    python -m common sweep FOLDER/SCRIPT.py --lora_r 2 4 8 16 --epochs 2 5 --no_before

A flag with several values is an axis of the grid; all other flags are passed on. A repeated flag replaces its earlier
values, so a shell script can end in "$@". The sweep checks every cell before it runs the first one, and runs cells with
the same identity once. A cell is finished when its record exists. A failed cell gets a record that says so, and the
sweep goes on. --dry_run lists the cells and stops.
"""

import itertools
import os
import shlex
import subprocess
import sys
import time

from common import files
from common.console import BAD_INPUT, INTERRUPTED, TERMINATED, UNEXPECTED, InputError, duration, say
from common.runs import folders


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
    axes = [[[flag, value] for value in values] or [[flag]] for flag, values in flags.items()]
    return [list(itertools.chain(*cell)) for cell in itertools.product(*axes)]


def plan(experiment, cells):
    """[(cell, whether its record exists)], one for each identity, without starting a process. experiment:
    runs.experiment.Experiment; cells: lists of command-line words. Raises InputError if a cell is wrong."""
    planned = {}
    for cell in cells:
        try:
            run = experiment.resolve(cell)
        except InputError as error:
            raise InputError(f"{shlex.join(cell)}: {error}") from None
        except SystemExit:  # the parser has printed the error of the flag
            say(f"in the cell {shlex.join(cell)}")
            raise
        planned.setdefault(run.identity.id, (cell, run.finished()))
    return list(planned.values())


def run(script, cell):
    """Run one cell with its output passed through; returns its exit code. On Ctrl-C it waits until the cell stopped."""
    child = subprocess.Popen([sys.executable, str(script), *cell, "--resume"])
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise


def run_all(script, cells):
    """Run the cells in turn; returns the failed ones. Bad input ends the sweep, because its cause, the machine or the
    data, would stop the next cell as well."""
    failed, started = [], time.monotonic()
    for number, cell in enumerate(cells, 1):
        remaining = ""
        if number > 1:
            seconds = (time.monotonic() - started) / (number - 1) * (len(cells) - number + 1)
            remaining = f", about {duration(seconds)} left"
        say(f"[{number}/{len(cells)}{remaining}] {shlex.join(cell)}")
        code = run(script, cell)
        if code in (INTERRUPTED, TERMINATED):
            raise KeyboardInterrupt
        if code == BAD_INPUT:
            raise SystemExit(BAD_INPUT)
        if code:
            failed.append(cell)
    return failed


def main(words):
    if not words or words[0] in ("-h", "--help"):
        return say(__doc__)
    script, flags = words[0], parse(words[1:])
    experiment = folders.experiment(script)
    dry_run = flags.pop("--dry_run", None) is not None
    flags.pop("--resume", None)
    cells = grid(flags)
    if "--output_dir" in flags and len(cells) > 1:
        raise InputError(f"--output_dir is one run's folder, this is a grid of {len(cells)}: leave it out")
    planned = plan(experiment, cells)
    cells_to_run = [cell for cell, finished in planned if not finished]
    name = os.path.basename(script)
    say(f"{name}: {len(planned)} cells, {len(planned) - len(cells_to_run)} finished, {len(cells_to_run)} to run")
    if dry_run:
        for cell, finished in planned:
            say(f"  {'finished' if finished else 'to run  '}  {shlex.join([script, *cell])}")
        return None
    if not cells_to_run:
        return say("nothing to do: every cell has its record")
    failed = run_all(files.ROOT.joinpath(experiment.file), cells_to_run)
    for cell in failed:
        say(f"failed: {shlex.join([script, *cell])}")
    return UNEXPECTED if failed else None
