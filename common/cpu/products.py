"""The time of a layer's matrix products in float32 and bfloat16 on this CPU."""

import contextlib
import functools
import json
import time

from common import files, machine

ROWS, RANK, MOST = 512, 64, 2048  # sizes of the products: tokens, an adapter's rank, and the widest that is timed
SECONDS = 0.8  # that the measurement may take; each precision is timed once at least


def bfloat16_share(layer):
    """The time of bfloat16 over the time of float32 on this CPU, for the matrix products of a layer of these (hidden,
    inner) sizes in a training step. Processor flags do not tell: some CPUs with bfloat16 instructions are twice as slow
    in it. Measured once per machine, number of threads, version of torch and sizes, and stored in the cache folder."""
    import torch

    hidden, inner = (min(size, MOST) for size in layer)
    file, timings = machine.cache() / "matrix_products.json", {}
    key = f"{machine.device_name()}, {machine.threads()} threads, torch {torch.__version__}, {hidden} x {inner}"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, ZeroDivisionError):
        timings = dict(json.loads(file.read_text(encoding="utf-8")))
        return float(timings[key]["bfloat16"]) / float(timings[key]["float32"])
    timings[key] = measured(hidden, inner)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs a second a run
        files.write_json(file, timings)
    return timings[key]["bfloat16"] / timings[key]["float32"]


def measured(hidden, inner):
    """{precision: seconds} of a layer's products, forward and backward, with an adapter: the least of several rounds,
    because other processes slow down single ones."""
    import torch

    began, seconds = time.perf_counter(), {"float32": [], "bfloat16": []}
    products = {name: layer_products(hidden, inner, getattr(torch, name)) for name in seconds}
    with torch.inference_mode():
        while not seconds["bfloat16"] or time.perf_counter() - began < SECONDS:
            for name, product in products.items():
                start = time.perf_counter()
                product()
                seconds[name].append(time.perf_counter() - start)
    return {name: min(rounds) for name, rounds in seconds.items()}


def layer_products(hidden, inner, dtype):
    """A function that computes the matrix products of a frozen layer and its adapter in a training step."""
    import torch

    make = functools.partial(torch.ones, dtype=dtype)
    x, gradient = make((ROWS, hidden)), make((ROWS, inner))
    weight, down, up = make((inner, hidden)), make((RANK, hidden)), make((inner, RANK))

    def product():
        low, back = x @ down.t(), gradient @ up
        return x @ weight.t(), low @ up.t(), gradient @ weight, back @ down, back.t() @ x, gradient.t() @ low

    return product
