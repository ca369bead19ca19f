"""Writing answers: batched, left-padded, cut by tokens, greedy unless the study is about decoding.

Rows are sorted by length into batches, the same ones in a resumed run if memory allows the same.
"""

from common import architecture, batched_forward

GREEDY = {"temperature": None, "top_k": None, "num_beams": 1}
COLDEST = 1e-6  # a lower temperature leaves the likeliest token only, and divides logits beyond what a float holds


def generate(
    model, encoder, prompts, max_new_tokens, batch_size, callback, done=(), label="generating", decoding=None, seed=0
):
    """Answers to `prompts` (lists of token ids).

    decoding: as GREEDY, which is the default. A temperature or a top_k samples, from seeds of `seed` and the batch, so
    that a resumed run draws what an uninterrupted one does; beams search, without sampling.
    callback(rows, answers, seconds) is called after every batch with the row numbers, one dictionary
    `{"text", "tokens", "stopped"}` each (text without special tokens, stripped; tokens written, the end of sequence
    included), and the time the batch took. Rows in `done` are left out.
    """
    decoding = decoding or GREEDY
    config = configuration(decoding, max_new_tokens, encoder.stop, encoder.tokenizer.pad_token_id)
    lengths, beams = [len(prompt) for prompt in prompts], decoding["num_beams"]

    def work(rows):
        return batch(model, encoder, [prompts[row] for row in rows], config, seed * 1_000_003 + rows[0])

    longest = max(lengths, default=0) + max_new_tokens
    bytes_per_row = beams * batched_forward.row_bytes(model, longest, 1)
    batched_forward.run(lengths, max(1, batch_size // beams), work, callback, done, label, bytes_per_row)


def batch(model, encoder, prompts, config, seed, until=lambda: False, on_token=None):
    """Answers to `prompts` (lists of token ids) as one batch, in the form that `generate` hands on.

    config: of `configuration`; seed: an int of 64 bits. until() is asked after every token: once it is True the answers
    end there. on_token(rows, ids) is called before that with the numbers of the prompts that still write and the token
    that each has written, and returns the numbers of those that are to end there (or None); not with beams, whose
    tokens may be taken back.
    """
    import torch

    ids, mask = batched_forward.pad_left(prompts, config.pad_token_id, model.device)
    torch.manual_seed(seed)
    with torch.inference_mode():
        if not config.do_sample and config.num_beams == 1:
            return [cut(row, encoder) for row in greedy(model, ids, mask, config, until, on_token).tolist()]
        writing = list(range(len(ids)))

        def stopped(rows, scores, **_):
            over = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
            if on_token and config.num_beams == 1:
                last = rows[:, -1].tolist()
                ended = on_token(list(writing), [last[i] for i in writing]) or []
                over[ended] = True
                writing[:] = [i for i in writing if last[i] not in encoder.stop and i not in ended]
            return over | until()

        def numbers(rows, scores):
            return batched_forward.check_numbers(scores)

        model.generation_config = config  # a checkpoint's own may sample; every row of a table decodes alike
        asked = {"input_ids": ids, "attention_mask": mask, "generation_config": config}
        out = model.generate(**asked, stopping_criteria=[stopped], logits_processor=[numbers])
    return [cut(row, encoder) for row in out[:, ids.shape[1] :].tolist()]


def greedy(model, ids, mask, config, until=lambda: False, on_token=None):
    """The likeliest token, one after the other: new ids (rows, max_new_tokens), the pad id after each row's end.

    It writes what transformers' generate writes, but a row that has ended leaves the batch with its keys and values.
    """
    import torch

    positions, budget = architecture.position_keywords(model), config.max_new_tokens
    rows, lengths = torch.arange(len(ids), device=ids.device), mask.sum(1)
    written = torch.full((len(ids), budget), config.pad_token_id, device=ids.device)
    ends = torch.tensor(config.eos_token_id or [], device=ids.device)
    last = {"logits_to_keep": 1} if architecture.keeps_logits(model) else {}
    counted = positions((mask.cumsum(1) - 1).clamp(min=0))
    out = model(input_ids=ids, attention_mask=mask, use_cache=True, **counted, **last)
    for step in range(budget):
        token = batched_forward.check_numbers(out.logits[:, -1].float()).argmax(-1)
        written[rows, step] = token
        going = ~torch.isin(token, ends)
        if on_token and (ended := on_token(rows.tolist(), token.tolist())):
            going &= ~torch.isin(rows, torch.tensor(ended, device=rows.device))
        if step + 1 == budget or not going.any() or until():
            break
        cache = out.past_key_values
        if not going.all():
            cache.batch_select_indices(going.nonzero()[:, 0])
            rows, mask, lengths, token = (each[going] for each in (rows, mask, lengths, token))
        mask = torch.cat([mask, mask.new_ones((len(rows), 1))], 1)
        known = {"attention_mask": mask, "past_key_values": cache, "use_cache": True}
        out = model(input_ids=token[:, None], **known, **positions(lengths[:, None]))
        lengths = lengths + 1
    return written


def configuration(decoding, max_new_tokens, stop, pad):
    """transformers' GenerationConfig with nothing left to its defaults (top_k would be 50)."""
    import transformers

    temperature = decoding["temperature"] or 1.0
    sampling = {"do_sample": False}
    if (decoding["temperature"] or decoding["top_k"]) and temperature >= COLDEST:
        sampling = {"do_sample": True, "temperature": temperature, "top_k": decoding["top_k"] or 0, "top_p": 1.0}
    return transformers.GenerationConfig(
        max_new_tokens=max_new_tokens,
        num_beams=decoding["num_beams"],
        eos_token_id=stop,
        pad_token_id=pad,
        use_cache=True,
        **sampling,
    )


def cut(ids, encoder):
    """One row's new ids up to the first end of sequence, as text."""
    end = next((i for i, token in enumerate(ids) if token in encoder.stop), None)
    written = ids if end is None else ids[:end]
    text = encoder.tokenizer.decode(written, skip_special_tokens=True).strip()
    return {"text": text, "tokens": len(written) + (end is not None), "stopped": end is not None}
