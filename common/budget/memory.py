"""Bytes and matrix products of a training step, counted without weights: one and two layers of the true architecture go
through a step of fake tensors (shapes and dtypes without values), and the difference is what every further layer takes.
"""

import contextlib
import weakref
from dataclasses import dataclass

from common import architecture, encoders, machine, qlora, training
from common.budget.job import with_layers

CONTEXT = 0.8e9  # bytes that CUDA and its libraries take beside the tensors, on a GPU
LIBRARIES = 1.05e9  # bytes of Python and the imported libraries, on a CPU
# On a CPU the C library keeps freed blocks, and those that none of the next fits into stay as holes
# (machine.hand_back). Training the embedded models took 1.4 to 1.8 times what a step needs.
HEAP_FRAGMENTATION = 1.55
ADAM = 8  # bytes a trained parameter: two moments in float32
GRADIENT = 4  # bytes a trained parameter, float32


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


def memory_of(job, available):
    """{what for: bytes} at a training's highest; their sum is `peak`. available: bytes that are free before the model
    is loaded, which decide whether dequantised weights are kept (qlora.UNPACK_SHARE)."""
    counted = count(job, job.largest)
    gradients = GRADIENT * counted.trained
    unpacked = stays_unpacked(job, available)
    accumulated = job.settings.batch_size > job.micro_batch  # then gradients are there when a pass begins
    parts = {
        "weights": counted.other + (counted.unpacked if unpacked else counted.packed),
        "adapter": GRADIENT * counted.trained if job.settings.lora_r else 0,
        "optimizer": ADAM * counted.trained,
        "gradients": gradients,
        "activations": counted.step - (0 if accumulated else gradients) + (0 if unpacked else counted.widest),
        "fragmentation": 0,
        "libraries": 0 if job.gpu else LIBRARIES,
    }
    if not job.gpu:
        parts["fragmentation"] = (HEAP_FRAGMENTATION - 1) * (parts["activations"] + gradients)
    parts = {name: round(max(0, value)) for name, value in parts.items()}
    return parts | {"peak": sum(parts.values())}


def stays_unpacked(job, available):
    """Whether the frozen weights are dequantised once and kept: as the loaded model has it, else as qlora.base decides
    with `available` bytes free before the model is loaded."""
    if job.unpacked is not None:
        return job.unpacked
    counted = count(job, job.largest)
    return counted.unpacked <= qlora.UNPACK_SHARE * (available - counted.other - counted.packed)


def available_here():
    """Bytes that a training may take here: of the GPU, or what is free and what this process holds already."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory - CONTEXT
    return machine.free() + machine.resident()


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
    """Count of a model with `layers` layers, all of them run."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    model, frozen = skeleton(job, layers)
    weights = [layer.weight for layer in frozen]
    width = torch.finfo(getattr(torch, job.dtype)).bits // 8
    quantised = sum(weight.numel() for weight in weights)
    distinct = {id(parameter): parameter for parameter in model.parameters()}.values()
    trained = sum(parameter.numel() for parameter in distinct if parameter.requires_grad)
    adapter = trained if job.settings.lora_r else 0
    others = sum(parameter.nbytes for parameter in distinct if not (adapter and parameter.requires_grad))
    with FakeTensorMode(), fused_attention(job.gpu):
        fill(model, lambda old: torch.empty(old.shape, dtype=old.dtype, device="cpu"))
        ledger, flops = make_ledger(model), FlopCounterMode(display=False)
        with ledger:
            step(job, model, batch)
        with flops:  # on its own: its hooks keep tensors alive
            step(job, model, batch)
    return Count(
        parameters=sum(parameter.numel() for parameter in distinct) - adapter,
        packed=sum(nf4_bytes(weight.numel()) for weight in weights),
        unpacked=width * quantised,
        widest=width * max((weight.numel() for weight in weights), default=0),
        other=others - width * quantised,
        trained=trained,
        step=ledger.peak,
        products=flops.get_total_flops(),
    )


def nf4_bytes(numbers):
    """Bytes of a weight matrix in NF4 with double quantisation: half a byte a weight, a byte a block of 64, 4 bytes a
    group of 256 blocks, and two code tables and a mean."""
    blocks = -(-numbers // 64)
    return -(-numbers // 2) + blocks + 4 * -(-blocks // 256) + 4 * (16 + 256 + 1)


def skeleton(job, layers):
    """(the model that is trained, with `layers` of its layers and without weights (meta tensors); the linear layers of
    it that are quantised)."""
    import torch
    import transformers

    config, kind = with_layers(job.config, layers), "AutoModelForCausalLM"
    if job.classes:
        config.num_labels = job.classes
        kind = "AutoModelForTokenClassification" if job.per_token else "AutoModelForSequenceClassification"
    with torch.device("meta"):
        model = getattr(transformers, kind).from_config(config, dtype=getattr(torch, job.dtype))
        heads = encoders.new_modules(model) if job.classes else []
        kept = [model.get_submodule(name) for name in heads] if heads else [model.get_output_embeddings()]
        in_heads = {id(module) for head in kept for module in head.modules()}
        frozen = [
            module
            for module in model.modules()
            if isinstance(module, torch.nn.Linear) and id(module) not in in_heads
        ]  # fmt: skip
        if job.settings.lora_r:
            more = {"task_type": None, "modules_to_save": heads} if heads else {}
            model = qlora.new_adapter(model, job.settings, **more)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if training.recompute(job.parameters, job.gpu):
        model.gradient_checkpointing_enable()
        if job.settings.lora_r:
            architecture.unwrapped(model).enable_input_require_grads()
    return model.train(), frozen if job.settings.lora_r and job.settings.quantization else []


def fill(model, make):
    """Replace every parameter and buffer of `model` by make(it); tied ones stay tied."""
    import torch

    made = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:  # the old one is kept beside it, so that no other gets its id
                    made[id(parameter)] = parameter, torch.nn.Parameter(make(parameter), parameter.requires_grad)
                module._parameters[name] = made[id(parameter)][1]
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
        inputs = {"labels": ids if job.per_token else ids[:, 0]}
    else:
        inputs = {"labels": ids, "use_cache": False}
        if architecture.keeps_logits(model):
            inputs |= {"labels": ids[:, :columns], "logits_to_keep": columns}
    mask = torch.ones((rows, 1, length, length), dtype=torch.bool, device=device)
    mixed = job.precision in ("bfloat16", machine.MIXED)
    with disable_input_dtype_casting(model, mixed):  # around the backward pass too: it may run layers again
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = model(input_ids=ids, attention_mask=mask, **inputs).loss
        loss.backward()


def make_ledger(model):
    """A context that counts the bytes of every tensor while it lives, beside those of `model`: `now` and `peak`."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Ledger(TorchDispatchMode):
        now = peak = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for tensor in tree_leaves(out):
                if isinstance(tensor, torch.Tensor):
                    self.enter(tensor.untyped_storage())
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
