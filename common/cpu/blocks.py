"""RMS norms and rotary positions, each as one function with its own backward pass."""

import contextlib
import functools
import sys

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from common import architecture


def is_rms_norm(module):
    """Whether `module` is a frozen norm that computes x / rms(x) * weight, or * (1 + weight)."""
    weight = getattr(module, "weight", None)
    named = type(module).__name__.endswith("RMSNorm") and weight is not None and not weight.requires_grad
    return named and offset_of(type(module)) is not None


@functools.cache
@unset_fake_temporarily()  # the budget counts with tensors that have no values
def offset_of(norm_class):
    """0.0 or 1.0, what norms of this class add to their weight; None if they compute something else."""
    try:
        norm, x = norm_class(4, eps=0.5), torch.tensor([[-1.0, 0.5, 2.0, 0.1]])
        norm.weight.data = torch.tensor([0.5, 1.0, -2.0, 3.0])
        for offset in (0.0, 1.0):
            expected = torch.nn.functional.rms_norm(x, (4,), norm.weight + offset, 0.5)
            if torch.allclose(norm(x), expected, atol=1e-6):
                return offset
    except (TypeError, AttributeError, RuntimeError):
        pass
    return None


def rms_norm_of(module):
    """The forward of such a norm."""
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    offset = offset_of(type(module))
    return lambda x: RMSNorm.apply(x, module.weight.float() + offset, eps)


class RMSNorm(torch.autograd.Function):
    """x / sqrt(mean(x²) + eps) * weight, over the last dimension. weight: float32, without a gradient."""

    @staticmethod
    def forward(context, x, weight, eps):
        norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = norms.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        context.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(context, gradient):
        """The gradient of a layer norm whose mean is 0, plus the mean that a layer norm takes from it."""
        x, weight, scale = context.saved_tensors
        shape, gradient = x.shape[-1:], gradient.contiguous()
        mean = torch.zeros_like(scale)
        of_x, _, _ = torch.ops.aten.native_layer_norm_backward(
            gradient, x, shape, mean, scale, weight, None, [True, False, False]
        )
        return of_x.add_((gradient @ weight.to(x.dtype))[..., None] / len(weight) * scale), None, None


@contextlib.contextmanager
def rotary_positions(model):
    """Context in which the model's code calls `rotate` for apply_rotary_pos_emb, if that computes the same."""
    module = sys.modules[type(architecture.unwrapped(model)).__module__]
    original = getattr(module, "apply_rotary_pos_emb", None)
    same = original is not None and rotates_halves(original)
    if same:
        module.apply_rotary_pos_emb = rotate
    try:
        yield
    finally:
        if same:
            module.apply_rotary_pos_emb = original


@unset_fake_temporarily()
def rotates_halves(function):
    """Whether `function` turns the first half of a head's dimensions against the second, as most models do."""
    query, key = torch.linspace(-1, 1, 24).view(1, 2, 3, 4), torch.linspace(1, 3, 12).view(1, 1, 3, 4)
    cos, sin = torch.linspace(0, 1, 12).view(1, 3, 4), torch.linspace(1, 2, 12).view(1, 3, 4)
    try:
        pairs = zip(function(query, key, cos, sin), rotate(query, key, cos, sin), strict=True)
        return all(torch.allclose(theirs, ours, atol=1e-6) for theirs, ours in pairs)
    except (TypeError, ValueError, RuntimeError):
        return False


def rotate(q, k, cos, sin, unsqueeze_dim=1):
    """(q, k) turned by their positions. q, k: (rows, heads, tokens, width); cos, sin: (rows, tokens, width)."""
    cos, sin = cos.unsqueeze(unsqueeze_dim).to(q.dtype), sin.unsqueeze(unsqueeze_dim).to(q.dtype)
    return Rotation.apply(q, cos, sin), Rotation.apply(k, cos, sin)


class Rotation(torch.autograd.Function):
    """x * cos + rotate_half(x) * sin, where rotate_half([a, b]) = [-b, a]."""

    @staticmethod
    def forward(context, x, cos, sin):
        context.save_for_backward(cos, sin)
        half, out = x.shape[-1] // 2, x * cos
        out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
        out[..., half:].addcmul_(x[..., :half], sin[..., half:])
        return out

    @staticmethod
    def backward(context, gradient):
        cos, sin = context.saved_tensors
        half, of_x = gradient.shape[-1] // 2, gradient * cos
        of_x[..., :half].addcmul_(gradient[..., half:], sin[..., half:])
        of_x[..., half:].addcmul_(gradient[..., :half], sin[..., :half], value=-1)
        return of_x, None, None
