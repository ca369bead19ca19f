"""Dropout with a quarter of the draws: on a CPU random numbers come one after the other, and an adapter draws one for
every element of every layer's input."""

import torch

LEVELS = 2**16  # that a probability is rounded to: 0.1 becomes 0.100006


class Dropout(torch.nn.Dropout):
    """torch's Dropout, 16 random bits an element instead of a draw. Elements are zeroed with round(p * LEVELS) / LEVELS
    and the others scaled by what keeps the mean."""

    def forward(self, x):
        dropped = min(round(self.p * LEVELS), LEVELS - 1)
        if not self.training or not dropped:
            return x
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        return torch.where(bits >= dropped - LEVELS // 2, x * (LEVELS / (LEVELS - dropped)), 0)


def replace(model):
    """Put this Dropout in place of every one of torch's in `model`."""
    for module in model.modules():
        if type(module) is torch.nn.Dropout and not module.inplace:
            module.__class__ = Dropout
    return model
