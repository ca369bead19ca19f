"""Choosing a class by the log-likelihood of every label's full text behind the prompt.

The prompt is run once and its keys and values are shared by all labels; each label's score equals
that of a plain full-sequence computation (tested).
"""

import inspect
import time

from common import console, generation
from common.console import InputError


def score_labels(model, encoder, prompts, labels, batch_size, on_batch, done=()):
    """Log-probability (natural) of every label behind every prompt.

    prompts: lists of token ids; labels: class names, none of which may begin another one's ids (else the
    shorter one would collect the longer one's probability as well).
    on_batch(rows, scores, seconds): scores is a list of lists of shape (len(rows), len(labels)).
    """
    import torch

    answers = [encoder.answer(label) for label in labels]
    for i, first in enumerate(answers):
        for j, second in enumerate(answers):
            if i != j and second[: len(first)] == first:
                raise InputError(f"class {labels[i]!r} begins class {labels[j]!r} token by token: rename one")
    bar = console.progress(len(prompts), "scoring labels", done=len(done))
    for rows in generation.batches([len(prompt) for prompt in prompts], batch_size):
        if all(row in done for row in rows):
            continue
        began = time.monotonic()
        with torch.inference_mode():
            scores = batch_scores(model, [prompts[row] for row in rows], answers, encoder.tokenizer.pad_token_id)
        on_batch(rows, scores.tolist(), time.monotonic() - began)
        bar.update(len(rows))
    bar.close()


def batch_scores(model, prompts, answers, pad_id):
    """Tensor (prompts, answers) of log-probabilities in float32: one pass over the prompts, left-padded,
    then one over all answers, each behind a copy of its prompt's keys and values."""
    import torch

    takes_positions = "position_ids" in inspect.signature(unwrapped(model).forward).parameters
    ids, mask = generation.pad_left(prompts, pad_id, model.device)
    positions = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if takes_positions else {}
    out = (
        model(input_ids=ids, attention_mask=mask, use_cache=True, logits_to_keep=1, **positions)
        if keeps_logits(model)
        else model(input_ids=ids, attention_mask=mask, use_cache=True, **positions)
    )
    first = out.logits[:, -1].float().log_softmax(-1)
    scores = first[:, [answer[0] for answer in answers]]
    longest = max(map(len, answers))
    if longest == 1:
        return scores

    # Rows of the second pass: prompt 0 with every answer, prompt 1 with every answer, …
    count = len(answers)
    width = longest - 1  # the last token of an answer is only predicted, never read
    tail = torch.full((count, width), pad_id, device=ids.device)
    target = torch.zeros((count, width), dtype=torch.long, device=ids.device)
    real = torch.zeros((count, width), dtype=torch.long, device=ids.device)
    for i, answer in enumerate(answers):
        n = len(answer) - 1
        tail[i, :n] = torch.tensor(answer[:-1])
        target[i, :n] = torch.tensor(answer[1:])
        real[i, :n] = 1
    cache = out.past_key_values
    cache.batch_repeat_interleave(count)
    full_mask = torch.cat([mask.repeat_interleave(count, 0), real.repeat(len(prompts), 1)], 1)
    if takes_positions:
        lengths = mask.sum(1).repeat_interleave(count)
        positions = {"position_ids": lengths[:, None] + torch.arange(width, device=ids.device)}
    out = model(
        input_ids=tail.repeat(len(prompts), 1),
        attention_mask=full_mask,
        past_key_values=cache,
        use_cache=True,
        **positions,
    )
    rest = out.logits.float().log_softmax(-1).gather(-1, target.repeat(len(prompts), 1)[..., None])[..., 0]
    return scores + (rest * real.repeat(len(prompts), 1)).sum(1).view(len(prompts), count)


def unwrapped(model):
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def keeps_logits(model):
    """Whether the architecture can leave out the logits of all positions but the last ones."""
    return "logits_to_keep" in inspect.signature(unwrapped(model).forward).parameters
