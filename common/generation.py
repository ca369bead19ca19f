"""Writing answers: batched, left-padded, cut by tokens, one budget a task, greedy unless the study is about decoding.

Rows are sorted by length into batches, the same ones in a resumed run if memory allows the same.
"""

from common import architecture, passes

# New tokens an answer may take, per task and nowhere else: the longest of the 20 class names and a wordy
# summary both fit.
MAX_NEW_TOKENS = {"classification": 20, "summarization": 100, "instructions": 200, "sentiment": 5}
GREEDY = {"temperature": None, "top_k": None, "num_beams": 1}


def generate(
    model,
    encoder,
    prompts,
    max_new_tokens,
    batch_size,
    on_batch=None,
    done=(),
    label="generating",
    decoding=None,
    seed=0,
):
    """Answers to `prompts` (lists of token ids).

    decoding: as GREEDY, which is the default. A temperature or a top_k samples, from seeds of `seed` and the
    batch, so that a resumed run draws what an uninterrupted one does; beams search, without sampling.
    on_batch(rows, answers, seconds) is called after every batch with the row numbers, one dictionary
    `{"text", "tokens", "stopped"}` each (text without special tokens, stripped; tokens written, the end of
    sequence included), and the time the batch took. Rows in `done` are left out.
    """
    decoding = decoding or GREEDY
    pad = encoder.tokenizer.pad_token_id
    config = configuration(decoding, max_new_tokens, encoder.stop, pad)
    lengths, beams = [len(prompt) for prompt in prompts], decoding["num_beams"]

    def work(rows):
        return batch(model, encoder, [prompts[row] for row in rows], config, seed * 1_000_003 + rows[0])

    longest = max(lengths, default=0) + max_new_tokens
    size = beams * passes.row_bytes(model, longest, 1)
    passes.run(lengths, max(1, batch_size // beams), work, on_batch, done, label, size)


def batch(model, encoder, prompts, config, seed, until=lambda: False):
    """Answers to `prompts` (lists of token ids) as one batch, as `generate` hands them on. config: `configuration`'s;
    seed: an int of 64 bits. until(): asked after every token; once it is True the answers break off there."""
    import torch

    ids, mask = passes.pad_left(prompts, config.pad_token_id, model.device)
    torch.manual_seed(seed)
    with torch.inference_mode():
        if not config.do_sample and config.num_beams == 1:
            return [cut(row, encoder) for row in greedy(model, ids, mask, config, until).tolist()]
        broken = [lambda rows, scores, **_: torch.full((len(rows),), until(), device=rows.device)]
        model.generation_config = config  # a checkpoint's own may sample; every row of a table decodes alike
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=config, stopping_criteria=broken)
    return [cut(row, encoder) for row in out[:, ids.shape[1] :].tolist()]


def greedy(model, ids, mask, config, until=lambda: False):
    """The likeliest token after the other: new ids (rows, max_new_tokens), the pad id behind each row's end. What
    transformers' generate writes, but that a row which has ended leaves the batch, keys and values included."""
    import torch

    told, budget = architecture.positions_of(model), config.max_new_tokens
    rows, lengths = torch.arange(len(ids), device=ids.device), mask.sum(1)
    out = torch.full((len(ids), budget), config.pad_token_id, device=ids.device)
    ends = torch.tensor(config.eos_token_id or [], device=ids.device)
    last = {"logits_to_keep": 1} if architecture.keeps_logits(model) else {}
    found = model(input_ids=ids, attention_mask=mask, use_cache=True, **told((mask.cumsum(1) - 1).clamp(min=0)), **last)
    for step in range(budget):
        token = found.logits[:, -1].float().argmax(-1)
        out[rows, step] = token
        going = ~torch.isin(token, ends)
        if step + 1 == budget or not going.any() or until():
            break
        cache = found.past_key_values
        if not going.all():
            cache.batch_select_indices(going.nonzero()[:, 0])
            rows, mask, lengths, token = (each[going] for each in (rows, mask, lengths, token))
        mask = torch.cat([mask, mask.new_ones((len(rows), 1))], 1)
        found = model(
            input_ids=token[:, None],
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **told(lengths[:, None]),
        )
        lengths = lengths + 1
    return out


def configuration(decoding, max_new_tokens, stop, pad):
    """transformers' GenerationConfig with nothing left to its defaults (top_k would be 50)."""
    import transformers

    keywords = {"do_sample": False}
    if decoding["temperature"] or decoding["top_k"]:
        keywords = {
            "do_sample": True,
            "temperature": decoding["temperature"] or 1.0,
            "top_k": decoding["top_k"] or 0,
            "top_p": 1.0,
        }
    return transformers.GenerationConfig(
        max_new_tokens=max_new_tokens,
        num_beams=decoding["num_beams"],
        eos_token_id=stop,
        pad_token_id=pad,
        use_cache=True,
        **keywords,
    )


def cut(ids, encoder):
    """One row's new ids up to the first end of sequence, as text."""
    end = next((i for i, token in enumerate(ids) if token in encoder.stop), None)
    written = ids if end is None else ids[:end]
    text = encoder.tokenizer.decode(written, skip_special_tokens=True).strip()
    return {"text": text, "tokens": len(written) + (end is not None), "stopped": end is not None}
