"""QLoRA: a base model in 4 bits with an adapter; training, scoring and use share the weights.

The base is in NF4 with double quantisation (arXiv 2305.14314) by bitsandbytes, on GPU and CPU. Weights are read from
safetensors files only, and no code in a checkpoint is run. Where memory allows, the 4-bit weights are dequantised once
instead of in every forward pass: the same numbers, sooner.
"""

import contextlib
import sys
from pathlib import Path

from common import checkpoints, console, machine, processes
from common.console import InputError

UNPACK_SHARE = 0.25  # of the free memory may go to dequantised weights; activations need the rest
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"  # of an adapter's folder, as peft names them


def tokenizer(checkpoint):
    """The checkpoint's tokenizer, padding on the left. Without a pad token it pads with the end of sequence: masks
    never depend on the pad id. Raises InputError if it is not a fast one, fails, or has more tokens than the model."""
    import transformers

    loaded = reading(transformers.AutoTokenizer, checkpoint)
    if not loaded.is_fast:
        raise InputError(f"{checkpoint.name} has no fast tokenizer (tokenizer.json): documents cannot be cut by tokens")
    try:
        loaded("a")
    except Exception as error:  # its settings are a file of the checkpoint's
        raise InputError(f"cannot use the tokenizer of {checkpoint.name}: {first_line(error)}") from None
    size = getattr(reading(transformers.AutoConfig, checkpoint), "vocab_size", None)
    if size and len(loaded) > size:
        raise InputError(
            f"{checkpoint.name}: the tokenizer has {len(loaded)} tokens, the model {size}: "
            "they are not of one checkpoint"
        )
    if loaded.pad_token is None:
        loaded.pad_token = loaded.eos_token
    loaded.padding_side = "left"
    return loaded


def base(checkpoint, execution):
    """The base model in eval mode, every linear layer but the head in 4 bits (else RuntimeError).

    execution: settings.Execution (precision, use_flash_attention). `model.unpacked` says whether the 4-bit weights were
    dequantised into plain layers.
    """
    import transformers

    keywords = {"attn_implementation": "flash_attention_2"} if execution.use_flash_attention else {}
    model = quantised(transformers.AutoModelForCausalLM, checkpoint, execution.precision, **keywords)
    assert_quantised(model, [model.get_output_embeddings()])
    return unpacked(model)


def trained(checkpoint, execution, folder):
    """`base` with the trained adapter in folder/adapter."""
    return with_adapter(base(checkpoint, execution), Path(folder) / "adapter")


def quantised(auto, checkpoint, precision, skip=None, **keywords):
    """The checkpoint's model of the transformers class `auto`, in NF4 and in eval mode.

    precision: the dtype to compute in, as torch names it; skip: names of modules that are not quantised and may be new
    (the output head of a causal model is never quantised). Raises InputError if any other weight is missing.
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
                # Sharding takes weights of one dtype.
                bnb_4bit_quant_storage=getattr(torch, precision) if processes.sharded() else torch.uint8,
                llm_int8_skip_modules=skip,
            ),
            **keywords,
        )
    # transformers draws missing weights at random, which is right for a new head only.
    missing = [name for name in sorted(info["missing_keys"]) if name.split(".")[0] not in (skip or []) + ["pooler"]]
    if missing:
        raise InputError(
            f"cannot load {checkpoint.name}: its files lack {len(missing)} weights, the first is {missing[0]}"
        )
    for name, layer in model.named_modules():  # transformers does not compare the shapes of 4-bit weights
        if (state := getattr(getattr(layer, "weight", None), "quant_state", None)) is not None:
            shape = (layer.out_features, layer.in_features)
            if tuple(state.shape) != shape:
                raise InputError(f"cannot load {checkpoint.name}: {name} is {list(state.shape)}, not {list(shape)}")
    keep_gradients(model)
    return model.eval()


def new_adapter(model, settings, **keywords):
    """Wrap `model` in a new LoRA adapter with the settings lora_r, lora_alpha, dropout and targets.

    keywords: further ones of peft.LoraConfig. Raises InputError for a target that the model does not have.
    """
    import peft

    targets = [settings.targets] if isinstance(settings.targets, str) else list(settings.targets)
    all_linear = targets == ["all-linear"]  # peft's word for all linear layers but the head
    layer_names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    missing = [target for target in targets if target not in layer_names and not all_linear]
    if missing:
        raise InputError(f"this checkpoint has no layers named {', '.join(missing)}: wrong model folder for it?")
    config = peft.LoraConfig(
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.dropout,
        target_modules=targets[0] if all_linear else targets,
        bias="none",
        **{"task_type": "CAUSAL_LM", **keywords},
    )
    adapted = machine.attempt(peft.get_peft_model, model, config)
    if adapted is None:
        raise console.Failed("OOM", f"memory does not hold an adapter of rank {settings.lora_r}: lower --lora_r")
    return adapted


def with_adapter(model, folder):
    """Put the trained adapter in `folder` on the 4-bit `model`, for scoring.

    Raises InputError unless the file has exactly the tensors of the adapter's config, in their shapes: peft itself
    would leave a missing tensor at its random initial value.
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
    except Exception as error:  # torch, peft, safetensors and json each raise their own types
        raise InputError(f"cannot use the adapter in {folder}: {first_line(error)}") from None
    return adapted.eval()


def compare(tensors, shapes):
    """Raises ValueError for the first tensor that is missing, unexpected, or of another shape than in `shapes`."""
    for name, shape in shapes.items():
        if name not in tensors:
            raise ValueError(f"the tensor {name} is missing")
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"the tensor {name} has the shape {list(tensors[name].shape)}, not {list(shape)}")
    unexpected = sorted(tensors.keys() - shapes.keys())
    if unexpected:
        raise ValueError(f"the tensor {unexpected[0]} has no place in this model and adapter_config.json")


def reading(auto, checkpoint, **keywords):
    """auto.from_pretrained(checkpoint). Raises InputError for files that cannot be used, Failed if memory runs out."""
    source = checkpoints.prepare(checkpoint)
    try:
        return auto.from_pretrained(source, revision=checkpoint.pin, **keywords)
    except Exception as error:  # a dozen types for files that are damaged or out of reach
        if machine.ran_out(error):
            raise console.Failed("OOM", f"memory does not hold {checkpoint.name} ({first_line(error)})") from None
        where = (
            "from the hub (in reach? gated models want `hf auth login`; folders and embedded models need no hub)"
            if checkpoint.source == "hub"
            else "from disk"
        )
        raise InputError(f"cannot load {checkpoint.name} {where}: {first_line(error)}") from None


def first_line(error):
    """The first line of an exception's message, at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


@contextlib.contextmanager
def plain_linear_layers(auto, checkpoint):
    """Context of loading a model: it builds an architecture's own subclasses of nn.Linear as plain nn.Linear.

    bitsandbytes quantises layers whose type is exactly nn.Linear and silently leaves subclasses as they are. Only
    subclasses that compute the same are replaced.
    """
    import torch
    import transformers

    config = reading(transformers.AutoConfig, checkpoint)
    model_class = auto._model_mapping.get(type(config), None)
    module = sys.modules[model_class.__module__] if model_class else None
    subclasses = {
        name: value
        for name, value in (vars(module) if module else {}).items()
        if isinstance(value, type)
        and issubclass(value, torch.nn.Linear)
        and value is not torch.nn.Linear
        and computes_as_linear(value)
    }
    for name in subclasses:
        setattr(module, name, torch.nn.Linear)
    try:
        yield
    finally:
        for name, value in subclasses.items():
            setattr(module, name, value)


def computes_as_linear(layer_class):
    """Whether layers of this class compute what nn.Linear does."""
    import torch

    with torch.random.fork_rng():
        layer, x = layer_class(5, 3), torch.randn(2, 5)
    return torch.allclose(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias), atol=1e-6)


def assert_quantised(model, heads):
    """Raises RuntimeError unless every linear layer but `heads` has NF4 weights with double quantisation."""
    import bitsandbytes
    import torch

    unquantised = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and not any(module is head for head in heads)
        and not isinstance(module, bitsandbytes.nn.Linear4bit)
    ]
    if unquantised:
        raise RuntimeError(f"{len(unquantised)} linear layers were not quantised, the first of them {unquantised[0]}")
    states = [module.weight.quant_state for module in linear4bit(model)]
    if not states or any(state.quant_type != "nf4" or not state.nested for state in states):
        raise RuntimeError("the model is not in NF4 with double quantisation")


def linear4bit(model):
    import bitsandbytes

    return [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]


def unpacked(model):
    """`model` with its 4-bit weights dequantised into plain layers, if these take at most UNPACK_SHARE of the free
    memory; else unchanged. `model.unpacked` says which, for the record.

    bitsandbytes computes with the same values, but dequantises them in every forward and backward pass, which is most
    of the time of a generated token.
    """
    import bitsandbytes
    import torch

    packed = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, bitsandbytes.nn.Linear4bit)]
    value_bytes = torch.finfo(packed[0][1].compute_dtype).bits // 8
    plain_bytes = value_bytes * sum(layer.in_features * layer.out_features for _, layer in packed)
    model.unpacked = plain_bytes <= UNPACK_SHARE * machine.free() and not processes.sharded()
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
    """Stop bitsandbytes from repacking CPU weights when a layer first runs in eval mode: a backward pass gives no
    gradient through repacked weights, and scoring would compute otherwise than training."""
    for module in linear4bit(model):
        module.support_avx512bf16_for_cpu = False
