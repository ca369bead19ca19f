"""Dropout for CPUs: torch draws one random number after another for every element, and takes five passes over it.

Here an element takes 8 bits of a fast generator, and one bit of it is kept for the backward pass. Among 256 values few
probabilities are exact. So each block of BLOCK elements drops one value more or not, by a draw of its own, and an
element is dropped with probability p exactly.
"""

import numpy
import torch

BLOCK = 4096  # elements that share a threshold
CHUNK = 2**17  # elements drawn at once: what they take stays in the processor's cache
SAME_SIZE = {2: torch.int16, 4: torch.int32}  # bytes of an element -> the integers that mask it


@torch.library.custom_op("finetuning_hub::drop", mutates_args=())
def drop(x: torch.Tensor, p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(x with 0 where elements are dropped, not scaled; a packed bit for each element, 1 where it stays). The seed
    comes from torch's generator. x: contiguous, elements of 2 or 4 bytes."""
    out, kept = torch.empty_like(x), torch.empty(-(-x.numel() // 8), dtype=torch.uint8)
    source, target, packed = integers(x), integers(out), kept.numpy()
    generator = numpy.random.Generator(numpy.random.SFC64(torch.randint(2**62, ()).item()))
    values, remainder = divmod(256 * p, 1)  # of a byte's 256 values, those that drop it
    for start in range(0, len(source), CHUNK):
        part = source[start : start + CHUNK]
        blocks = -(-len(part) // BLOCK)
        more = generator.random(blocks) < remainder
        thresholds = numpy.minimum(values + more, 255).astype(numpy.uint8)  # above 255/256, p is that
        words = generator.integers(0, 2**64, blocks * BLOCK // 8, dtype=numpy.uint64)
        keep = (words.view(numpy.uint8).reshape(blocks, BLOCK) >= thresholds[:, None]).reshape(-1)[: len(part)]
        packed[start // 8 : -(-(start + len(part)) // 8)] = numpy.packbits(keep)
        mask_into(target[start : start + CHUNK], part, keep.view(numpy.int8))
    return out, kept


@drop.register_fake
def _(x, p):
    return torch.empty_like(x), x.new_empty(-(-x.numel() // 8), dtype=torch.uint8)


@torch.library.custom_op("finetuning_hub::drop_again", mutates_args=("x",))
def drop_again(x: torch.Tensor, kept: torch.Tensor) -> None:
    """Set x to 0 where `drop` dropped an element of another tensor of this shape. kept: its bits."""
    drop_into(x, x, kept)


@torch.library.custom_op("finetuning_hub::dropped", mutates_args=())
def dropped(x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """What `drop` made of x. kept: its bits."""
    out = torch.empty_like(x)
    drop_into(out, x, kept)
    return out


@dropped.register_fake
def _(x, kept):
    return torch.empty_like(x)


def drop_into(out, x, kept):
    """out = x with 0 where elements were dropped."""
    target, values, packed = integers(out), integers(x), kept.numpy()
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK]
        keep = numpy.unpackbits(packed[start // 8 : (start + CHUNK) // 8], count=len(part))
        mask_into(target[start : start + CHUNK], part, keep.view(numpy.int8))


@drop_again.register_fake
def _(x, kept):
    pass


def integers(tensor):
    """The elements of a contiguous tensor as a flat numpy array of integers of the same size."""
    return tensor.view(-1).view(SAME_SIZE[tensor.element_size()]).numpy()


def mask_into(out, values, keep):
    """out = values where keep is 1, else 0: -1 has all bits set."""
    mask = keep.astype(values.dtype)
    numpy.bitwise_and(values, numpy.negative(mask, out=mask), out=out)


class Dropout(torch.autograd.Function):
    """Dropout with probability p of a tensor on a CPU."""

    @staticmethod
    def forward(context, x, p):
        out, kept = drop(x.contiguous(), p)
        context.save_for_backward(kept)
        context.p = p
        return out.mul_(1 / (1 - p))

    @staticmethod
    def backward(context, gradient):
        of_x = (gradient * (1 / (1 - context.p))).contiguous()
        drop_again(of_x, *context.saved_tensors)
        return of_x, None


def dropout(x, p):
    """`x` with elements dropped at probability p and the others scaled, so that the mean stays. float64 and p = 1 are
    left to torch."""
    if not p:
        return x
    if x.element_size() not in SAME_SIZE or p == 1:
        return torch.nn.functional.dropout(x, p)
    return Dropout.apply(x, p)


def forward_of(module):
    """The forward of a torch.nn.Dropout."""
    return lambda x: dropout(x, module.p) if module.training else x
