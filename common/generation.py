"""Generates answers in left-padded batches, greedily unless the settings say otherwise.

Rows are sorted by length into batches. A resumed run makes the same batches, if as much memory is free.
"""

from common import architecture, batched_forward

GREEDY = {"temperature": None, "top_k": None, "num_beams": 1}
MIN_TEMPERATURE = 1e-6  # decoding is greedy below it: logits divided by less overflow a float


def generate(
    model, encoder, prompts, max_new_tokens, batch_size, callback, done=(), label="generating", decoding=None, seed=0
):
    """Generate an answer to each of `prompts` (lists of token ids).

    decoding: {"temperature", "top_k", "num_beams"}, GREEDY by default. A temperature or top_k samples, with a seed made
    of `seed` and the batch, so that a resumed run draws what an uninterrupted one does. num_beams > 1: beam search.
    callback(rows, answers, seconds): called after every batch with the row numbers, an answer for each, and the time
    that the batch took. An answer is {"text": without special tokens, stripped, "tokens": number of new tokens, end of
    sequence included, "stopped": whether it ended by itself}. done: numbers of rows to leave out.
    """
    decoding = decoding or GREEDY
    config = configuration(decoding, max_new_tokens, encoder.stop, encoder.tokenizer.pad_token_id)
    lengths, beams = [len(prompt) for prompt in prompts], decoding["num_beams"]

    def answer_batch(rows):
        return batch(model, encoder, [prompts[row] for row in rows], config, seed * 1_000_003 + rows[0])

    longest = max(lengths, default=0) + max_new_tokens
    bytes_per_row = beams * batched_forward.row_bytes(model, longest, 1)
    batched_forward.run(lengths, max(1, batch_size // beams), answer_batch, callback, done, label, bytes_per_row)


def batch(model, encoder, prompts, config, seed, until=lambda: False, on_token=None):
    """Answers to `prompts` (lists of token ids) as one batch, in the form that `generate` gives to its callback.

    config: from `configuration`; seed: a 64-bit int. on_token(rows, ids): called after every token with the numbers of
    the unfinished prompts and the new token id of each; returns the numbers of prompts to stop, or None. Beam search
    does not call it, because a beam's tokens may be discarded. until(): called after that; True stops all answers.
    """
    import torch

    ids, mask = batched_forward.pad_left(prompts, config.pad_token_id, model.device)
    torch.manual_seed(seed)
    with torch.inference_mode():
        if not config.do_sample and config.num_beams == 1:
            return [cut(row, encoder) for row in greedy(model, ids, mask, config, until, on_token).tolist()]
        unfinished = list(range(len(ids)))

        def finished_rows(rows, scores, **_):
            finished = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
            if on_token and config.num_beams == 1:
                last = rows[:, -1].tolist()
                stopped_now = on_token(list(unfinished), [last[i] for i in unfinished]) or []
                finished[stopped_now] = True
                unfinished[:] = [i for i in unfinished if last[i] not in encoder.stop and i not in stopped_now]
            return finished | until()

        def check_scores(rows, scores):
            return batched_forward.check_numbers(scores)

        model.generation_config = config  # a checkpoint's own may sample; every row of a table decodes alike
        inputs = {"input_ids": ids, "attention_mask": mask, "generation_config": config}
        out = model.generate(**inputs, stopping_criteria=[finished_rows], logits_processor=[check_scores])
    return [cut(row, encoder) for row in out[:, ids.shape[1] :].tolist()]


def greedy(model, ids, mask, config, until=lambda: False, on_token=None):
    """Greedy decoding: new token ids of shape (rows, max_new_tokens), with pad ids after each row's end.

    The ids are those of transformers' generate. But a row that has ended leaves the batch, with its keys and values.
    """
    import torch

    positions, max_tokens = architecture.position_keywords(model), config.max_new_tokens
    rows, lengths = torch.arange(len(ids), device=ids.device), mask.sum(1)
    generated = torch.full((len(ids), max_tokens), config.pad_token_id, device=ids.device)
    stop_ids = torch.tensor(config.eos_token_id or [], device=ids.device)
    last_only = {"logits_to_keep": 1} if architecture.keeps_logits(model) else {}
    position_ids = positions((mask.cumsum(1) - 1).clamp(min=0))
    out = model(input_ids=ids, attention_mask=mask, use_cache=True, **position_ids, **last_only)
    for step in range(max_tokens):
        token = batched_forward.check_numbers(out.logits[:, -1].float()).argmax(-1)
        generated[rows, step] = token
        unfinished = ~torch.isin(token, stop_ids)
        if on_token and (stopped_now := on_token(rows.tolist(), token.tolist())):
            unfinished &= ~torch.isin(rows, torch.tensor(stopped_now, device=rows.device))
        if step + 1 == max_tokens or not unfinished.any() or until():
            break
        cache = out.past_key_values
        if not unfinished.all():
            cache.batch_select_indices(unfinished.nonzero()[:, 0])
            rows, mask, lengths, token = (tensor[unfinished] for tensor in (rows, mask, lengths, token))
        mask = torch.cat([mask, mask.new_ones((len(rows), 1))], 1)
        cached = {"attention_mask": mask, "past_key_values": cache, "use_cache": True}
        out = model(input_ids=token[:, None], **cached, **positions(lengths[:, None]))
        lengths = lengths + 1
    return generated


def configuration(decoding, max_new_tokens, stop, pad):
    """transformers' GenerationConfig with every sampling field set: the library's default top_k is 50."""
    import transformers

    temperature = decoding["temperature"] or 1.0
    sampling = {"do_sample": False}
    if (decoding["temperature"] or decoding["top_k"]) and temperature >= MIN_TEMPERATURE:
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
    """The answer ({"text", "tokens", "stopped"}) in one row's new ids, up to the first end of sequence."""
    end = next((i for i, token in enumerate(ids) if token in encoder.stop), None)
    answer_ids = ids if end is None else ids[:end]
    text = encoder.tokenizer.decode(answer_ids, skip_special_tokens=True).strip()
    return {"text": text, "tokens": len(answer_ids) + (end is not None), "stopped": end is not None}
