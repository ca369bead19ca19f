"""What a training takes, before it runs: memory, steps, time and money, on this machine and on named ones.

Nothing is downloaded: one and two layers of the true architecture go through a training step of fake tensors
(shapes and dtypes without values), every allocation is counted, and the difference is what each further layer takes.
Time on this machine is measured, by real steps of a few layers with random weights; elsewhere it is the step's
matrix products at a stated share of the accelerator's peak. `python -m common.budget` writes what every model folder
takes at its defaults into budget.json, for the front README.
"""

import contextlib
import copy
import functools
import gc
import json
import statistics
import sys
import time
import weakref
from dataclasses import dataclass, field, replace
from pathlib import Path

from common import architecture, checkpoints, console, data, encoders, encoding, loading, machine, memory, training
from common.console import InputError, say

DEFAULTS = Path(__file__).parent / "budget.json"
REFERENCE = "g5.2xlarge"  # whose time and cost stand in the front README
CARD = 24e9  # bytes of a card that is sold as one of 24 GB
UTILISATION = 0.35  # of an accelerator's dense peak, an assumption: 4-bit layers are unpacked in every pass
CONTEXT = 0.8e9  # bytes that CUDA and its libraries take beside the tensors, on a GPU
# On a CPU the C library keeps freed blocks, and those that none of the next fits into stay as holes (memory.py). Where
# no more is held between steps than the largest one needs, training the embedded models took 1.4 to 1.8 times a step's
# need.
HOLES = 1.55
EVERYTHING = 1  # byte that may stay
LIBRARIES = 1.05e9  # bytes of Python and the imported libraries, on a CPU
ADAM = 8  # bytes a trained parameter: two moments in float32
GRADIENT = 4  # bytes a trained parameter, float32
WORTH = 5e11  # parameters times tokens: a training of less takes seconds, and is not estimated before it runs
CHARACTERS = 4  # a token, where no tokenizer is at hand
DEEP, ROUNDS = 6, 2  # layers of the model that is timed, and how often
LOOK = 1000  # rows that are tokenised for their lengths; those behind them are taken to be like them

# For a dry run without the data or the tokenizer: rows to train on, and tokens of documents (uncut) and answers at
# 0, 10 … 100 % of the rows, counted with a vocabulary of 49k.
TYPICAL = {
    "classification": (
        10_664,
        (4, 36, 57, 77, 101, 133, 176, 236, 320, 521, 18527),
        (3, 3, 4, 4, 4, 5, 7, 7, 8, 9, 10),
    ),
    "summarization": (
        14_732,
        (18, 42, 60, 75, 92, 118, 146, 180, 225, 289, 728),
        (5, 11, 15, 18, 21, 23, 27, 31, 38, 45, 76),
    ),
    "sentiment": (35_000, (34, 118, 154, 171, 192, 224, 262, 325, 403, 548, 1798), (1,) * 11),
    "instructions": (
        46_801,
        (5, 9, 11, 12, 14, 15, 17, 20, 25, 32, 168),
        (1, 10, 18, 33, 63, 105, 159, 217, 292, 363, 594),
    ),
}


@dataclass
class Job:
    """A training, as far as its budget goes."""

    config: object  # transformers' config of the true architecture
    settings: dict  # as Run.settings
    precision: str  # as settings["precision"]
    classes: int | None  # of an encoder's head; None for a model that writes
    per_token: bool  # that head classes every token
    gpu: bool
    batches: list  # of one epoch, a forward pass each: (rows, padded tokens a row, columns that logits are wanted of)
    held: int = 0  # padded tokens that are validated after every epoch
    counts: dict = field(default_factory=dict)  # batch -> its Counts with one layer and with two

    @property
    def steps(self):
        accumulated = max(1, self.settings["batch_size"] // at_once(self.settings))
        return round(-(-len(self.batches) // accumulated) * self.settings["epochs"])

    @property
    def tokens(self):
        """Padded, of all epochs."""
        return self.settings["epochs"] * sum(rows * length for rows, length, _ in self.batches)

    @property
    def largest(self):
        return max(self.batches, key=lambda batch: (batch[0] * batch[1], batch))

    @property
    def dtype(self):
        """Of the weights that are not in 4 bits."""
        return "float32" if self.precision == machine.MIXED else self.precision

    @property
    def layers(self):
        return self.config.num_hidden_layers


@dataclass
class Count:
    """Of a model with some of its layers, or all."""

    parameters: float
    packed: float  # bytes in NF4 of the weights that are quantised, if they stay packed
    unpacked: float  # bytes of the same weights in the dtype that is computed in; 0 where nothing is quantised
    widest: float  # bytes of the largest of them, unpacked
    other: float  # bytes of the other frozen weights, or of all where every weight is trained
    trained: float  # parameters
    step: float  # bytes that a forward and backward pass adds at its highest, gradients included
    products: float  # floating point operations of matrix products in that step


# From a run to a job


def of_run(run, rows=None, held=(), gpu=None):
    """The Job of a training run, or None where its architecture is not known without a download.

    rows, held: training and validation rows as token ids; without them lengths are looked up where data and tokenizer
    are at hand, else typical. gpu: whether it is for a GPU (default: what this machine has)."""
    import torch

    gpu = torch.cuda.is_available() if gpu is None else gpu
    config = config_of(run.checkpoint, run.variant)
    if config is None:
        return None
    if rows is None:
        rows, held = looked_up(run)
    per_token = run.is_encoder and run.task == "summarization"
    classes = {"classification": 20}.get(run.task, 2) if run.is_encoder else None
    settings = run.settings
    shapes = batches(rows, at_once(settings), settings["batch_size"], run.args.seed)
    together = settings["inference_batch_size"]
    validated = batches(held, together, together, 0) if held else []
    return Job(
        config,
        settings,
        precision_of(run, gpu),
        classes,
        per_token,
        gpu,
        shapes,
        sum(n * length for n, length, _ in validated),
    )


def config_of(checkpoint, variant):
    """transformers' config, without weights; None if it is not at hand."""
    import transformers

    if checkpoint.name == variant.checkpoint:
        return transformers.AutoConfig.for_model(**variant.shape)
    try:
        if checkpoint.source == "gguf":
            file = Path(checkpoint.name).expanduser()
            return transformers.AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        return transformers.AutoConfig.from_pretrained(checkpoints.prepare(checkpoint), revision=checkpoint.pin)
    except (OSError, ValueError):
        return None


def precision_of(run, gpu):
    return machine.run_precision(run.facts.PRECISION, not run.settings["lora_r"], gpu)


def at_once(settings):
    """Rows a forward pass."""
    return training.parts(settings["batch_size"], settings["device_batch_size"])


def batches(rows, size, batch_size, seed):
    """(rows, padded length, columns from the first that is learned to the last) of every batch of an epoch, as the
    trainer draws them."""
    lengths = [len(row["input_ids"]) for row in rows]
    order = list(training.by_length(lengths, batch_size, seed))
    found = []
    for start in range(0, len(order), size):
        chosen = [rows[i] for i in order[start : start + size]]
        longest = max(len(row["input_ids"]) for row in chosen)
        found.append((len(chosen), longest, longest - min(map(unlearned, chosen)) + 1))
    return found


def unlearned(row):
    """Tokens before the answer."""
    labels = row["labels"]
    return next((i for i, label in enumerate(labels) if label != -100), 0) if isinstance(labels, list) else 0


def known(run):
    """Where the lengths of a run's rows are taken from, in words."""
    if not data.at_hand(run):
        return "typical of the data set"
    return "by characters" if run.checkpoint.source == "hub" else "as tokenised"


def looked_up(run):
    """(training rows, validation rows) as the trainer gets them, as far as they are at hand: where the tokenizer would
    have to be downloaded, by their characters; where the data would, as the data set of the task usually has them."""
    if not data.at_hand(run):
        return typical(run)
    found = data.of_task(run)
    read = by_characters(run) if run.checkpoint.source == "hub" else as_tokenised(run, found.labels)
    return tuple(repeated(read(rows[:LOOK]), len(rows)) if rows else [] for rows in (found.train, found.validation))


def as_tokenised(run, labels):
    """A function from rows of text to rows of token ids; of an encoder's rows the labels are left out."""
    if not run.is_encoder:
        return functools.partial(encoding.training_rows, run.encoder(labels))
    reader = encoders.Reader(run)
    return lambda rows: [{"input_ids": ids, "labels": 0} for ids in encoders.inputs(reader, rows, labels)[0]]


def by_characters(run):
    tokens = lambda row, name: round(len(row[name]) / CHARACTERS)  # noqa: E731
    return lambda rows: [made(run, tokens(row, "text"), tokens(row, "target")) for row in rows]


def repeated(rows, count):
    return (rows * -(-count // len(rows)))[:count]


def typical(run):
    """(training rows, validation rows) of the task's data set, evenly over the quantiles of TYPICAL."""
    count, documents, answers = TYPICAL[run.task]
    limits = vars(run.facts).get("ROWS", {}).get(run.task, {})
    wanted = run.args.max_train_samples or limits.get("train") or count
    count = max(1, min(wanted, int(run.args.train_sample_fraction * count)))
    held = limits.get("validation", -(-count // 7)) if run.task == "sentiment" else 0  # 10 % beside 70 %

    def rows(n):  # not the longest answer to the longest document: by the golden ratio, as if drawn
        places = [(10 * (i + 0.5) / n, 10 * (i * 0.618 % 1)) for i in range(n)]
        return [made(run, quantile(documents, one), quantile(answers, other)) for one, other in places]

    return rows(count), rows(held)


def made(run, document, answer):
    """A row of so many tokens, the document cut as the run cuts it."""
    longest = run.settings["max_document_tokens"]
    if run.is_encoder:
        return {"input_ids": range(min(document + 2, longest)), "labels": 0}
    prompt = round(len(run.template.text + run.template.cue) / CHARACTERS) + min(document, longest)
    return {"input_ids": range(prompt + answer + 1), "labels": [-100] * prompt + [1]}


def quantile(points, place):
    """Linear between the points; place in 0 … len(points) - 1."""
    below = min(int(place), len(points) - 2)
    return round(points[below] + (place - below) * (points[below + 1] - points[below]))


# Memory


def skeleton(job, layers):
    """The model that is trained, with `layers` of its layers and no weights (meta tensors)."""
    import torch
    import transformers

    config = copy.deepcopy(job.config)
    config.num_hidden_layers = layers
    if job.classes:
        config.num_labels = job.classes
    auto = transformers.AutoModelForCausalLM
    if job.classes:
        of_text, of_token = (
            transformers.AutoModelForSequenceClassification,
            transformers.AutoModelForTokenClassification,
        )
        auto = of_token if job.per_token else of_text
    with torch.device("meta"):
        model = auto.from_config(config, dtype=getattr(torch, job.dtype))
        heads = encoders.new_modules(model) if job.classes else []
        kept = [model.get_submodule(name) for name in heads] if heads else [model.get_output_embeddings()]
        frozen = [
            module
            for module in model.modules()
            if isinstance(module, torch.nn.Linear) and not any(module in head.modules() for head in kept)
        ]
        if job.settings["lora_r"]:
            more = {"task_type": None, "modules_to_save": heads} if heads else {}
            model = loading.new_adapter(model, job.settings, **more)
        else:
            frozen = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if training.recompute(parameters_of(job), job.gpu):
        model.gradient_checkpointing_enable()
        if job.settings["lora_r"]:
            architecture.unwrapped(model).enable_input_require_grads()
    return model.train(), frozen


def parameters_of(job):
    """Parameters of the whole model, without an adapter."""
    import torch
    import transformers

    key = json.dumps(job.config.to_dict(), default=str, sort_keys=True)
    if key not in _sizes:
        auto = transformers.AutoModel if job.classes else transformers.AutoModelForCausalLM
        sizes = []
        for layers in (1, 2):
            config = copy.deepcopy(job.config)
            config.num_hidden_layers = layers
            with torch.device("meta"):
                sizes.append(sum(parameter.numel() for parameter in auto.from_config(config).parameters()))
        _sizes[key] = sizes[0] + (job.layers - 1) * (sizes[1] - sizes[0])
    return _sizes[key]


_sizes = {}


def filled(model, make):
    """`model` with every parameter and buffer replaced by make(it); tied ones stay tied."""
    import torch

    known = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in known:
                    known[id(parameter)] = parameter, torch.nn.Parameter(make(parameter), parameter.requires_grad)
                module._parameters[name] = known[id(parameter)][1]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = make(buffer)
    return model


def step(job, model, batch):
    """One forward and backward pass; batch: (rows, length, columns)."""
    import torch
    from peft.helpers import disable_input_dtype_casting

    rows, length, columns = batch
    device = next(model.parameters()).device
    ids = torch.ones((rows, length), dtype=torch.long, device=device)
    if job.classes:
        told = {"labels": ids if job.per_token else ids[:, 0]}
    else:
        told = {"labels": ids, "use_cache": False}
        if architecture.keeps_logits(model):
            told |= {"labels": ids[:, :columns], "logits_to_keep": columns}
    mask = torch.ones((rows, 1, length, length), dtype=torch.bool, device=device)
    mixed = job.precision in ("bfloat16", machine.MIXED)
    with disable_input_dtype_casting(model, mixed):  # around the way back too, where passes may be made again
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = model(input_ids=ids, attention_mask=mask, **told).loss
        loss.backward()


def count(job, batch, layers=None):
    """Count of the model with `layers` layers (default: all), one `batch` a step: that of one layer, and for every
    further one the difference to two. These two are counted once a job."""
    if batch not in job.counts:
        job.counts[batch] = [counted(job, few, batch) for few in (1, 2)]
    one, two = job.counts[batch]
    more = (layers or job.layers) - 1
    whole = {name: value + more * (vars(two)[name] - value) for name, value in vars(one).items()}
    return Count(**whole | {"widest": one.widest})


def counted(job, layers, batch):
    """Count of a model with `layers` layers."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    model, frozen = skeleton(job, layers)
    weights = [layer.weight for layer in frozen]
    width = torch.finfo(getattr(torch, job.dtype)).bits // 8
    quantised = sum(weight.numel() for weight in weights)
    held = {id(parameter): parameter for parameter in model.parameters()}.values()
    trained = sum(parameter.numel() for parameter in held if parameter.requires_grad)
    others = sum(parameter.nbytes for parameter in held if not (parameter.requires_grad and job.settings["lora_r"]))
    parameters = sum(parameter.numel() for parameter in held) - (trained if job.settings["lora_r"] else 0)
    with FakeTensorMode(), fused_attention(job.gpu):
        filled(model, lambda old: torch.empty(old.shape, dtype=old.dtype, device="cpu"))
        ledger = make_ledger(model)
        with ledger:
            step(job, model, batch)
    return Count(
        parameters,
        sum(nf4(weight.numel()) for weight in weights),
        width * quantised,
        width * max((weight.numel() for weight in weights), default=0),
        others - width * quantised,
        trained,
        ledger.peak,
        ledger.products,
    )


def nf4(numbers):
    """Bytes of a weight matrix in NF4 with double quantisation: half a byte a weight, a byte a block of 64, 4 bytes a
    group of 256 blocks, and two code tables and a mean."""
    blocks = -(-numbers // 64)
    return -(-numbers // 2) + blocks + 4 * -(-blocks // 256) + 4 * (16 + 256 + 1)


def make_ledger(model):
    """A context that counts the bytes of every tensor while it lives, beside those of `model`: `now`, `peak`; and the
    floating point operations of matrix products: `products`."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    class Ledger(TorchDispatchMode):
        now = peak = products = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for tensor in tree_leaves(out):
                if isinstance(tensor, torch.Tensor):
                    self.enter(tensor.untyped_storage())
            if function._overloadpacket in flop_registry:
                self.products += flop_registry[function._overloadpacket](*args, **(kwargs or {}), out_val=out)
            return out

        def enter(self, storage):
            if storage._cdata not in self.live:
                self.live[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.leave, storage._cdata)

        def leave(self, key):
            self.now -= self.live.pop(key)

    ledger = Ledger()
    ledger.live = {tensor.untyped_storage()._cdata: 0 for tensor in [*model.parameters(), *model.buffers()]}
    return ledger


@contextlib.contextmanager
def fused_attention(gpu):
    """On a GPU, attention by a kernel that keeps its inputs, its output and a number a query; fake tensors are a CPU's,
    whose kernels keep all probabilities where there is dropout."""
    import torch

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(context, query, key, value):
            out = query.new_empty(*query.shape[:-1], value.shape[-1])
            context.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
            return out

        @staticmethod
        def backward(context, gradient):
            return tuple(torch.empty_like(tensor) for tensor in context.saved_tensors[:3])

    functional = torch.nn.functional
    usual = functional.scaled_dot_product_attention
    if gpu:
        functional.scaled_dot_product_attention = lambda query, key, value, *rest, **keywords: Fused.apply(
            query, key, value
        )
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = usual


def memory_of(job, room):
    """What is in memory at a training's highest, in bytes, by what it is for; their sum is `peak`. room: bytes that are
    free before the model is loaded: where there are many, dequantised weights are kept (loading.unpacked)."""
    found = count(job, job.largest)
    gradients = GRADIENT * found.trained
    unpacked = stays_unpacked(job, room)
    adapter = GRADIENT * found.trained if job.settings["lora_r"] else 0
    several = job.settings["batch_size"] > at_once(job.settings)  # then gradients are there when a pass begins
    parts = {
        "weights": found.other + (found.unpacked if unpacked else found.packed),
        "adapter": adapter,
        "optimizer": ADAM * found.trained,
        "gradients": gradients,
        "activations": found.step - (0 if several else gradients) + (0 if unpacked else found.widest),
        "holes": 0,
        "libraries": 0 if job.gpu else LIBRARIES,
    }
    if not job.gpu:
        parts["holes"] = (HOLES - 1) * (parts["activations"] + gradients)
    parts = {name: round(max(0, value)) for name, value in parts.items()}
    return parts | {"peak": sum(parts.values())}


# Time and money


def seconds_here(job):
    """Seconds of the whole training on this machine, by real steps of a few layers with random weights on a short
    batch and a long one; None where this machine is none for it.

    A step's seconds grow with its padded tokens, and with depth as its matrix products do."""
    import torch

    if job.gpu != torch.cuda.is_available() or not (job.gpu or parameters_of(job) < machine.CPU_LIMIT):
        return None
    ordered = sorted(job.batches, key=lambda batch: batch[0] * batch[1])
    short, long = (ordered[int(share * (len(ordered) - 1))] for share in (0.25, 0.9))
    memory.keep_freed()  # as training does
    layers = min(DEEP, job.layers)
    with torch.random.fork_rng():
        step_on = stepper(job, layers)
        rounds = []
        for turn in range(ROUNDS + 1):
            if turn == 1:  # training hands memory back before about every second step, which takes it anew
                memory.hand_back(EVERYTHING)
            rounds.append([step_on(batch) for batch in (long, short)])
    del step_on
    gc.collect()
    memory.hand_back(EVERYTHING)  # what was tried leaves no holes to the training
    found = [statistics.mean(each) for each in zip(*rounds[1:], strict=True)]  # the first one warms up
    # By products, not by the difference that a layer makes: a busy machine's noise would count as often as there are
    # layers.
    more = [count(job, batch).products / count(job, batch, layers).products for batch in (long, short)]
    of_long, of_short = (seconds * share for seconds, share in zip(found, more, strict=True))
    a, b = long[0] * long[1], short[0] * short[1]
    slope = max(0.0, of_long - of_short) / (a - b) if a > b else 0.0
    epoch = sum(max(of_long + slope * (rows * length - a), 0.0) for rows, length, _ in job.batches)
    # of a step, the forward pass is a third or less: weights or inputs are learned from, and the optimizer steps
    return job.settings["epochs"] * (epoch + job.held * of_long / a / 3)


def stepper(job, layers):
    """A function from a batch to the seconds of a step on it, optimizer included, of a model of random weights."""
    import torch

    model, frozen = skeleton(job, layers)
    device = machine.device()[""]
    filled(model, lambda old: noise(old, device))
    if job.gpu and frozen and not stays_unpacked(job, room_here()):
        packed_again(model, frozen, job.dtype)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)

    def once(batch):
        began = time.perf_counter()
        step(job, model, batch)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if job.gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return once


def noise(old, device):
    import torch

    new = torch.empty(old.shape, dtype=old.dtype, device=device)
    return new.normal_(0, 0.02) if new.is_floating_point() else new.zero_()


def packed_again(model, layers, dtype):
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


def stays_unpacked(job, room):
    """Whether loading.unpacked keeps the dequantised weights with `room` bytes free before the model is loaded."""
    found = count(job, job.largest)
    return found.unpacked <= loading.SHARE * (room - found.other - found.packed)


def products(job):
    """Floating point operations of all matrix products of the training. Fused attention's own are not in it: a few
    per cent at these lengths."""
    rows, length, _ = job.largest
    a_token = count(job, job.largest).products / (rows * length)
    return a_token * (job.tokens + job.settings["epochs"] * job.held / 3)


@functools.cache
def prices():
    """The dated price file: {"as_of", "source", "currency", "instances": [...]}."""
    return json.loads((Path(__file__).parent / "prices.json").read_text(encoding="utf-8"))


def on_instance(job, instance):
    """(bytes at the highest, whether it fits, seconds, price) of a `job` for a GPU on an instance of the price file."""
    room = instance["memory_bytes"] - CONTEXT
    peak = memory_of(job, room)["peak"]
    seconds = products(job) / (instance["flops"] * UTILISATION)
    return peak, peak <= room, seconds, seconds / 3600 * instance["usd_per_hour"]


# Before and after a run


def before(run, rows, held=()):
    """Estimate a training that is about to begin into `run.estimate`: {"peak_memory_bytes", "seconds"}, and say so.
    A training of a few seconds is not worth it and is left at None. Returns how many bytes the process
    should hold between steps (memory.hand_back), or None."""
    job = of_run(run, rows, held)
    if job is None or parameters_of(job) * job.tokens < WORTH:
        return None
    parts, seconds = memory_of(job, room_here()), seconds_here(job)
    peak = parts["peak"]
    run.estimate = {"peak_memory_bytes": peak, "seconds": seconds}
    took = f"about {console.duration(seconds)}" if seconds else "time not known"
    say(f"expected: {took}, a peak of {peak / 1e9:.1f} GB")
    return peak - parts["holes"]


def compared(estimate, training):
    """The `estimate` block of a record: the estimate and its error against what was measured, 0.1 for 10 % too much;
    None where either is not known."""
    if not estimate:
        return None

    def error(name):
        measured = (training or {}).get(name)
        return estimate[name] / measured - 1 if measured and estimate[name] else None

    return estimate | {"peak_error": error("peak_memory_bytes"), "seconds_error": error("seconds")}


def report(run):
    """What --dry_run says of a training, as text."""
    import torch

    gpu = torch.cuda.is_available()
    job = of_run(run)
    if job is None:
        return "  no estimate: this checkpoint's architecture is not known here without a download"
    other = job if gpu else replace(job, gpu=True, precision=precision_of(run, True), counts={})
    room = room_here()
    parts = memory_of(job, room)
    lines = [f"{job.steps} steps, {job.tokens:,} tokens with padding (lengths {known(run)}), largest pass {shape(job)}"]
    lines += ["on this machine: " + ", ".join(f"{name} {value / 1e9:.2f}" for name, value in parts.items()) + " GB"]
    seconds, price = seconds_here(job), run.args.price_per_hour
    usd = seconds / 3600 * price if seconds and price else None
    rows = [["where", "memory", "peak", "fits", "training", "cost"]]
    here = parts["peak"] <= room and seconds is not None
    rows += [line(f"this machine ({machine.device_name()})", room, parts["peak"], here, seconds, usd)]
    for instance in prices()["instances"]:
        peak, fits, *took = on_instance(other, instance)
        name = f"{instance['name']} ({instance['accelerator']})"
        rows.append(line(name, instance["memory_bytes"], peak, fits, *(took if fits else (None, None))))
    lines += ["", *console.columns(rows).splitlines(), ""]
    lines += [f"prices of {prices()['as_of']}: {prices()['source']}; at {UTILISATION:.0%} of the peak, assumed"]
    if seconds is None:
        lines += [
            f"no GPU here, and a CPU is none for it: --pretrained_ckpt {checkpoints.stand_in(run.variant.format)}"
        ]
    elif not here:
        lines += [f"to fit here: {advice(job, room)}"]
    card = next(each for each in prices()["instances"] if each["memory_bytes"] > CARD)
    if not on_instance(other, card)[1]:
        lines += [f"to fit {card['memory_bytes'] / 1e9:.0f} GB: {advice(other, card['memory_bytes'] - CONTEXT)}"]
    return "\n".join(f"  {each}".rstrip() for each in lines)


def room_here():
    """Bytes that a training may take here: of the GPU, or what is free and what this process holds already."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory - CONTEXT
    return memory.free() + memory.resident()


def shape(job):
    rows, length, _ = job.largest
    return f"{rows} x {length}"


def line(name, room, peak, fits, seconds, usd):
    took = console.duration(seconds) if seconds is not None else "-"
    cost = f"{usd:.2f} USD" if usd is not None else "-"
    return [name, f"{room / 1e9:.1f} GB", f"{peak / 1e9:.1f} GB", "yes" if fits else "NO", took, cost]


def advice(job, room):
    """Flags with which `job` takes no more than `room` bytes, each with the peak it then has."""
    size, longest = at_once(job.settings), job.settings["max_document_tokens"]
    tries = [(size // 2**i, longest) for i in range(1, 8) if size >= 2**i]
    tries += [(size, longest // 2**i) for i in (1, 2, 3)]
    tries += [(1, longest // 2**i) for i in (1, 2, 3)]
    found = {}
    for rows, tokens in tries:
        changed = [f"--batch_size {rows}"] * (rows < size) + [f"--max_document_tokens {tokens}"] * (tokens < longest)
        kind = (rows < size, tokens < longest)  # the mildest change of a kind will do
        if kind not in found and (kind != (True, True) or not found):
            peak = memory_of(smaller(job, rows, tokens), room)["peak"]
            if peak <= room:
                found[kind] = f"{' '.join(changed)} (a peak of {peak / 1e9:.1f} GB)"
    words = "a smaller model: --pretrained_ckpt " + checkpoints.stand_in("encoder" if job.classes else "plain")
    return ", or ".join(found.values()) or words


def smaller(job, rows, tokens):
    """`job` with fewer rows a step and shorter documents."""
    n, length, columns = job.largest
    cut = job.settings["max_document_tokens"] - tokens
    settings = job.settings | {"batch_size": rows, "max_document_tokens": tokens}
    batch = (min(n, rows), max(length - cut, 16), min(columns, max(length - cut, 16)))
    return replace(job, settings=settings, batches=[batch], counts={})


# The front README's table


def defaults(home):
    """{checkpoint: figures} of a model folder's variants at its defaults for summarization, on a GPU: one with CARD,
    and the time and cost of the instance REFERENCE."""
    from common import experiment, flags, folders

    facts, wording = (folders.load_module(home / f"{name}.py") for name in ("model", "prompts"))
    instance = next(each for each in prices()["instances"] if each["name"] == REFERENCE)
    found = {}
    for variant in facts.VARIANTS:
        args = flags.summarization(flags.training("")).parse_args(["--pretrained_ckpt", variant.checkpoint])
        run = experiment.resolve(args, facts, wording, "training")
        rows = typical(run)
        job = of_run(run, *rows, gpu=True)
        parts = memory_of(job, CARD - CONTEXT)
        _, _, seconds, usd = on_instance(job, instance)
        found[variant.checkpoint] = parts | {
            "parameters": parameters_of(job),
            "fits": parts["peak"] + CONTEXT <= CARD,
            "seconds": round(seconds),
            "usd": round(usd, 2),
        }
    return found


def of_defaults(variant):
    """What `python -m common.budget` found for a variant at its folder's defaults."""
    found = json.loads(DEFAULTS.read_text(encoding="utf-8"))
    if variant.checkpoint not in found:
        raise InputError(f"{DEFAULTS.name} has no {variant.checkpoint}: run python -m common.budget")
    return found[variant.checkpoint]


def peak_of_defaults(variant):
    """Bytes of GPU memory to train `variant` at its folder's defaults, CUDA's own included."""
    return of_defaults(variant)["peak"] + CONTEXT


def main():
    """Write the defaults' estimates of every model folder into budget.json beside this file."""
    from common import folders, records

    found = {}
    for folder in folders.everyone():
        found |= defaults(folder.path)
    records.write_json(DEFAULTS, found)
    say(f"{records.display(DEFAULTS)}: {len(found)} checkpoints")


if __name__ == "__main__":
    sys.exit(console.exit_code(main))
