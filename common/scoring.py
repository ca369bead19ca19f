"""Choosing a class by the log-likelihood of every label's full text behind the prompt.

A prompt and the tree of all labels' tokens go through the model as one row: a token sees the prompt and its own
ancestors in the tree, so labels that begin alike share their beginning too (tree attention, as in SpecInfer, arXiv
2305.09781). Each label's score equals that of a plain full sequence (tested). Architectures that take no position ids
or no mask of that shape run the prompt once and all labels behind copies of its keys and values.
"""

from common import architecture, passes
from common.console import InputError

PARTS = 4  # that a batch is read in where every row's keys and values are held once a label


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
    lengths = [len(prompt) for prompt in prompts]
    longest, places = max(lengths, default=0), len(tree(answers)[0]) + 1

    def work(rows):
        with torch.inference_mode():
            return batch_scores(model, [prompts[row] for row in rows], answers, encoder.tokenizer.pad_token_id).tolist()

    size = passes.row_bytes(model, longest + places, places)
    if not architecture.takes_trees(model, longest + max(map(len, answers))):
        size *= max(1, len(answers) // PARTS)
    passes.run(lengths, batch_size, work, on_batch, done, "scoring labels", size)


def batch_scores(model, prompts, answers, pad_id):
    """Tensor (prompts, answers) of log-probabilities in float32."""
    import torch

    if architecture.takes_trees(model, max(map(len, prompts)) + max(map(len, answers))):
        return tree_scores(model, prompts, answers, pad_id)
    size = max(1, len(prompts) // PARTS)
    parts = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    return torch.cat([copied_scores(model, part, answers, pad_id) for part in parts])


def tree(answers):
    """(nodes, paths) of the answers' tokens. nodes: (token, parent's number or None, depth) of every token that another
    one follows, parents first; paths[i]: the numbers of the nodes that answer i goes through, None first: the prompt's
    end, which predicts its first token."""
    nodes, numbers, paths = [], {}, []
    for answer in answers:
        path, at = [None], None
        for depth, token in enumerate(answer[:-1]):
            if (at, token) not in numbers:
                numbers[at, token] = len(nodes)
                nodes.append((token, at, depth))
            at = numbers[at, token]
            path.append(at)
        paths.append(path)
    return nodes, paths


def tree_scores(model, prompts, answers, pad_id):
    """`batch_scores` by one pass."""
    import torch

    nodes, paths = tree(answers)
    ids, real = passes.pad_left(prompts, pad_id, model.device)
    (rows, width), count = ids.shape, len(nodes)
    sees = torch.eye(count, dtype=torch.bool)  # a node sees itself and its ancestors
    for i, (_, parent, _) in enumerate(nodes):
        if parent is not None:
            sees[i] |= sees[parent]
    mask = torch.ones((rows, 1, width + count, width + count), dtype=torch.bool).tril()
    mask[..., width:, width:] = sees
    mask[..., :width] &= real.bool().cpu()[:, None, None]
    mask |= torch.eye(width + count, dtype=torch.bool)  # padding sees itself: a softmax over nothing is NaN
    tokens, depths = (torch.tensor([node[i] for node in nodes], dtype=torch.long, device=ids.device) for i in (0, 2))
    out = model(
        input_ids=torch.cat([ids, tokens.expand(rows, count)], 1),
        attention_mask=additive(mask, model.dtype).to(ids.device),
        position_ids=torch.cat([(real.cumsum(1) - 1).clamp(min=0), real.sum(1, keepdim=True) + depths], 1),
        use_cache=False,
        logits_to_keep=count + 1,
    )
    found = out.logits.float().log_softmax(-1)  # (rows, prompt's end and nodes, vocabulary)
    # A token is predicted at the place before it: all answers' tokens, places and owners in three flat lists.
    wanted = torch.tensor([token for answer in answers for token in answer], device=ids.device)
    places = torch.tensor([0 if at is None else at + 1 for path in paths for at in path], device=ids.device)
    owners = torch.tensor([i for i, path in enumerate(paths) for _ in path], device=ids.device)
    scores = torch.zeros((rows, len(answers)), device=ids.device)
    return scores.index_add_(1, owners, found[:, places, wanted])


def additive(mask, dtype):
    """0 where `mask` lets look, the least number of `dtype` elsewhere."""
    import torch

    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def copied_scores(model, prompts, answers, pad_id):
    """Tensor (prompts, answers) of log-probabilities in float32: one pass over the prompts, left-padded,
    then one over all answers, each behind a copy of its prompt's keys and values."""
    import torch

    told = architecture.positions_of(model)
    ids, mask = passes.pad_left(prompts, pad_id, model.device)
    last = {"logits_to_keep": 1} if architecture.keeps_logits(model) else {}
    out = model(input_ids=ids, attention_mask=mask, use_cache=True, **told((mask.cumsum(1) - 1).clamp(min=0)), **last)
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
    lengths = mask.sum(1).repeat_interleave(count)
    out = model(
        input_ids=tail.repeat(len(prompts), 1),
        attention_mask=full_mask,
        past_key_values=cache,
        use_cache=True,
        **told(lengths[:, None] + torch.arange(width, device=ids.device)),
    )
    rest = out.logits.float().log_softmax(-1).gather(-1, target.repeat(len(prompts), 1)[..., None])[..., 0]
    return scores + (rest * real.repeat(len(prompts), 1)).sum(1).view(len(prompts), count)
