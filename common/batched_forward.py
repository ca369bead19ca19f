"""Inference in batches of rows of similar length. A batch that memory does not hold is halved."""

import time

from common import architecture, console, machine

MEMORY_SHARE = 0.8  # of the free memory that a batch may take: the bytes of a row are an estimate


def run(lengths, batch_size, forward, callback, done=(), label="reading", bytes_per_row=0):
    """Call forward(rows) with the row numbers of every batch, and callback(rows, result, seconds) after it.

    lengths: tokens of every row; batch_size: rows of a batch, at most; done: numbers of rows to leave out;
    bytes_per_row: memory that one more row takes, 0 if unknown. Where memory does not hold a batch, it and all later
    ones are halved; finished rows are not repeated. Raises console.Failed("OOM", …) if a single row does not fit.
    """
    if bytes_per_row:
        batch_size = max(1, min(batch_size, int(MEMORY_SHARE * machine.free() / bytes_per_row)))
    # An interrupted run may have used another batch size: then the unfinished rows of a batch are a smaller batch.
    pending = [[row for row in rows if row not in done] for rows in batches(lengths, batch_size)]
    pending = [rows for rows in pending if rows]
    bar = console.progress(len(lengths), label, done=len(done))
    while pending:
        rows, start = pending[0], time.monotonic()
        result = machine.attempt(forward, rows)
        if result is None:
            if len(rows) == 1:
                bar.close()
                tokens = lengths[rows[0]]
                raise console.Failed(
                    "OOM", f"out of memory with a single row of {tokens} tokens: lower --max_document_tokens"
                )
            batch_size = len(rows) // 2
            console.warn(f"out of memory with {len(rows)} rows at once: going on with {batch_size}")
            remaining = [row for rows in pending for row in rows]
            pending = [remaining[i : i + batch_size] for i in range(0, len(remaining), batch_size)]
            continue
        callback(rows, result, time.monotonic() - start)
        bar.update(len(rows))
        pending.pop(0)
    bar.close()


def batches(lengths, batch_size):
    """Lists of at most `batch_size` row numbers. The longest rows come first, so that out of memory shows early."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def pad_left(rows, pad_id, device):
    """(ids, mask), both of shape (rows, longest row), padded on the left so that all rows end at the same column."""
    import torch

    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    return ids.to(device), mask.to(device)


def row_bytes(model, tokens, predicted):
    """Estimated bytes that one more row takes in a forward pass of a causal model: keys and values of its `tokens` in
    every layer, the activations of one layer, and three copies of the float32 logits at `predicted` positions."""
    import torch

    with torch.inference_mode():
        out = model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=model.device), use_cache=True)
    keys_and_values = sum(layer.keys.nbytes + layer.values.nbytes for layer in out.past_key_values.layers)
    config = architecture.unwrapped(model).config
    widths = [module.out_features for module in model.modules() if isinstance(module, torch.nn.Linear)]
    widest = max(width for width in widths if width != config.vocab_size)
    activations = (3 * widest + 8 * config.hidden_size) * out.logits.element_size()
    return tokens * (keys_and_values + activations) + 3 * 4 * predicted * config.vocab_size


def check_numbers(logits):
    """Return `logits`. Raises Failed if some are NaN: the model is then broken and its scores mean nothing."""
    if logits.isnan().any():
        raise console.Failed("failed", "the model's logits are not numbers (NaN): the weights are damaged or diverged")
    return logits
