"""Run a grid of one script's flags, each combination in a process of its own, and skip what is finished:

    python -m common sweep FOLDER/SCRIPT.py --lora_r 2 4 8 16 --epochs 2 5 --no_before
    python -m common sweep merge PATH…      copy the records of other checkouts of this project into this one

A flag with several values is an axis of the grid; all other flags are passed on. A repeated flag replaces its earlier
values, so a shell script can end in "$@". Every cell is checked before the first one runs, and cells with the same
identity run once. A cell is done when its record says so. One that fails leaves a record with the reason, and the
others go on.
"""

import argparse
import concurrent.futures
import functools
import multiprocessing
import os
import shlex
import time

from common import budget, console, files, machine
from common.console import InputError, duration, say
from common.runs import flags, folders
from common.sweeps import engines, merge
from common.sweeps.planning import TO_RUN, expected, grid, outlook, parse, plan, seeds, shard, summary, within

ENGINES = {"local": engines.local, "ray": engines.on_ray, "slurm": engines.on_slurm}
WORTH_AN_ESTIMATE = 4  # cells; the estimate takes seconds, and each script tells its own


def main(words):
    if words[:1] == ["merge"]:
        return merge.main(words[1:])
    args, others = parser().parse_known_args(words)
    axes = parse([word for word in others if word != "--resume"])
    if args.seeds:
        axes = seeds(axes, args.seeds)
    experiment = folders.experiment(args.script)
    combinations = grid(axes)
    if "--output_dir" in axes and len(combinations) > 1:
        raise InputError(f"--output_dir is one run's folder, this is a grid of {len(combinations)}: leave it out")
    cells = plan(experiment, combinations)
    if args.shard:
        cells = shard(cells, *args.shard)
    chosen = [cell for cell in cells if cell.state == TO_RUN or (cell.failed and args.retry_failed)]
    say(f"{os.path.basename(args.script)}: {summary(cells, chosen)}")
    for cell in cells:
        if args.dry_run:
            say(f"  {cell.state.ljust(6)}  {shlex.join([args.script, *cell.words])}")
        if cell.failed and cell not in chosen:
            say(f"  {cell.state}: {cell.name}: {cell.reason} (--retry_failed runs it again)")
    if not chosen and not args.dry_run:
        return say("nothing to do: every cell has its record")
    script = files.ROOT.joinpath(experiment.file)
    chosen = affordable(script, cells, chosen, args)
    return None if args.dry_run else run(script, chosen, args)


def parser():
    own = flags.Parser(prog="python -m common sweep", description=__doc__)
    own.add_argument("script", metavar="FOLDER/SCRIPT.py")
    count, amount = flags.positive(int), flags.positive(float)
    add = own.add_argument
    add(
        "--dry_run",
        nargs="?",
        const="plan",
        choices=["plan", "budget"],
        help="list the cells and stop; budget: and say how long they take",
    )
    add("--seeds", type=count, metavar="N", help="every cell with N seeds")
    add("--retry_failed", action="store_true", help="run also cells whose record says failed or OOM")
    add("--max_hours", type=amount, metavar="H", help="only the first cells, as many as should end in this time")
    add("--max_cost", type=amount, metavar="USD", help="the same for a cost; it takes --price_per_hour")
    add(
        "--slots",
        type=count,
        metavar="N",
        help="cells at once, on this machine (default: its cards, else 1), of a cluster's jobs (default: 1)",
    )
    add("--engine", choices=ENGINES, default="local", help="(default: local)")
    add("--ray_address", default="auto", metavar="ADDRESS", help="of an existing Ray cluster (default: auto)")
    add(
        "--slurm",
        type=setting,
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="parameters as submitit names them: timeout_min=600 slurm_partition=gpu",
    )
    add(
        "--shard",
        type=part,
        metavar="I/N",
        help="only every Nth cell, from the Ith; auto: as the variables of a Slurm array or of SkyPilot say",
    )
    return own


def part(text):
    """An argparse type: (I, N) of "I/N", or of the variables of a scheduler for "auto"."""
    number, _, count = text.partition("/")
    if text == "auto":
        number, count = position(os.environ)
    elif not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError("give I/N, from 1/N to N/N, or auto")
    return int(number), int(count)


def position(variables):
    """(I, N) of this process in a Slurm array or in a SkyPilot task, by their environment variables."""
    if "SLURM_ARRAY_TASK_ID" in variables:
        task, first, last = (int(variables[f"SLURM_ARRAY_TASK_{name}"]) for name in ("ID", "MIN", "MAX"))
        return task - first + 1, last - first + 1
    if "SKYPILOT_NODE_RANK" in variables:
        return int(variables["SKYPILOT_NODE_RANK"]) + 1, int(variables["SKYPILOT_NUM_NODES"])
    raise argparse.ArgumentTypeError("auto needs the variables of a Slurm array or of SkyPilot: give I/N")


def setting(text):
    """An argparse type: (key, value) of KEY=VALUE; whole numbers become int."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text} is not KEY=VALUE")
    return key, int(value) if value.isdecimal() else value


def affordable(script, cells, chosen, args):
    """The chosen ones of the cells, up to the limits of the command line. Says how long they take, if that is worth the
    seconds of the estimate. Raises InputError for a limit if no time is known."""
    price = cells[0].run.args.price_per_hour
    if args.max_cost and not price:
        raise InputError("--max_cost takes the price of this machine: --price_per_hour")
    limits = [hours for hours in (args.max_hours, args.max_cost and args.max_cost / price) if hours]
    asked = limits or args.dry_run == "budget"
    if not chosen or not (asked or (len(chosen) >= WORTH_AN_ESTIMATE and not args.dry_run)):
        return chosen
    known, slots = expected(cells, functools.partial(by_budget, script)), slots_of(args)
    if limits and not known.rate:
        raise InputError(f"how many cells fit is not known, {known.source}: leave --max_hours and --max_cost out")
    if limits:
        chosen = within(chosen, known, min(limits) * 3600 * slots)
        say(f"{len(chosen)} of them within the limit")
    if chosen:
        say(outlook(chosen, known, slots, price))
    return chosen


def by_budget(script, cell):
    """Seconds of a cell's training by the budget, or None. A process of its own gives its memory back."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(budget.seconds_of_command, script, cell.words).result()
        except (InputError, concurrent.futures.process.BrokenProcessPool):
            return None


def run(script, cells, args):
    """Run the cells; returns the sweep's exit code."""
    slots, report = slots_of(args), Report(cells)
    options = engines.Options(
        announce=report.announce,
        slots=slots,
        cores=max(1, machine.cores() // slots),
        cards=cards_here() if args.engine == "local" else 0,
        address=args.ray_address,
        slurm=dict(args.slurm),
    )
    for cell, code in ENGINES[args.engine](script, cells, options):
        report.ended(cell, code, unseen=slots > 1 or args.engine != "local")
        if code in (console.INTERRUPTED, console.TERMINATED):
            raise KeyboardInterrupt
        if code == console.BAD_INPUT:  # its cause, the machine or the data, would stop the next cell as well
            raise SystemExit(console.BAD_INPUT)
    for cell in report.failed:
        say(f"failed: {shlex.join([str(script), *cell.words])}")
    return console.UNEXPECTED if report.failed else None


def slots_of(args):
    """Cells at once."""
    return args.slots or (max(1, cards_here()) if args.engine == "local" else 1)


@functools.cache
def cards_here():
    import torch

    return torch.cuda.device_count()


class Report:
    """What a sweep says while it runs. failed: the cells that did not end well."""

    def __init__(self, cells):
        self.count, self.started, self.failed = len(cells), 0, []
        self.work = self.left = sum(cell.work for cell in cells)
        self.began = time.monotonic()

    def announce(self, cell):
        self.started += 1
        remaining = ""
        if self.left < self.work:
            seconds = (time.monotonic() - self.began) * self.left / (self.work - self.left)
            remaining = f", about {duration(seconds)} left"
        say(f"[{self.started}/{self.count}{remaining}] {cell.name}")

    def ended(self, cell, code, unseen):
        """unseen: whether the cell's own output was not shown."""
        self.left -= cell.work
        if unseen:
            where = f" ({files.display(cell.log)})" if code and cell.log.is_file() else ""
            say(f"{f'exit code {code}' if code else 'done'}: {cell.name}{where}")
        if code:
            self.failed.append(cell)
