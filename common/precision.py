"""The precision to compute in: as asked for, or what was measured to be faster on this machine."""

from common import machine
from common.cpu import products

MIXED = "float32, products in bfloat16"  # precision of full fine-tuning where bfloat16 is fast
MAX_TIME_SHARE = 0.9  # bfloat16 has to take less than this share of float32's time: a tie goes to the exact one


def chosen(asked, published, trains_all=False, shape=None, gpu=None):
    """(precision to compute in, why). asked: the flag's value; published: what the checkpoint was published in;
    trains_all: whether every weight is trained, which then stays float32 with products in bfloat16 where that is fast;
    shape: the fields of the model's config that set its sizes; gpu: whether it runs on a GPU; None: on this machine."""
    card, fast, why = machine.cuda(), MIXED if trains_all else "bfloat16", f"published in {published}"
    if asked != "auto":
        return asked, "asked for"
    if gpu not in (None, bool(card)):  # an estimate for another machine
        used = (MIXED if trains_all else published) if gpu else "float32"
    elif not trains_all and published != "bfloat16":
        used = "float32" if not card else published  # a CPU computes in float32 what was published in float16
    elif card:
        used, why = fast, "this GPU has bfloat16"
        if not card.is_bf16_supported():
            used, why = "float32" if trains_all else "float16", "this GPU has no bfloat16"
    else:
        share = products.bfloat16_share(sizes(shape or {}))
        used, why = fast if share < MAX_TIME_SHARE else "float32", f"bfloat16 takes {share:.2f} of float32's time here"
    return used, why


def sizes(shape):
    """(hidden, inner) of a layer, by the names that models' configs have for them."""
    hidden = next((shape[name] for name in ("hidden_size", "d_model", "dim") if name in shape), 1024)
    return hidden, next((shape[name] for name in ("intermediate_size", "hidden_dim") if name in shape), 4 * hidden)
