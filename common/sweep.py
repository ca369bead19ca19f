"""Run a grid of one script's flags, one cell after the other, skipping what is finished:

    python -m common.sweep FOLDER/SCRIPT.py --lora_r 2 4 8 16 --epochs 2 5 --no_before

A flag with several values is an axis, all others are passed on; a flag that comes again replaces its
first values, so a shell script can end in "$@". Every cell is checked before the first one runs. A cell
is finished when its record is there; --dry_run prints the cells and stops.
"""

import concurrent.futures
import itertools
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from common.console import BAD_INPUT, INTERRUPTED, UNEXPECTED, InputError, duration, exit_code, say


def parse(words):
    """["--a", "1", "2", "--b"] -> {"--a": ["1", "2"], "--b": []}; the last mention of a flag counts."""
    found, flag = {}, None
    for word in words:
        if word.startswith("--"):
            flag, _, value = word.partition("=")
            found.pop(flag, None)
            found[flag] = [value] if value else []
        elif flag is None:
            raise InputError(f"{word!r} stands before any flag; usage: python -m common.sweep SCRIPT --flag v1 v2 …")
        else:
            found[flag].append(word)
    return found


def grid(flags):
    """Every combination of the flags' values, as lists of command-line words, the last axis fastest."""
    axes = [[[flag, value] for value in values] or [[flag]] for flag, values in flags.items()]
    return [list(itertools.chain(*cell)) for cell in itertools.product(*axes)]


def plan(script, cells):
    """[(cell, its record is there)] after a `--dry_run plan` of every cell. Raises InputError if one is wrong."""

    def check(cell):
        command = [sys.executable, script, *cell, "--resume", "--dry_run", "plan"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        checked = list(zip(cells, pool.map(check, cells), strict=True))
    for cell, done in checked:
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise InputError(f"{shlex.join(cell)}: {lines[-1].removeprefix('error: ')}")
    return [(cell, "(finished)" in done.stdout) for cell, done in checked]


def run(script, cell):
    """Exit code of one cell, its output passed through. On Ctrl-C the cell gets the time to stop by itself."""
    child = subprocess.Popen([sys.executable, script, *cell, "--resume"])
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.terminate()
        child.wait()
        raise


def run_all(script, cells):
    """Run the cells in turn; returns those that failed. Bad input ends the sweep: it is the machine or the
    data, and the next cell would end the same way."""
    failed, began = [], time.monotonic()
    for number, cell in enumerate(cells, 1):
        left = ""
        if number > 1:
            left = f", about {duration((time.monotonic() - began) / (number - 1) * (len(cells) - number + 1))} left"
        say(f"[{number}/{len(cells)}{left}] {shlex.join(cell)}")
        code = run(script, cell)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code == BAD_INPUT:
            raise SystemExit(BAD_INPUT)
        if code:
            failed.append(cell)
    return failed


def main():
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        return say(__doc__)
    script, flags = words[0], parse(words[1:])
    if not Path(script).is_file():
        raise InputError(f"no script {script}")
    dry = flags.pop("--dry_run", None) is not None
    flags.pop("--resume", None)
    cells = grid(flags)
    if "--output_dir" in flags and len(cells) > 1:
        raise InputError(f"--output_dir is one run's folder, this is a grid of {len(cells)}: leave it out")
    planned = plan(script, cells)
    todo = [cell for cell, finished in planned if not finished]
    say(f"{Path(script).name}: {len(cells)} cells, {len(cells) - len(todo)} finished, {len(todo)} to run")
    if dry:
        for cell, finished in planned:
            say(f"  {'finished' if finished else 'to run  '}  {shlex.join([script, *cell])}")
        return None
    if not todo:
        return say("nothing to do: every cell has its record")
    failed = run_all(script, todo)
    for cell in failed:
        say(f"failed: {shlex.join([script, *cell])}")
    if failed:
        raise SystemExit(UNEXPECTED)
    return None


if __name__ == "__main__":
    sys.exit(exit_code(main))
