"""Frozen linear layers with LoRA adapters that read the same input, as one function: for each layer
y = x W' + bias + s * drop(x) A' B'.

peft computes an adapter by itself, adds the two, and autograd adds their gradients: five further passes over tensors of
the layer's size, and twice as many saved. Here products add into the result, x is saved once, and layers that read the
same x (queries, keys and values; gate and up) share one dropout and one product with all their A, as in the original
implementation of LoRA (microsoft/LoRA, MergedLinear).
"""

import weakref

import peft
import torch

from common.cpu import dropout

FROZEN = "frozen product"  # its name in a profile: `python -m common bench step` counts these products


def is_known(module):
    """Whether `module` is a plain LoRA layer with one adapter on a frozen linear layer."""
    if not isinstance(module, peft.tuners.lora.LoraLayer) or len(module.lora_A) != 1 or module.lora_variant:
        return False
    (name,) = module.lora_A
    base, down, up = module.base_layer, module.lora_A[name], module.lora_B[name]
    plain = isinstance(base, torch.nn.Linear) and not base.weight.requires_grad
    plain &= not getattr(module, "fan_in_fan_out", False) and (base.bias is None or not base.bias.requires_grad)
    known_dropout = isinstance(module.lora_dropout[name], torch.nn.Dropout | torch.nn.Identity)
    return plain and known_dropout and down.bias is None and up.bias is None


class Siblings:
    """The adapted layers of one module. Layers that were called with the same tensor before are computed together."""

    def __init__(self):
        self.groups, self.first, self.outputs, self.input = {}, None, {}, lambda: None

    def forward_of(self, layer):
        """The forward of one of the layers."""

        def forward(x, *args, **keywords):
            if layer.disable_adapters or layer.merged or args or keywords:
                return type(layer).forward(layer, x, *args, **keywords)
            if x is not self.input():
                self.input, self.first = weakref.ref(x), layer
                group = self.groups.setdefault(layer, [layer])
                self.outputs = dict(zip(group, together(group, x), strict=True))
            elif layer not in self.outputs:
                self.groups[self.first].append(layer)
                return together([layer], x)[0]
            return self.outputs.pop(layer)

        return forward


def together(layers, x):
    """The outputs of adapted layers for one input."""
    (name,) = layers[0].lora_A
    p = getattr(layers[0].lora_dropout[name], "p", 0.0) if layers[0].training else 0.0
    if torch.is_autocast_enabled("cpu"):
        x = x.to(torch.get_autocast_dtype("cpu"))
    downs, ups = ([getattr(layer, kind)[name].weight for layer in layers] for kind in ("lora_A", "lora_B"))
    scales = [layer.scaling[name] for layer in layers]
    return LoraLinear.apply(x, [layer.base_layer for layer in layers], scales, p, *downs, *ups)


class LoraLinear(torch.autograd.Function):
    """x: (…, inputs); bases: the frozen layers; scales: of their adapters; p: of dropout on the adapters' input;
    weights: all A (rank, inputs), then all B (outputs, rank). Products are computed in the dtype of x."""

    @staticmethod
    def forward(context, x, bases, scales, p, *weights):
        downs, ups = weights[: len(bases)], [up.to(x.dtype) for up in weights[len(bases) :]]
        ranks, down = [len(down) for down in downs], torch.cat(downs).to(x.dtype)
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        inputs, kept = dropout.drop(rows, p) if p else (rows, None)
        hidden, outputs = inputs @ down.t(), []
        context.scales = [scale / (1 - p) for scale in scales]
        for base, up, scale, part in zip(bases, ups, context.scales, hidden.split(ranks, 1), strict=True):
            out = x.new_empty(*x.shape[:-1], base.out_features)  # not a view: callers may add to it in place
            flat, weight = out.view(len(rows), -1), dense(base, x.dtype).t()
            with torch.profiler.record_function(FROZEN):
                if base.bias is None:
                    torch.mm(rows, weight, out=flat)
                else:
                    torch.addmm(base.bias.to(x.dtype), rows, weight, out=flat)
            torch.addmm(flat, part, up.t(), alpha=scale, out=flat)
            outputs.append(out)
        context.save_for_backward(rows, kept, hidden, down, *ups)
        context.bases, context.ranks, context.dtype = bases, ranks, weights[0].dtype
        return tuple(outputs)

    @staticmethod
    def backward(context, *gradients):
        rows, kept, hidden, down, *ups = context.saved_tensors
        shape, dtype = gradients[0].shape[:-1], context.dtype
        gradients = [gradient.reshape(-1, gradient.shape[-1]) for gradient in gradients]
        backs, of_ups = [], []
        for gradient, up, scale, part in zip(
            gradients, ups, context.scales, hidden.split(context.ranks, 1), strict=True
        ):
            backs.append((gradient @ up).mul_(scale))
            of_ups.append((gradient.t() @ part).to(dtype).mul_(scale))
        back = torch.cat(backs, 1) if len(backs) > 1 else backs[0]
        inputs = rows
        if kept is not None:
            inputs = rows.clone()
            dropout.drop_again(inputs, kept)
        of_downs = (back.t() @ inputs).to(dtype).split(context.ranks)
        of_x = None
        if context.needs_input_grad[0]:
            of_x = back @ down
            if kept is not None:
                dropout.drop_again(of_x, kept)
            for base, gradient in zip(context.bases, gradients, strict=True):
                with torch.profiler.record_function(FROZEN):
                    torch.addmm(of_x, gradient, dense(base, rows.dtype), out=of_x)
            of_x = of_x.view(*shape, -1)
        return of_x, None, None, None, *of_downs, *of_ups


def dense(layer, dtype):
    """The frozen weight in `dtype`: (outputs, inputs). A 4-bit one is dequantised for this product alone."""
    if state := getattr(layer.weight, "quant_state", None):
        import bitsandbytes

        return bitsandbytes.functional.dequantize_4bit(layer.weight.data, state).to(dtype)
    return layer.weight.to(dtype)
