"""What a training takes, as text: for --dry_run, for pages, and for every script at its defaults (defaults.json)."""

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
REFERENCE = "g5.2xlarge"  # the instance whose time and cost pages show
CARD = 24e9  # bytes of a card that is sold as one of 24 GB


def report(run):
    """What a training `run` takes here and on the instances of the price file, and flags with which it would fit."""
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
        peak, fits_there, *took = on_instance(on_gpu, instance)
        name = f"{instance['name']} ({instance['accelerator']})"
        took = took if fits_there else (None, None)
        table.append(line(name, instance["memory_bytes"], peak, fits_there, *took))
    lines += ["", *console.columns(table).splitlines(), ""]
    lines += [f"prices of {prices()['as_of']}: {prices()['source']}; at {UTILISATION:.0%} of the peak, assumed"]
    if not gpu and job.parameters >= machine.CPU_LIMIT:
        stand_in = checkpoints.stand_in(run.variant.format)
        lines += [f"this model is too large for a CPU; what runs here: --pretrained_ckpt {stand_in}"]
    elif not fits:
        lines += [f"to fit here: {advice(job, available)}"]
    card = next(each for each in prices()["instances"] if each["memory_bytes"] > CARD)
    if not on_instance(on_gpu, card)[1]:
        lines += [f"to fit {card['memory_bytes'] / 1e9:.0f} GB: {advice(on_gpu, card['memory_bytes'] - CONTEXT)}"]
    return "\n".join(f"  {each}".rstrip() for each in lines)


def line(name, memory, peak, fits, seconds, usd):
    took = console.duration(seconds) if seconds is not None else "-"
    cost = f"{usd:.2f} USD" if usd is not None else "-"
    return [name, f"{memory / 1e9:.1f} GB", f"{peak / 1e9:.1f} GB", "yes" if fits else "NO", took, cost]


def advice(job, available):
    """Flags with which `job` takes no more than `available` bytes, each with the peak it then has."""
    size, longest = job.micro_batch, job.settings.max_document_tokens
    tries = [(size // 2**i, longest) for i in range(1, 8) if size >= 2**i]
    tries += [(size, longest // 2**i) for i in (1, 2, 3)]
    tries += [(1, longest // 2**i) for i in (1, 2, 3)]
    fitting = {}
    for rows, tokens in tries:
        changed = [f"--batch_size {rows}"] * (rows < size) + [f"--max_document_tokens {tokens}"] * (tokens < longest)
        kind = (rows < size, tokens < longest)  # the mildest change of a kind will do
        if kind not in fitting and (kind != (True, True) or not fitting):
            peak = memory_of(job.smaller(rows, tokens), available)["peak"]
            if peak <= available:
                fitting[kind] = f"{' '.join(changed)} (a peak of {peak / 1e9:.1f} GB)"
    stand_in = checkpoints.stand_in("encoder" if job.classes else "plain")
    return ", or ".join(fitting.values()) or f"a smaller model: --pretrained_ckpt {stand_in}"


# Every training script at its defaults, for pages


def training_scripts(folder):
    """Paths of the folder's scripts that train, one a task."""
    paths = [path for path in sorted(folder.glob("*.py")) if path.stem not in folders.LOCAL]
    made = {path: vars(folders.load_module(path)).get("EXPERIMENT") for path in paths}
    return {each.task: path for path, each in made.items() if each and each.kind == "training"}


def defaults(folder):
    """[figures] of a model folder's training scripts, each with every variant that it may be run with, on a GPU: one
    with CARD, and the time and cost of the instance REFERENCE. Lengths of rows are typical ones."""
    instance = next(each for each in prices()["instances"] if each["name"] == REFERENCE)
    figures = []
    for task, path in training_scripts(folder).items():
        made = folders.experiment(path)
        for variant in made.facts.VARIANTS:
            words = [] if variant == made.first else ["--pretrained_ckpt", variant.checkpoint]
            run = made.resolve(words)
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
    """What `python -m common budget --defaults` wrote: [figures], as `defaults` returns them."""
    figures = files.read_json(DEFAULTS)
    fields = ("script", "task", "checkpoint", "command", "memory", "parameters", "fits", "seconds", "usd")
    whole = isinstance(figures, list) and all(isinstance(each, dict) and set(fields) <= set(each) for each in figures)
    if not whole:
        raise InputError(f"{files.display(DEFAULTS)} is damaged: run python -m common budget --defaults")
    return figures


def of_defaults(checkpoint, task="summarization"):
    """The figures of a published checkpoint's training at its folder's defaults."""
    for each in known_defaults():
        if (each["checkpoint"], each["task"]) == (checkpoint, task):
            return each
    raise InputError(f"{DEFAULTS.name} has no {task} with {checkpoint}: run python -m common budget --defaults")


def peak_of_defaults(checkpoint, task="summarization"):
    """Bytes of GPU memory that this training takes, CUDA's own included."""
    return of_defaults(checkpoint, task)["memory"]["peak"] + CONTEXT


def measure_it(folder_name, task):
    """One line for a page without a measured figure: the command that makes one, and what it takes. None where the
    folder has no training script for the task."""
    own = [each for each in known_defaults() if each["script"].split("/")[0] == folder_name and each["task"] == task]
    if not own:
        return None
    first = next((each for each in own if "--pretrained_ckpt" not in each["command"]), own[0])
    return (
        f"`{first['command']}` (training: a GPU with {math.ceil((first['memory']['peak'] + CONTEXT) / 1e9)} GB, "
        f"{console.duration(first['seconds'])}, {first['usd']:.2f} USD on {REFERENCE}; estimated)"
    )


USAGE = """usage: python -m common budget SCRIPT.py [FLAGS OF THE SCRIPT]
       python -m common budget --defaults

What a training takes before it runs: memory, steps, time and money, on this machine and on those of prices.json.
Nothing is downloaded or written. With --defaults: what every training script takes at its defaults, into defaults.json,
for the pages."""


def main(words):
    """`python -m common budget …`"""
    if not words or words[0] in ("-h", "--help"):
        say(USAGE)
        return None if words else console.BAD_INPUT
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
