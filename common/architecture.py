"""What a model's forward pass accepts. Common code asks these functions, never for a model's name."""

import inspect


def unwrapped(model):
    """The base model below an adapter; a model without an adapter is returned as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def takes(model, argument):
    """Whether the forward pass has a parameter of this name."""
    return argument in inspect.signature(unwrapped(model).forward).parameters


def keeps_logits(model):
    """Whether the forward pass can compute the logits at chosen positions only."""
    return takes(model, "logits_to_keep")


def position_keywords(model):
    """A function from position ids to keyword arguments of the forward pass: {} if the model takes no position ids."""
    accepted = takes(model, "position_ids")
    return lambda positions: {"position_ids": positions} if accepted else {}


def takes_trees(model, longest):
    """Whether attention accepts any mask and any position ids. It does not with ALiBi, which counts distances in the
    row, with flash attention, and with a sliding window shorter than `longest`, the tokens of a prompt and answer."""
    config = unwrapped(model).config
    return (
        takes(model, "position_ids")
        and keeps_logits(model)
        and not getattr(config, "alibi", False)
        and config._attn_implementation in ("sdpa", "eager")
        and (getattr(config, "sliding_window", None) or longest) >= longest
    )
