"""The budget of a training as text, for --dry_run and for READMEs, and of every script at its defaults
(defaults.json)."""

import functools
import math
from dataclasses import replace
from pathlib import Path

from common import checkpoints, console, files, machine
from common.budget import job as jobs
from common.budget.memory import CONTEXT, available_here, memory_of
from common.budget.seconds import UTILISATION, on_instance, prices, seconds_here
from common.console import InputError, say
from common.runs import folders
from common.runs import run as runs

DEFAULTS = Path(__file__).parent / "defaults.json"
REFERENCE = "g5.2xlarge"  # the instance whose time and cost the READMEs show
CARD = 24e9  # bytes of memory of a 24 GB card


def report(run):
    """The text of a training run's budget: on this machine, on the instances of the price file, and flags that make it
    fit."""
    import torch

    gpu = torch.cuda.is_available()
    job = jobs.of_run(run)
    if job is None:
        return "  no estimate: this checkpoint's architecture is not known here without a download"
    on_gpu = job if gpu else replace(job, gpu=True, precision=jobs.precision_of(run, True), counts={})
    available = available_here()
    parts = memory_of(job, available)
    rows, length, _ = job.largest
    lines = [f"{job.steps} steps, {job.tokens:,.0f} tokens with padding (lengths {jobs.lengths_source(run)})"]
    lines[0] += f", largest pass {rows} x {length}"
    lines += ["on this machine: " + ", ".join(f"{name} {value / 1e9:.2f}" for name, value in parts.items()) + " GB"]
    seconds, price = seconds_here(job), run.args.price_per_hour
    usd = seconds / 3600 * price if seconds and price else None
    fits = parts["peak"] <= available
    table = [["where", "memory", "peak", "fits", "training", "cost"]]
    table += [line(f"this machine ({machine.device_name()})", available, parts["peak"], fits, seconds, usd)]
    for instance in prices()["instances"]:
        peak, fits_instance, *time_and_cost = on_instance(on_gpu, instance)
        name = f"{instance['name']} ({instance['accelerator']})"
        time_and_cost = time_and_cost if fits_instance else (None, None)
        table.append(line(name, instance["memory_bytes"], peak, fits_instance, *time_and_cost))
    lines += ["", *console.columns(table).splitlines(), ""]
    lines += [f"prices of {prices()['as_of']}: {prices()['source']}; at {UTILISATION:.0%} of the peak, assumed"]
    if not gpu and job.parameters >= machine.CPU_LIMIT:
        stand_in = checkpoints.stand_in(run.variant.format)
        lines += [f"this model is too large for a CPU; what runs here: --pretrained_ckpt {stand_in}"]
    elif not fits:
        lines += [f"to fit here: {advice(job, available)}"]
    card = next(text for text in prices()["instances"] if text["memory_bytes"] > CARD)
    if not on_instance(on_gpu, card)[1]:
        lines += [f"to fit {card['memory_bytes'] / 1e9:.0f} GB: {advice(on_gpu, card['memory_bytes'] - CONTEXT)}"]
    return "\n".join(f"  {text}".rstrip() for text in lines)


def line(name, memory, peak, fits, seconds, usd):
    duration = console.duration(seconds) if seconds is not None else "-"
    cost = f"{usd:.2f} USD" if usd is not None else "-"
    return [name, f"{memory / 1e9:.1f} GB", f"{peak / 1e9:.1f} GB", "yes" if fits else "NO", duration, cost]


def advice(job, available):
    """Flags, in words, that bring the peak of `job` down to `available` bytes, each with the new peak."""
    size, longest = job.micro_batch, job.settings.max_document_tokens
    candidates = [(size // 2**i, longest) for i in range(1, 8) if size >= 2**i]
    candidates += [(size, longest // 2**i) for i in (1, 2, 3)]
    candidates += [(1, longest // 2**i) for i in (1, 2, 3)]
    solutions = {}
    for rows, tokens in candidates:
        flags = [f"--batch_size {rows}"] * (rows < size) + [f"--max_document_tokens {tokens}"] * (tokens < longest)
        kind = (rows < size, tokens < longest)  # keep the smallest change of each kind
        if kind not in solutions and (kind != (True, True) or not solutions):
            peak = memory_of(job.smaller(rows, tokens), available)["peak"]
            if peak <= available:
                solutions[kind] = f"{' '.join(flags)} (a peak of {peak / 1e9:.1f} GB)"
    stand_in = checkpoints.stand_in("encoder" if job.classes else "plain")
    return ", or ".join(solutions.values()) or f"a smaller model: --pretrained_ckpt {stand_in}"


# Every training script at its defaults, for READMEs


def training_scripts(folder):
    """{task: path} of the folder's training scripts."""
    return {each.task: Path(each.file) for each in folders.experiments(folder) if each.kind == "training"}


def defaults(folder):
    """[figures] of a model folder: for each training script and each variant of the model, memory on a GPU with CARD
    bytes, and seconds and USD on the instance REFERENCE. Lengths of rows are typical ones."""
    instance = next(each for each in prices()["instances"] if each["name"] == REFERENCE)
    figures = []
    for task, path in training_scripts(folder).items():
        experiment = folders.experiment(path)
        for variant in experiment.facts.VARIANTS:
            words = [] if variant == experiment.first else ["--pretrained_ckpt", variant.checkpoint]
            run = experiment.resolve(words)
            runs.quiet_libraries(run.checkpoint)
            job = jobs.of_run(run, *jobs.typical(run), gpu=True)
            parts = memory_of(job, CARD - CONTEXT)
            _, _, seconds, usd = on_instance(job, instance)
            figures.append(
                {
                    "script": f"{folder.name}/{path.name}",
                    "task": task,
                    "checkpoint": variant.checkpoint,
                    "command": " ".join(["python", f"{folder.name}/{path.name}", *words]),
                    "memory": parts,
                    "parameters": job.parameters,
                    "fits": parts["peak"] + CONTEXT <= CARD,
                    "seconds": round(seconds),
                    "usd": round(usd, 2),
                }
            )
    return figures


@functools.cache
def known_defaults():
    """The contents of defaults.json: [figures], as `defaults` returns them. Raises InputError if it is damaged."""
    figures = files.read_json(DEFAULTS)
    fields = ("script", "task", "checkpoint", "command", "memory", "parameters", "fits", "seconds", "usd")
    complete = isinstance(figures, list) and all(
        isinstance(entry, dict) and set(fields) <= set(entry) for entry in figures
    )
    if not complete:
        raise InputError(f"{files.display(DEFAULTS)} is damaged: run python -m common budget --defaults")
    return figures


def of_defaults(checkpoint, task="summarization"):
    """The figures of a published checkpoint's training at its folder's defaults. Raises InputError without them."""
    for figures in known_defaults():
        if (figures["checkpoint"], figures["task"]) == (checkpoint, task):
            return figures
    raise InputError(f"{DEFAULTS.name} has no {task} with {checkpoint}: run python -m common budget --defaults")


def peak_of_defaults(checkpoint, task="summarization"):
    """Bytes of GPU memory that this training takes, with those of CUDA."""
    return of_defaults(checkpoint, task)["memory"]["peak"] + CONTEXT


def measure_it(folder_name, task):
    """The command that measures a missing figure, and what it takes, in one line; None if the folder has no training
    script for the task."""
    candidates = [
        entry for entry in known_defaults() if entry["script"].split("/")[0] == folder_name and entry["task"] == task
    ]
    if not candidates:
        return None
    figures = next((entry for entry in candidates if "--pretrained_ckpt" not in entry["command"]), candidates[0])
    return (
        f"`{figures['command']}` (training: a GPU with {math.ceil((figures['memory']['peak'] + CONTEXT) / 1e9)} GB, "
        f"{console.duration(figures['seconds'])}, {figures['usd']:.2f} USD on {REFERENCE}; estimated)"
    )


USAGE = """usage: python -m common budget SCRIPT.py [FLAGS OF THE SCRIPT]
       python -m common budget --defaults

Estimates a training before it runs: memory, steps, time and cost, on this machine and on the instances of prices.json.
Nothing is downloaded or written. --defaults estimates every training script at its defaults and writes the figures to
defaults.json, for the READMEs."""


def main(words):
    """`python -m common budget …`"""
    if not words:
        raise InputError("name a script, or give --defaults; see --help")
    if words[0] in ("-h", "--help"):
        return say(USAGE)
    if words == ["--defaults"]:
        return write_defaults()
    if words[0].startswith("-"):
        raise InputError(f"unknown {words[0]}: give a script, or --defaults alone; see --help")
    run = folders.experiment(words[0]).resolve(words[1:])
    if run.kind != "training":
        raise InputError(f"{words[0]} with these flags trains nothing: there is no budget to count")
    say(run.plan())
    runs.quiet_libraries(run.checkpoint)
    return say(report(run))


def write_defaults():
    figures = []
    for path in folders.model_files():
        figures += defaults(path.parent)
        say(f"{path.parent.name}: {len(figures)} so far")
    files.write_json(DEFAULTS, figures)
    return say(f"{files.display(DEFAULTS)}: {len(figures)} trainings")
