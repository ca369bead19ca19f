"""QLoRA: a base model in 4 bits and an adapter on it; the same weights for training, scoring and use.

NF4 with double quantisation (arXiv 2305.14314) through bitsandbytes, on GPU and CPU. Weights are read from safetensors
only, and no code is ever taken from a checkpoint. Where memory allows it the 4-bit weights are dequantised once and
kept, instead of in every pass: the same numbers, sooner.
"""

import contextlib
import functools
import sys
from pathlib import Path

from common import checkpoints, console, machine
from common.console import InputError

UNPACK_SHARE = 0.25  # of the free memory that dequantised weights may take; activations need the rest
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"  # of an adapter's folder, as peft names them
DROPOUT_LEVELS = 2**16  # a dropout probability is rounded to these: 0.1 becomes 0.100006


def tokenizer(checkpoint):
    """The checkpoint's tokenizer, padding on the left, with a pad token (the end of sequence where it has none: masks
    are made by position, never by comparing with the pad id). Raises InputError if it does not fit the model."""
    import transformers

    made = reading(transformers.AutoTokenizer, checkpoint)
    if not made.is_fast:
        raise InputError(f"{checkpoint.name} has no fast tokenizer (tokenizer.json): documents cannot be cut by tokens")
    size = getattr(reading(transformers.AutoConfig, checkpoint), "vocab_size", None)
    if size and len(made) > size:
        raise InputError(
            f"{checkpoint.name}: the tokenizer has {len(made)} tokens, the model {size}: they are not of one checkpoint"
        )
    if made.pad_token is None:
        made.pad_token = made.eos_token
    made.padding_side = "left"
    return made


def base(checkpoint, execution):
    """The base model in 4 bits, ready to score, every linear layer but the head quantised (asserted).

    execution: settings.Execution (precision, use_flash_attention). `model.unpacked` says whether the 4-bit values are
    held in plain layers.
    """
    import transformers

    keywords = {"attn_implementation": "flash_attention_2"} if execution.use_flash_attention else {}
    model = quantised(transformers.AutoModelForCausalLM, checkpoint, execution.precision, **keywords)
    assert_quantised(model, [model.get_output_embeddings()])
    return unpacked(model)


def trained(checkpoint, execution, folder):
    """`base` with the adapter that a training left in folder/adapter."""
    return with_adapter(base(checkpoint, execution), Path(folder) / "adapter")


def quantised(auto, checkpoint, precision, skip=None, **keywords):
    """The model that `auto` makes of the checkpoint, in NF4, ready to score.

    precision: what it computes in, as torch names it; skip: names of modules to leave as they are (the output head of a
    model that writes is left in any case) and may be new; any other weight has to be in the checkpoint.
    """
    import torch
    import transformers

    with plain_linear_layers(auto, checkpoint):
        model, info = reading(
            auto,
            checkpoint,
            output_loading_info=True,
            dtype=getattr(torch, precision),
            device_map=machine.device(),
            use_safetensors=True,
            quantization_config=transformers.BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",  # the library's default is fp4
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=getattr(torch, precision),
                llm_int8_skip_modules=skip,
            ),
            **keywords,
        )
    # The library fills weights that the files lack at random; those of a new head are meant to be.
    lost = [name for name in sorted(info["missing_keys"]) if name.split(".")[0] not in (skip or []) + ["pooler"]]
    if lost:
        raise InputError(f"cannot load {checkpoint.name}: its files lack {len(lost)} weights, the first is {lost[0]}")
    for name, layer in model.named_modules():  # of weights in 4 bits the library compares no shapes
        if (state := getattr(getattr(layer, "weight", None), "quant_state", None)) is not None:
            shape = (layer.out_features, layer.in_features)
            if tuple(state.shape) != shape:
                raise InputError(f"cannot load {checkpoint.name}: {name} is {list(state.shape)}, not {list(shape)}")
    keep_gradients(model)
    return model.eval()


def new_adapter(model, settings, **keywords):
    """Wrap `model` in a fresh LoRA adapter as `settings` say (lora_r, lora_alpha, dropout, targets).

    keywords: of peft's LoraConfig, beside those. Raises InputError for a target that the model does not have.
    """
    import peft

    targets = [settings.targets] if isinstance(settings.targets, str) else list(settings.targets)
    every = targets == ["all-linear"]  # peft's word for all linear layers but the head
    ends = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    missing = [target for target in targets if target not in ends and not every]
    if missing:
        raise InputError(f"this checkpoint has no layers named {', '.join(missing)}: wrong model folder for it?")
    config = peft.LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.dropout,
        target_modules=targets[0] if every else targets,
        bias="none",
        **{"task_type": "CAUSAL_LM", **keywords},
    )
    adapted = machine.attempt(peft.get_peft_model, model, config)
    if adapted is None:
        raise console.Failed("OOM", f"memory does not hold an adapter of rank {settings.lora_r}: lower --lora_r")
    return adapted if model.device.type == "cuda" else fast_dropout(adapted)


def with_adapter(model, folder):
    """Put the trained adapter saved in `folder` on the 4-bit `model`, for scoring.

    Raises InputError if the file is not whole: every tensor that the adapter's config asks for has to be there, in its
    shape, and no other one. peft itself would leave what is missing at its random start.
    """
    import peft
    import safetensors.torch

    folder = Path(folder)
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise InputError(f"no trained adapter in {folder} ({name}): train one, or name another --experiment_dir")
    try:
        config = peft.PeftConfig.from_pretrained(folder)
        if config.peft_type != "LORA" or config.megatron_config:
            raise ValueError(f"it is no plain LoRA adapter ({config.peft_type})")
        config.inference_mode, config.base_model_name_or_path = True, None
        adapted = peft.get_peft_model(model, config)
        tensors = safetensors.torch.load_file(folder / WEIGHTS)
        expected = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
        compare(tensors, {name: tuple(tensor.shape) for name, tensor in expected.items()})
        peft.set_peft_model_state_dict(adapted, tensors)
    except Exception as error:  # torch, peft, safetensors and json each have their own kinds
        raise InputError(f"cannot use the adapter in {folder}: {first_line(error)}") from None
    return adapted.eval()


def compare(tensors, shapes):
    """Raises ValueError naming the first tensor that is missing, foreign or of another shape than in `shapes`."""
    for name, shape in shapes.items():
        if name not in tensors:
            raise ValueError(f"the tensor {name} is missing")
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"the tensor {name} has the shape {list(tensors[name].shape)}, not {list(shape)}")
    foreign = sorted(tensors.keys() - shapes.keys())
    if foreign:
        raise ValueError(f"the tensor {foreign[0]} has no place in this model and adapter_config.json")


def reading(auto, checkpoint, **keywords):
    """`auto.from_pretrained(checkpoint)`; whatever is wrong with the files becomes an InputError of one line."""
    source = checkpoints.prepare(checkpoint)
    try:
        return auto.from_pretrained(source, revision=checkpoint.pin, **keywords)
    except Exception as error:  # the libraries have a dozen kinds for files that are damaged or out of reach
        if machine.ran_out(error):
            raise console.Failed("OOM", f"memory does not hold {checkpoint.name} ({first_line(error)})") from None
        where = (
            "from the hub (in reach? gated models want `hf auth login`; folders and embedded models need no hub)"
            if checkpoint.source == "hub"
            else "from disk"
        )
        raise InputError(f"cannot load {checkpoint.name} {where}: {first_line(error)}") from None


def first_line(error):
    """What an exception says, in one line of at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


@contextlib.contextmanager
def plain_linear_layers(auto, checkpoint):
    """While loading, build an architecture's own subclasses of nn.Linear as plain nn.Linear.

    bitsandbytes replaces layers whose type is exactly nn.Linear; an architecture with its own subclass would
    load unquantised without a word. Only subclasses that compute the same are replaced.
    """
    import torch
    import transformers

    config = reading(transformers.AutoConfig, checkpoint)
    kind = auto._model_mapping.get(type(config), None)
    home = sys.modules[kind.__module__] if kind else None
    own = {
        name: value
        for name, value in (vars(home) if home else {}).items()
        if isinstance(value, type)
        and issubclass(value, torch.nn.Linear)
        and value is not torch.nn.Linear
        and computes_as_linear(value)
    }
    for name in own:
        setattr(home, name, torch.nn.Linear)
    try:
        yield
    finally:
        for name, value in own.items():
            setattr(home, name, value)


def computes_as_linear(kind):
    import torch

    with torch.random.fork_rng():
        layer, x = kind(5, 3), torch.randn(2, 5)
    return torch.allclose(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias), atol=1e-6)


def assert_quantised(model, heads):
    """Every linear layer but those in `heads` holds 4-bit NF4 weights, doubly quantised; else RuntimeError."""
    import bitsandbytes
    import torch

    left = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and not any(module is head for head in heads)
        and not isinstance(module, bitsandbytes.nn.Linear4bit)
    ]
    if left:
        raise RuntimeError(f"{len(left)} linear layers were not quantised, the first of them {left[0]}")
    states = [module.weight.quant_state for module in linear4bit(model)]
    if not states or any(state.quant_type != "nf4" or not state.nested for state in states):
        raise RuntimeError("the model is not in NF4 with double quantisation")


def linear4bit(model):
    import bitsandbytes

    return [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]


def unpacked(model):
    """`model` with the values of its 4-bit weights in plain layers, if they take no more than UNPACK_SHARE of the free
    memory; else as it is. `model.unpacked` says which, for the record.

    bitsandbytes computes from these very values, but dequantises them in every pass, forward and backward: most of the
    time of a generated token.
    """
    import bitsandbytes
    import torch

    packed = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, bitsandbytes.nn.Linear4bit)]
    bytes_of = torch.finfo(packed[0][1].compute_dtype).bits // 8
    size = bytes_of * sum(layer.in_features * layer.out_features for _, layer in packed)
    model.unpacked = size <= UNPACK_SHARE * machine.free()
    if not model.unpacked:
        return model
    for name, layer in packed:
        weight = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        plain.weight = torch.nn.Parameter(weight.to(layer.compute_dtype), requires_grad=False)
        plain.bias = layer.bias
        model.set_submodule(name, plain.train(layer.training))
    return model


def keep_gradients(model):
    """Stop bitsandbytes from repacking CPU weights when a layer first runs in eval mode: after that a backward pass
    gives no gradient through the layer. It also keeps one arithmetic for training and scoring."""
    for module in linear4bit(model):
        module.support_avx512bf16_for_cpu = False


@functools.cache
def dropout_class():
    """torch's Dropout with a quarter of the random draws, for CPUs.

    A CPU draws random numbers one after the other, and an adapter asks for one for every element of every layer's
    input. 16 random bits an element are enough: round(p * DROPOUT_LEVELS) of the levels drop it, and the other elements
    are scaled by what keeps the mean.
    """
    import torch

    class Dropout(torch.nn.Dropout):
        def forward(self, x):
            dropped = min(round(self.p * DROPOUT_LEVELS), DROPOUT_LEVELS - 1)
            if not self.training or not dropped:
                return x
            words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
            bits = words.view(torch.int16)[: x.numel()].view(x.shape)
            kept = bits >= dropped - DROPOUT_LEVELS // 2
            return torch.where(kept, x * (DROPOUT_LEVELS / (DROPOUT_LEVELS - dropped)), 0)

    return Dropout


def fast_dropout(model):
    """Put `dropout_class` in place of every Dropout of torch's own in `model`."""
    import torch

    for module in model.modules():
        if type(module) is torch.nn.Dropout and not module.inplace:
            module.__class__ = dropout_class()
    return model
