"""Ways to run the cells of a sweep: in processes of this machine, as tasks of a Ray cluster, as jobs of Slurm.

An engine is a function of (script, cells, options) that yields (cell, exit code) as cells end; options.announce(cell)
is called when one starts. A cell is a process of its own with --resume, so that one that was killed goes on from its
last checkpoint wherever it is started again.
"""

import concurrent.futures
import ctypes
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from common import console, files
from common.console import InputError, say
from common.sweeps import merge

STOPS = (console.BAD_INPUT, console.INTERRUPTED, console.TERMINATED)  # exit codes that end a sweep
IN_FLIGHT = 1000  # tasks that a Ray cluster is given at once, and jobs of a Slurm array: its usual limit
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Options:
    announce: object  # function of a cell that starts
    slots: int  # cells at once, on a machine
    cores: int  # CPU cores of a cell
    cards: int  # GPUs of this machine
    address: str = "auto"  # of the Ray cluster
    slurm: dict = field(default_factory=dict)  # submitit's parameters


def start(script, words, environment=None, log=None):
    """The process of a cell, which gets SIGTERM when this one is killed. log: file for its output (default: that of
    this process)."""
    return subprocess.Popen(
        [sys.executable, str(script), *words, "--resume"],
        env=os.environ | (environment or {}),
        stdout=log,
        stderr=log,
        preexec_fn=LIBC and with_parent,  # noqa: PLW1509
    )


def with_parent():
    LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def wait(child):
    """The exit code of a cell. An interruption ends the cell first."""
    try:
        return child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise


# This machine


def local(script, cells, options):
    """Processes of this machine, `slots` at once. Several share its cores and take turns on its cards, and the output
    of each goes to a file."""
    free, children, stops = queue.SimpleQueue(), set(), []
    for slot in range(options.slots):
        free.put(slot)

    def run(cell):
        slot = free.get()
        try:
            if stops:
                return None
            options.announce(cell)
            if options.slots == 1:
                child = start(script, cell.words)
            else:
                environment = {"CUDA_VISIBLE_DEVICES": str(slot % options.cards)} if options.cards else {}
                cell.log.parent.mkdir(parents=True, exist_ok=True)
                with open(cell.log, "w", encoding="utf-8") as log:
                    child = start(script, threaded(cell.words, options.cores), environment, log)
            children.add(child)
            code = child.wait()
            children.discard(child)
            if code in STOPS:  # other cells that run now end first
                stops.append(code)
            return code
        finally:
            free.put(slot)

    with concurrent.futures.ThreadPoolExecutor(options.slots) as pool:
        futures = {pool.submit(run, cell): cell for cell in cells}
        try:
            for future in concurrent.futures.as_completed(futures):
                if future.result() is not None:
                    yield futures[future], future.result()
        finally:
            stops.append(None)
            for child in list(children):
                if child.poll() is None:
                    child.terminate()


def threaded(words, cores):
    return words if "--threads" in words else [*words, "--threads", str(cores)]


# Other machines, which have this checkout at this path


class Ended(NamedTuple):
    """What a cell on another machine sends back."""

    code: int
    records: list  # texts of its records' files; None for one that is not there
    output: str  # its last lines


class Job:
    """A cell for another machine: calling it there runs the cell and returns Ended."""

    def __init__(self, script, cell, options):
        self.script, self.words, self.log = script, threaded(cell.words, options.cores), cell.log
        self.records = [run.record_path for run in cell.runs]

    def __call__(self):
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "w", encoding="utf-8") as stream:
            code = wait(start(self.script, self.words, log=stream))
        output = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
        texts = [path.read_text(encoding="utf-8") if path.is_file() else None for path in self.records]
        return Ended(code, texts, output)

    def checkpoint(self):
        """Called by submitit before the job is preempted or its time is up: the cell goes on in a new job."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def received(cell, ended):
    """Write the records that came back, unless better ones are here already; returns the cell's exit code."""
    for run, text in zip(cell.runs, ended.records, strict=True):
        if text and merge.is_better(json.loads(text), run.recorded()):
            files.write_text(run.record_path, text)
    if ended.code:
        say("\n".join(ended.output.splitlines()[-5:]))
    return ended.code


def on_ray(script, cells, options):
    """Tasks of an existing Ray cluster. A task whose node dies is started again on another. Records come back and are
    written here if the nodes share no folder with this machine."""
    ray = package("ray", "ray")
    try:
        ray.init(address=options.address, log_to_driver=False, logging_level="ERROR")
    except ConnectionError as error:
        raise InputError(f"no Ray cluster ({console.one_line(error)[:120]}): ray start --head") from None
    cards = int(ray.cluster_resources().get("GPU", 0) > 0)
    # A task that asks for more cores than any node has waits for ever.
    largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    options = replace(options, cores=max(1, min(options.cores, int(largest))))
    task = ray.remote(num_cpus=options.cores, num_gpus=cards, max_retries=-1, scheduling_strategy="SPREAD")(
        Job.__call__
    )
    waiting, running = list(reversed(cells)), {}
    try:
        while waiting or running:
            while waiting and len(running) < IN_FLIGHT:
                cell = waiting.pop()
                running[task.remote(Job(script, cell, options))] = cell
            for reference in ray.wait(list(running))[0]:
                cell = running.pop(reference)
                yield cell, received(cell, ray.get(reference))
    finally:
        for reference in running:
            ray.cancel(reference)
        ray.shutdown()


def on_slurm(script, cells, options):
    """An array of Slurm jobs, `slots` at once, through submitit; without sbatch, submitit's own processes."""
    submitit = package("submitit", "slurm")
    executor = submitit.AutoExecutor(folder=script.parent / "experiments" / "jobs")
    executor.update_parameters(name=script.stem, cpus_per_task=options.cores, **options.slurm)
    is_slurm = executor.cluster == "slurm"
    if is_slurm:
        executor.update_parameters(slurm_array_parallelism=options.slots)
    say(f"jobs: {executor.cluster}, files in {files.display(executor.folder)}")
    width = IN_FLIGHT if is_slurm else options.slots
    for first in range(0, len(cells), width):
        part = cells[first : first + width]
        with executor.batch():
            jobs = [executor.submit(Job(script, cell, options)) for cell in part]
        by_id = dict(zip((job.job_id for job in jobs), part, strict=True))
        for job in submitit.helpers.as_completed(jobs, poll_frequency=10 if is_slurm else 1):
            yield by_id[job.job_id], received(by_id[job.job_id], job.result())


def package(module, requirement):
    """The module. Raises InputError if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"this engine takes a package: pip install -e '.[{requirement}]'") from None
