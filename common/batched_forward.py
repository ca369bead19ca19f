"""Forward passes without training: rows in batches of like length, as many rows at once as memory holds."""

import time

from common import architecture, console, machine

MEMORY_SHARE = 0.8  # of the free memory that a batch may be planned to take: what a row takes is an estimate


def run(lengths, size, work, callback, done=(), label="reading", bytes_per_row=0):
    """Call work(rows) for batches of row numbers, and callback(rows, its result, seconds) after each.

    lengths: tokens of every row; size: rows at once, at most; done: rows to leave out; bytes_per_row: memory that one
    more row takes, 0 if unknown. A batch that memory does not hold is halved, and so are all that follow; finished
    rows stay finished. Raises console.Failed("OOM", …) where not even one row fits.
    """
    if bytes_per_row:
        size = max(1, min(size, int(MEMORY_SHARE * machine.free() / bytes_per_row)))
    # A batch of which only some rows are done was made with another size; its other rows are a new batch.
    waiting = [[row for row in rows if row not in done] for rows in batches(lengths, size)]
    waiting = [rows for rows in waiting if rows]
    bar = console.progress(len(lengths), label, done=len(done))
    while waiting:
        rows, began = waiting[0], time.monotonic()
        result = machine.attempt(work, rows)
        if result is None:
            if len(rows) == 1:
                bar.close()
                tokens = lengths[rows[0]]
                raise console.Failed(
                    "OOM", f"out of memory with a single row of {tokens} tokens: lower --max_document_tokens"
                )
            size = len(rows) // 2
            console.warn(f"out of memory with {len(rows)} rows at once: going on with {size}")
            left = [row for rows in waiting for row in rows]
            waiting = [left[i : i + size] for i in range(0, len(left), size)]
            continue
        callback(rows, result, time.monotonic() - began)
        bar.update(len(rows))
        waiting.pop(0)
    bar.close()


def batches(lengths, size):
    """Lists of row numbers, at most `size` each, longest rows first: out of memory shows at once."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[i : i + size] for i in range(0, len(order), size)]


def pad_left(rows, pad_id, device):
    """(ids, mask), both of shape (rows, longest), padded on the left so that all rows end together."""
    import torch

    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


def row_bytes(model, tokens, predicted):
    """Estimated bytes that one more row takes in a pass of a model that writes: keys and values of its `tokens` in
    every layer, what one layer computes from them, and three copies of the float32 logits at `predicted` positions."""
    import torch

    with torch.inference_mode():
        out = model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=model.device), use_cache=True)
    cache = sum(part.nbytes for layer in out.past_key_values.layers for part in (layer.keys, layer.values))
    config = architecture.unwrapped(model).config
    widths = [module.out_features for module in model.modules() if isinstance(module, torch.nn.Linear)]
    widest = max(width for width in widths if width != config.vocab_size)
    layer = (3 * widest + 8 * config.hidden_size) * out.logits.element_size()
    return tokens * (cache + layer) + 3 * 4 * predicted * config.vocab_size


def check_numbers(logits):
    """`logits`, unless some are NaN: then the model is broken, and whatever it scored would mean nothing."""
    if logits.isnan().any():
        raise console.Failed("failed", "the model's logits are not numbers (NaN): the weights are damaged or diverged")
    return logits
