"""The layers of a model in training: adapters, norms, rotary positions, attention and dropout, each as one function
with its own backward pass."""

import contextlib

import torch

from common import architecture
from common.cpu import attention, blocks, dropout, lora


@contextlib.contextmanager
def fused(model):
    """Context of a training of `model` on a CPU: its adapters, norms, dropout, rotary positions and attention are
    computed by this package where they are of a kind that it knows; outside the context, and all others, by their own
    code."""
    with contextlib.ExitStack() as stack:
        for parent in model.modules():
            siblings = lora.Siblings()
            for module in parent.children():
                if "forward" in vars(module):  # replaced already, under another parent or by another library
                    continue
                if lora.is_known(module):
                    replace_forward(stack, module, siblings.forward_of(module))
                elif blocks.is_rms_norm(module):
                    replace_forward(stack, module, blocks.rms_norm_of(module))
                elif type(module) is torch.nn.Dropout and not module.inplace:
                    replace_forward(stack, module, dropout.forward_of(module))
        stack.enter_context(blocks.rotary_positions(model))
        stack.enter_context(attention.registered(model))
        find_siblings(model)
        yield


def find_siblings(model):
    """Read one token, so that layers that read the same tensor know of one another before the first step: a resumed
    training computes its first step like an uninterrupted one."""
    training, device = model.training, next(model.parameters()).device
    with torch.no_grad():
        architecture.unwrapped(model.eval()).base_model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=device))
    model.train(training)


def replace_forward(stack, module, function):
    """Let module.forward be `function` until `stack` ends."""
    module.forward = function
    stack.callback(delattr, module, "forward")
