"""How long a training takes and what it costs: on this machine by timed steps, on named ones by matrix products."""

import functools
import gc
import json
import statistics
import time
from pathlib import Path

from common import machine
from common.budget.memory import CONTEXT, available_here, count, fill, memory_of, skeleton, stays_unpacked, step

UTILISATION = 0.35  # of an accelerator's dense peak, an assumption: 4-bit layers are unpacked in every pass
PROBE_LAYERS, ROUNDS = 6, 2  # layers of the model that is timed, and how often each batch is
ALWAYS_TRIM = 1  # byte: a limit that always makes machine.hand_back give back
PRICES = Path(__file__).parent / "prices.json"


def seconds_here(job):
    """Seconds of the whole training on this machine; None where this machine is too slow for it, or has no memory left
    for the model that is timed.

    Real steps of a few layers with random weights are timed, on a short batch and on a long one. A step's seconds grow
    with its padded tokens, and with depth as its matrix products do."""
    import torch

    if job.gpu != torch.cuda.is_available() or not (job.gpu or job.parameters < machine.CPU_LIMIT):
        return None
    ordered = sorted(job.batches, key=lambda batch: batch[0] * batch[1])
    short, long = (ordered[int(share * (len(ordered) - 1))] for share in (0.25, 0.9))
    layers = min(PROBE_LAYERS, job.layers)
    with torch.random.fork_rng():
        timed = machine.attempt(probe, job, layers, (long, short))
    if timed is None:
        return None
    # By products, not by the difference that a layer makes: a busy machine's noise would count as often as there are
    # layers.
    deeper = [count(job, batch).products / count(job, batch, layers).products for batch in (long, short)]
    of_long, of_short = (seconds * times for seconds, times in zip(timed, deeper, strict=True))
    a, b = long[0] * long[1], short[0] * short[1]
    slope = max(0.0, of_long - of_short) / (a - b) if a > b else 0.0
    epoch = sum(max(of_long + slope * (rows * length - a), 0.0) for rows, length, _ in job.batches)
    # The forward pass is a third of a step or less: weights or inputs are learned from, and the optimizer steps.
    return job.settings.epochs * (epoch + job.validation_tokens * of_long / a / 3)


def probe(job, layers, batches):
    """Mean seconds of a step on each batch, with a model of so many layers; nothing of it stays in memory."""
    machine.keep_freed()  # as training does
    timed_step = stepper(job, layers)
    rounds = []
    for turn in range(ROUNDS + 1):
        if turn == 1:  # training gives memory back before about every second step, which takes it anew
            machine.hand_back(ALWAYS_TRIM)
        rounds.append([timed_step(batch) for batch in batches])
    del timed_step
    gc.collect()
    machine.give_back()  # leave no holes to the training
    return [statistics.mean(each) for each in zip(*rounds[1:], strict=True)]  # the first round warms up


def stepper(job, layers):
    """A function from a batch to the seconds of a step on it, optimizer included, of a model of random weights."""
    import torch

    model, frozen = skeleton(job, layers)
    device = machine.device()[""]
    fill(model, lambda old: noise(old, device))
    if job.gpu and frozen and not stays_unpacked(job, available_here()):
        pack(model, frozen, job.dtype)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)

    def timed_step(batch):
        began = time.perf_counter()
        step(job, model, batch)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if job.gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return timed_step


def noise(old, device):
    import torch

    new = torch.empty(old.shape, dtype=old.dtype, device=device)
    return new.normal_(0, 0.02) if new.is_floating_point() else new.zero_()


def pack(model, layers, dtype):
    """Put 4-bit layers in place of the plain ones in `layers`."""
    import bitsandbytes
    import torch

    names = {id(module): name for name, module in model.named_modules()}
    for layer in layers:
        biased, kind = layer.bias is not None, getattr(torch, dtype)
        new = bitsandbytes.nn.Linear4bit(layer.in_features, layer.out_features, biased, kind, quant_type="nf4")
        new.weight = bitsandbytes.nn.Params4bit(layer.weight.data.cpu(), requires_grad=False, quant_type="nf4")
        new.bias = layer.bias
        model.set_submodule(names[id(layer)], new.to(layer.weight.device))


def products(job):
    """Floating point operations of all matrix products of the training."""
    rows, length, _ = job.largest
    per_token = count(job, job.largest).products / (rows * length)
    return per_token * (job.tokens + job.settings.epochs * job.validation_tokens / 3)


@functools.cache
def prices():
    """The dated price file: {"as_of", "source", "currency", "instances": [...]}."""
    return json.loads(PRICES.read_text(encoding="utf-8"))


def on_instance(job, instance):
    """(bytes at the highest, whether it fits, seconds, price) of a `job` for a GPU on an instance of the price file."""
    available = instance["memory_bytes"] - CONTEXT
    peak = memory_of(job, available)["peak"]
    seconds = products(job) / (instance["flops"] * UTILISATION)
    return peak, peak <= available, seconds, seconds / 3600 * instance["usd_per_hour"]
