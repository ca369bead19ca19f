"""QLoRA loading and reloading: the same 4-bit weights for training, scoring and use. Where memory allows they are
dequantised once and kept, instead of in every pass: the same numbers, sooner.

NF4 with double quantisation (arXiv 2305.14314) through bitsandbytes, on GPU and CPU. Weights are read
from safetensors only and no code is ever taken from a checkpoint.
"""

import contextlib
import sys
from pathlib import Path

from common import checkpoints, machine, memory
from common.console import InputError

SHARE = 0.25  # of the free memory that dequantised weights may take; activations need the rest


def tokenizer(checkpoint):
    """The checkpoint's tokenizer, padding on the left, with a pad token (the end of sequence where it
    has none: masks are made by position, never by comparing with the pad id)."""
    import transformers

    found = reading(transformers.AutoTokenizer, checkpoint)
    if not found.is_fast:
        raise InputError(f"{checkpoint.name} has no fast tokenizer (tokenizer.json): documents cannot be cut by tokens")
    if found.pad_token is None:
        found.pad_token = found.eos_token
    found.padding_side = "left"
    return found


def base(checkpoint, dtype, flash_attention=False):
    """The base model in 4 bits, ready to score, every linear layer but the head quantised (asserted).

    dtype: what it computes in, as torch names it.
    """
    import transformers

    keywords = {"attn_implementation": "flash_attention_2"} if flash_attention else {}
    model = quantised(transformers.AutoModelForCausalLM, checkpoint, dtype, **keywords)
    assert_quantised(model, [model.get_output_embeddings()])
    return unpacked(model)


def quantised(auto, checkpoint, dtype, skip=None, **keywords):
    """`auto`'s model of the checkpoint in NF4. skip: names of modules to leave as they are (the output head of a
    model that writes is left in any case)."""
    import torch
    import transformers

    with plain_linear_layers(auto, checkpoint):
        model = reading(
            auto,
            checkpoint,
            dtype=getattr(torch, dtype),
            device_map=machine.device(),
            use_safetensors=True,
            quantization_config=transformers.BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",  # the library's default is fp4
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=getattr(torch, dtype),
                llm_int8_skip_modules=skip,
            ),
            **keywords,
        )
    keep_gradients(model)
    return model.eval()


def new_adapter(model, settings, **keywords):
    """Wrap `model` in a fresh LoRA adapter as `settings` say (lora_r, lora_alpha, dropout, targets); keywords:
    what else peft's LoraConfig is told."""
    import peft

    from common import dropout

    missing = missing_targets(model, settings["targets"])
    if missing:
        raise InputError(f"this checkpoint has no layers named {', '.join(missing)}: wrong model folder for it?")
    config = peft.LoraConfig(
        r=settings["lora_r"],
        lora_alpha=settings["lora_alpha"],
        lora_dropout=settings["dropout"],
        target_modules=settings["targets"],
        bias="none",
        **{"task_type": "CAUSAL_LM", **keywords},
    )
    adapted = peft.get_peft_model(model, config)
    return adapted if model.device.type == "cuda" else dropout.replace(adapted)


def with_adapter(model, folder):
    """Put the trained adapter saved in `folder` on the 4-bit `model`, for scoring."""
    import peft

    if not (Path(folder) / "adapter_model.safetensors").is_file():
        raise InputError(f"no trained adapter in {folder} (adapter_model.safetensors)")
    return peft.PeftModel.from_pretrained(model, folder).eval()


def reading(auto, checkpoint, **keywords):
    """`auto.from_pretrained` with what goes wrong put into one line."""
    source = checkpoints.prepare(checkpoint)
    try:
        return auto.from_pretrained(source, revision=checkpoint.pin, **keywords)
    except (OSError, ImportError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        where = (
            "from the hub (in reach? gated models want `hf auth login`; folders and embedded models need no hub)"
            if checkpoint.source == "hub"
            else "from disk"
        )
        raise InputError(f"cannot load {checkpoint.name} {where}: {reason}") from None


@contextlib.contextmanager
def plain_linear_layers(auto, checkpoint):
    """While loading, build an architecture's own subclasses of nn.Linear as plain nn.Linear.

    bitsandbytes' replacement takes layers whose type is exactly nn.Linear; an architecture with a
    subclass of its own would load unquantised without a word. Only subclasses that compute the same are
    replaced.
    """
    import torch
    import transformers

    config = reading(transformers.AutoConfig, checkpoint)
    kind = auto._model_mapping.get(type(config), None)
    home = sys.modules[kind.__module__] if kind else None
    own = (
        {
            name: value
            for name, value in vars(home).items()
            if isinstance(value, type)
            and issubclass(value, torch.nn.Linear)
            and value is not torch.nn.Linear
            and computes_as_linear(value)
        }
        if home
        else {}
    )
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
    """Every linear layer but those in `heads` holds 4-bit NF4 weights, doubly quantised."""
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
    """`model` with the values of its 4-bit weights in plain layers, if they take no more than SHARE of the free memory;
    else as it is. bitsandbytes computes from these very values, but finds them anew in every pass, forward and back:
    most of the time of a generated token."""
    import bitsandbytes
    import torch

    packed = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, bitsandbytes.nn.Linear4bit)]
    bytes_of = torch.finfo(packed[0][1].compute_dtype).bits // 8
    if bytes_of * sum(layer.in_features * layer.out_features for _, layer in packed) > SHARE * memory.free():
        return model
    for name, layer in packed:
        weight = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
        plain.weight = torch.nn.Parameter(weight.to(layer.compute_dtype), requires_grad=False)
        plain.bias = layer.bias
        model.set_submodule(name, plain.train(layer.training))
    return model


def keep_gradients(model):
    """Stop bitsandbytes from repacking CPU weights when a layer first runs in eval mode: after that a
    backward pass gives no gradient through the layer. One arithmetic for training and scoring, too."""
    for module in linear4bit(model):
        module.support_avx512bf16_for_cpu = False


def missing_targets(model, targets):
    if isinstance(targets, str):
        return []
    ends = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    return [target for target in targets if target not in ends]
