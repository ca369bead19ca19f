"""Attention in training on a CPU, with a backward pass of plain matrix products over whole heads.

torch's fused kernel computes in small blocks: in bfloat16 its backward pass took two to four times as long. With
dropout torch has no fused kernel for CPUs, and draws dropout slowly. In float32 without dropout torch's kernel is the
faster one and stays. Probabilities are saved with dropout (encoders are small), else computed again.
"""

import contextlib
import math

import torch
import transformers
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from common import architecture
from common.cpu import dropout as drops

NAME = "finetuning_hub"  # of this attention in a model's config


@contextlib.contextmanager
def registered(model):
    """Context in which `model` computes its attention by `attend`, if its code lets one choose."""
    config = architecture.unwrapped(model).config
    chosen = config._attn_implementation
    if chosen == "sdpa" and type(architecture.unwrapped(model))._supports_attention_backend:
        transformers.AttentionInterface.register(NAME, attend)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = chosen


def attend(module, query, key, value, attention_mask, dropout=0.0, scaling=None, **keywords):
    """transformers' attention function: query (rows, heads, tokens, width) -> ((rows, tokens, heads, width), None)."""
    causal = keywords.get("is_causal")  # None: as the module says
    causal = attention_mask is None and (getattr(module, "is_causal", True) if causal is None else causal)
    square = query.shape[2] == key.shape[2] > 1 and query.shape[3] == value.shape[3]
    faster = dropout or query.dtype == torch.bfloat16
    if square and faster and query.requires_grad and query.dtype in (torch.float32, torch.bfloat16):
        scaling = scaling or query.shape[-1] ** -0.5
        return Attention.apply(query, key, value, attention_mask, causal, scaling, dropout).transpose(1, 2), None
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **keywords
    )


class Attention(torch.autograd.Function):
    """drop(softmax(query key' * scaling + mask)) value. With fewer heads of keys and values, query heads share them
    (grouped queries). mask: (rows, 1, tokens, tokens), boolean or to be added; None with causal, where a token attends
    to itself and to earlier ones; p: of dropout."""

    @staticmethod
    def forward(context, query, key, value, mask, causal, scaling, p):
        context.causal, context.scaling, context.p, probabilities, kept = causal, scaling, p, None, None
        if p:
            probabilities = attended(query, key, mask, causal, scaling)
            used, kept = drops.drop(probabilities, p)
            out = (used @ grouped(value, 1)).mul_(1 / (1 - p)).view(query.shape)
        else:
            out = torch.nn.functional.scaled_dot_product_attention(
                query,
                key,
                value,
                mask,
                is_causal=causal,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        context.save_for_backward(query, key, value, mask, probabilities, kept)
        return out

    @staticmethod
    def backward(context, gradient):
        query, key, value, mask, probabilities, kept = context.saved_tensors
        shared, scaling, p = query.shape[1] // key.shape[1], context.scaling, context.p
        q, g, k, v = grouped(query, shared), grouped(gradient, shared), grouped(key, 1), grouped(value, 1)
        if probabilities is None:
            probabilities = attended(query, key, mask, context.causal, scaling)
        of_probabilities, used = g @ v.mT, probabilities
        if p:
            used = drops.dropped(probabilities, kept)
            drops.drop_again(of_probabilities, kept)
            scaling /= 1 - p  # of_probabilities is smaller by this factor, and so is all that follows from it
        of_v = used.mT @ g
        of_scores = torch._softmax_backward_data(of_probabilities, probabilities, -1, q.dtype)
        of_q, of_k = of_scores @ k, of_scores.mT @ q
        return (
            of_q.mul_(scaling).view(query.shape),
            of_k.mul_(scaling).view(key.shape),
            of_v.mul_(1 / (1 - p)).view(value.shape),
            *[None] * 4,
        )


def grouped(tensor, shared):
    """(rows, heads, tokens, width) -> (rows * heads / shared, shared * tokens, width), a copy in that order."""
    rows, heads, tokens, width = tensor.shape
    return tensor.reshape(rows * heads // shared, shared * tokens, width)


def attended(query, key, mask, causal, scaling):
    """The probabilities, of shape (rows * heads of keys, shared * tokens, tokens)."""
    (rows, heads, tokens, _), shared = query.shape, query.shape[1] // key.shape[1]
    q, k = grouped(query, shared), grouped(key, 1).mT
    if causal:
        later = torch.full((tokens, tokens), -math.inf, dtype=q.dtype).triu(1).repeat(shared, 1)
        return torch.baddbmm(later[None], q, k, alpha=scaling).softmax(-1)
    scores = torch.baddbmm(q.new_zeros((1, 1, 1)), q, k, beta=0, alpha=scaling)
    if mask is not None:
        hide(scores.view(rows, heads, tokens, tokens), mask)
    return scores.softmax(-1)


@torch.library.custom_op("finetuning_hub::hide", mutates_args=("scores",))
def hide(scores: torch.Tensor, mask: torch.Tensor) -> None:
    """Apply a mask to scores of shape (rows, heads, tokens, tokens). Where it hides the end of a row alone (padding),
    only those columns are written."""
    if mask.dtype != torch.bool:
        scores.add_(mask)
        return
    lengths, lowest = mask[:, 0, 0].sum(-1).tolist(), torch.finfo(scores.dtype).min
    padding = torch.arange(mask.shape[-1]) < torch.tensor(lengths)[:, None, None, None]
    if torch.equal(padding.expand(mask.shape), mask):
        for row, length in zip(scores, lengths, strict=True):
            row[:, :, length:] = lowest
    else:
        scores.masked_fill_(~mask, lowest)


@hide.register_fake
def _(scores, mask):
    pass
