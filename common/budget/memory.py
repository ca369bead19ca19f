"""Bytes and matrix products of a training step, counted without weights: models of one and of two layers of the real
architecture go through a step of fake tensors (shapes and dtypes without values); every further layer adds the
difference.
"""

import contextlib
import weakref
from dataclasses import dataclass

from common import architecture, encoders, machine, precision, qlora, training
from common.budget.job import with_layers

CONTEXT = 0.8e9  # bytes of GPU memory that CUDA and its libraries take beside the tensors
LIBRARIES = 1.05e9  # bytes of Python and the imported libraries, on a CPU
# On a CPU the C library keeps freed blocks, and those that fit no later request stay as holes. Up to a quarter of all
# memory they stay with the process (machine.hand_back): training the embedded models took 2.1 to 4.1 times the bytes
# that a step needs, the more the longer. Above that they are returned, and it took 1.4 to 1.8 times as much.
HEAP, SCARCE_HEAP = 2.8, 1.55
ADAM = 8  # bytes for each trained parameter: two moments in float32
GRADIENT = 4  # bytes for each trained parameter, in float32


@dataclass
class Count:
    """The sizes of a model with some or all of its layers."""

    parameters: float
    packed: float  # bytes of the quantised weights in NF4
    unpacked: float  # bytes of the same weights in the dtype of the computation; 0 if none are quantised
    widest: float  # bytes of the largest of them, unpacked
    other: float  # bytes of the other frozen weights; of all weights if all are trained
    trained: float  # number of trained parameters
    step: float  # most bytes that a forward and backward pass adds, with the gradients
    products: float  # floating-point operations of that step's matrix products


def memory_of(job, available):
    """{part: bytes} at the peak of a training, and "peak", their sum. available: free bytes before the model is loaded;
    they decide whether dequantised weights are kept (qlora.UNPACK_SHARE)."""
    counts = count(job, job.largest)
    gradients = GRADIENT * counts.trained
    unpacked = stays_unpacked(job, available)
    accumulates = job.settings.batch_size > job.micro_batch  # then a pass begins with gradients in memory
    parts = {
        "weights": counts.other + (counts.unpacked if unpacked else counts.packed),
        "adapter": GRADIENT * counts.trained if job.settings.lora_r else 0,
        "optimizer": ADAM * counts.trained,
        "gradients": gradients,
        "activations": counts.step - (0 if accumulates else gradients) + (0 if unpacked else counts.widest),
        "fragmentation": 0,
        "libraries": 0 if job.gpu else LIBRARIES,
    }
    if not job.gpu:
        worked, rest = parts["activations"] + gradients, sum(parts.values())
        kept = min((HEAP - 1) * worked, machine.total() / 4 - rest)
        parts["fragmentation"] = max(kept, (SCARCE_HEAP - 1) * worked)
    parts = {name: round(max(0, value)) for name, value in parts.items()}
    return parts | {"peak": sum(parts.values())}


def stays_unpacked(job, available):
    """Whether the frozen weights are dequantised once and kept: as in the loaded model or, before it is loaded, as
    qlora.base would decide with `available` free bytes."""
    if job.unpacked is not None:
        return job.unpacked
    counts = count(job, job.largest)
    return counts.unpacked <= qlora.UNPACK_SHARE * (available - counts.other - counts.packed)


def available_here():
    """Bytes that a training may take here: of the GPU, else the free memory and the memory of this process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory - CONTEXT
    return machine.free() + machine.resident()


def count(job, batch, layers=None):
    """Count of the model with `layers` layers (default: all) and one `batch` a step: the Count of one layer, plus the
    difference between two layers and one for every further layer. A job counts these two once."""
    if batch not in job.counts:
        job.counts[batch] = [counted(job, number, batch) for number in (1, 2)]
    one, two = job.counts[batch]
    further = (layers or job.layers) - 1
    totals = {name: value + further * (vars(two)[name] - value) for name, value in vars(one).items()}
    return Count(**totals | {"widest": one.widest})


def counted(job, layers, batch):
    """Count of a model that has only `layers` layers, by a step of fake tensors."""
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
    other_bytes = sum(parameter.nbytes for parameter in distinct if not (adapter and parameter.requires_grad))
    with FakeTensorMode(), fused_attention(job.gpu):
        fill(model, lambda old: torch.empty(old.shape, dtype=old.dtype, device="cpu"))
        ledger, flops = make_ledger(model), FlopCounterMode(display=False)
        with training.fused_layers(model, gpu=job.gpu):
            with ledger:
                step(job, model, batch)
            with flops:  # in a step of its own, because its hooks keep tensors alive
                step(job, model, batch)
    return Count(
        parameters=sum(parameter.numel() for parameter in distinct) - adapter,
        packed=sum(nf4_bytes(weight.numel()) for weight in weights),
        unpacked=width * quantised,
        widest=width * max((weight.numel() for weight in weights), default=0),
        other=other_bytes - width * quantised,
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
    """(the model to train, with `layers` of its layers and without weights (meta tensors); its quantised linear
    layers)."""
    import torch
    import transformers

    config, kind = with_layers(job.config, layers), "AutoModelForCausalLM"
    if job.classes:
        config.num_labels = job.classes
        kind = "AutoModelForTokenClassification" if job.per_token else "AutoModelForSequenceClassification"
    with torch.device("meta"):
        model = getattr(transformers, kind).from_config(config, dtype=getattr(torch, job.dtype))
        heads = encoders.new_modules(model) if job.classes else []
        unquantised = [model.get_submodule(name) for name in heads] if heads else [model.get_output_embeddings()]
        in_unquantised = {id(module) for head in unquantised for module in head.modules()}
        frozen = [
            module
            for module in model.modules()
            if isinstance(module, torch.nn.Linear) and id(module) not in in_unquantised
        ]  # fmt: skip
        if job.settings.lora_r:
            keywords = {"task_type": None, "modules_to_save": heads} if heads else {}
            model = qlora.new_adapter(model, job.settings, **keywords)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if training.recompute(job.parameters, job.gpu):
        model.gradient_checkpointing_enable()
        if job.settings.lora_r:
            architecture.unwrapped(model).enable_input_require_grads()
    return model.train(), frozen if job.settings.lora_r and job.settings.quantization else []


def fill(model, make):
    """Replace every parameter and buffer of `model` by make(old tensor); tied parameters stay tied."""
    import torch

    new = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in new:  # keep the old one, so that no other tensor gets its id
                    new[id(parameter)] = parameter, torch.nn.Parameter(make(parameter), parameter.requires_grad)
                module._parameters[name] = new[id(parameter)][1]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = make(buffer)
    return model


def step(job, model, batch):
    """One forward and backward pass of a job. batch: (rows, padded tokens a row, tokens of all answers)."""
    import torch
    from peft.helpers import disable_input_dtype_casting

    rows, length, answers = batch
    device = next(model.parameters()).device
    ids = torch.ones((rows, length), dtype=torch.long, device=device)
    mixed = job.precision in ("bfloat16", precision.MIXED)
    with contextlib.ExitStack() as stack:
        stack.enter_context(disable_input_dtype_casting(model, mixed))  # also around the backward pass: recomputation
        if job.classes:
            mask = torch.ones((rows, 1, length, length), dtype=torch.bool, device=device)
            inputs = {"labels": ids if job.per_token else ids[:, 0], "attention_mask": mask}
        else:
            labels = torch.ones((1, answers), dtype=torch.long, device=device)
            inputs = {"labels": labels, "shift_labels": labels, "use_cache": False}
            stack.enter_context(training.logits_at(model, torch.arange(answers, device=device)))
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            loss = model(input_ids=ids, **inputs).loss
        loss.backward()


def make_ledger(model):
    """A context that counts the bytes of all live tensors, without those of `model`: attributes `now` and `peak`."""
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
    """For a GPU, replace attention by a function that saves what the fused kernel saves: its inputs, its output and one
    number for each query. Fake tensors are on a CPU, whose kernels save all probabilities if there is dropout."""
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
    original = functional.scaled_dot_product_attention
    if gpu:
        functional.scaled_dot_product_attention = lambda query, key, value, *rest, **keywords: Fused.apply(
            query, key, value
        )
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = original
