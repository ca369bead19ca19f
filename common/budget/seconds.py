"""Time and cost of a training: on this machine from timed steps, on rented instances from its matrix products."""

import functools
import gc
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from common import machine, training
from common.budget.memory import CONTEXT, available_here, count, fill, memory_of, skeleton, stays_unpacked, step

UTILISATION = 0.35  # assumed share of an accelerator's dense peak; every pass unpacks the 4-bit layers
PROBE_LAYERS, ROUNDS = 6, 2  # layers of the model that is timed; timed steps on each batch
PRICES = Path(__file__).parent / "prices.json"


def seconds_here(job):
    """Seconds of the whole training on this machine; None if it is too slow for the model or lacks the memory to time
    it.

    Times real steps of a few layers with random weights on a short and on a long batch. The seconds of a step grow
    linearly with its padded tokens and, with the number of layers, in proportion to its matrix products."""
    import torch

    if job.gpu != torch.cuda.is_available() or not (job.gpu or job.parameters < machine.CPU_LIMIT):
        return None
    ordered = sorted(job.batches, key=lambda batch: batch[0] * batch[1])
    short, long = (ordered[int(share * (len(ordered) - 1))] for share in (0.25, 0.9))
    layers = min(PROBE_LAYERS, job.layers)
    with torch.random.fork_rng():
        probe_seconds = machine.attempt(probe, job, layers, (long, short))
    if probe_seconds is None:
        return None
    # Scale by matrix products, not by the time of one more layer: that would multiply a busy machine's noise by the
    # number of layers.
    depth_ratios = [count(job, batch).products / count(job, batch, layers).products for batch in (long, short)]
    long_seconds, short_seconds = (seconds * ratio for seconds, ratio in zip(probe_seconds, depth_ratios, strict=True))
    long_tokens, short_tokens = long[0] * long[1], short[0] * short[1]
    slope = max(0.0, long_seconds - short_seconds) / (long_tokens - short_tokens) if long_tokens > short_tokens else 0.0
    epoch = sum(max(long_seconds + slope * (rows * length - long_tokens), 0.0) for rows, length, _ in job.batches)
    # Validation is a forward pass, at most a third of a step: a step also has a backward pass and the optimizer.
    return job.settings.epochs * (epoch + job.validation_tokens * long_seconds / long_tokens / 3)


@dataclass(frozen=True)
class Pace:
    """Seconds of a training by two timed steps: of an optimizer step whatever its rows, and of a padded token."""

    step: float
    token: float

    def seconds(self, job):
        """Seconds of the training `job`, validation included."""
        return self.step * job.steps + self.token * (job.tokens + job.settings.epochs * job.validation_tokens / 3)


def pace_here(job, tokens=256):
    """The Pace of `job` on this machine; None where `seconds_here` has none. It times one pass of a few rows of a usual
    length, about `tokens` padded tokens, and one of a single row: a few seconds instead of the minute of
    `seconds_here`, and less exact."""
    import torch

    if job.gpu != torch.cuda.is_available() or not (job.gpu or job.parameters < machine.CPU_LIMIT):
        return None
    rows, length, answers = sorted(job.batches, key=lambda batch: batch[0] * batch[1])[len(job.batches) // 2]
    fewer, layers = max(2, min(rows, tokens // length)), min(PROBE_LAYERS, job.layers)
    passes = [(n, length, min(-(-answers * n // rows), n * length)) for n in (fewer, 1)]
    with torch.random.fork_rng():
        several, one = machine.attempt(probe, job, layers, passes, 1) or (None, None)
    if several is None:
        return None
    depth = count(job, job.largest).products / count(job, job.largest, layers).products
    token = max(several - one, several / 2) / ((fewer - 1) * length)  # a busy machine may time the single row too long
    return Pace(depth * max(0.0, one - token * length), depth * token)


def probe(job, layers, batches, times=ROUNDS):
    """[mean seconds of a step] on each batch, timed so many times, with a model of `layers` layers; frees the model's
    memory."""
    machine.keep_freed()  # as training does
    model, timed_step = stepper(job, layers)
    rounds = []
    with training.fused_layers(model, gpu=job.gpu):
        for round_number in range(times + 1):
            if round_number == 1:  # training trims the heap before about every second step, so time steps after a trim
                machine.give_back()
            rounds.append([timed_step(batch) for batch in batches])
    del model, timed_step
    gc.collect()
    machine.give_back()  # so that the training finds no holes in the heap
    return [statistics.mean(each) for each in zip(*rounds[1:], strict=True)]  # the first round warms up


def stepper(job, layers):
    """(a model of random weights, a function of a batch that makes a training step with it and returns the seconds)."""
    import torch

    model, frozen = skeleton(job, layers)
    device = machine.device()[""]
    fill(model, lambda old: noise(old, device))
    if job.gpu and frozen and not stays_unpacked(job, available_here()):
        pack(model, frozen, job.dtype)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)

    def timed_step(batch):
        began = time.perf_counter()
        step(job, model, batch)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if job.gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return model, timed_step


def noise(old, device):
    import torch

    new = torch.empty(old.shape, dtype=old.dtype, device=device)
    return new.normal_(0, 0.02) if new.is_floating_point() else new.zero_()


def pack(model, layers, dtype):
    """Replace the linear layers `layers` of `model` by 4-bit layers."""
    import bitsandbytes
    import torch

    names = {id(module): name for name, module in model.named_modules()}
    for layer in layers:
        biased, torch_dtype = layer.bias is not None, getattr(torch, dtype)
        new = bitsandbytes.nn.Linear4bit(layer.in_features, layer.out_features, biased, torch_dtype, quant_type="nf4")
        new.weight = bitsandbytes.nn.Params4bit(layer.weight.data.cpu(), requires_grad=False, quant_type="nf4")
        new.bias = layer.bias
        model.set_submodule(names[id(layer)], new.to(layer.weight.device))


def products(job):
    """Floating-point operations of all matrix products of the training."""
    rows, length, _ = job.largest
    per_token = count(job, job.largest).products / (rows * length)
    return per_token * (job.tokens + job.settings.epochs * job.validation_tokens / 3)


@functools.cache
def prices():
    """The dated price file: {"as_of", "source", "currency", "instances": [...]}."""
    return json.loads(PRICES.read_text(encoding="utf-8"))


def on_instance(job, instance):
    """(peak bytes, whether it fits, seconds, USD) of a `job` for a GPU on an instance of the price file."""
    available = instance["memory_bytes"] - CONTEXT
    peak = memory_of(job, available)["peak"]
    seconds = products(job) / (instance["flops"] * UTILISATION)
    return peak, peak <= available, seconds, seconds / 3600 * instance["usd_per_hour"]
