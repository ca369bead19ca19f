"""What an architecture's forward pass can be told. Common code asks this, never for a model's name."""

import inspect


def unwrapped(model):
    """The model itself, below an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def takes(model, argument):
    return argument in inspect.signature(unwrapped(model).forward).parameters


def keeps_logits(model):
    """Whether it can leave out the logits of all positions but some."""
    return takes(model, "logits_to_keep")


def positions_of(model):
    """A function from position ids to what the model is told of them: nothing, where it takes none."""
    told = takes(model, "position_ids")
    return lambda positions: {"position_ids": positions} if told else {}


def takes_trees(model, longest):
    """Whether a token may be told its position and what it sees: not where attention counts distances in the row
    (ALiBi), nor in flash attention, nor where a window is shorter than the `longest` prompt and answer."""
    config = unwrapped(model).config
    return (
        takes(model, "position_ids")
        and keeps_logits(model)
        and not getattr(config, "alibi", False)
        and config._attn_implementation in ("sdpa", "eager")
        and (getattr(config, "sliding_window", None) or longest) >= longest
    )
