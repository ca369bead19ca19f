"""What an architecture's forward pass accepts. Common code asks this, never for a model's name."""

import inspect


def unwrapped(model):
    """The model itself, below an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def takes(model, argument):
    return argument in inspect.signature(unwrapped(model).forward).parameters


def keeps_logits(model):
    """Whether it can compute the logits of chosen positions only."""
    return takes(model, "logits_to_keep")


def position_keywords(model):
    """A function from position ids to keyword arguments of the forward pass; empty if the model takes none."""
    accepted = takes(model, "position_ids")
    return lambda positions: {"position_ids": positions} if accepted else {}


def takes_trees(model, longest):
    """Whether attention accepts any mask and any position for a token. It does not where attention counts distances in
    the row (ALiBi), in flash attention, and where a window is shorter than the `longest` prompt with its answer."""
    config = unwrapped(model).config
    return (
        takes(model, "position_ids")
        and keeps_logits(model)
        and not getattr(config, "alibi", False)
        and config._attn_implementation in ("sdpa", "eager")
        and (getattr(config, "sliding_window", None) or longest) >= longest
    )
