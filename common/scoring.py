"""Choosing a class by the log-likelihood of every label's full text after the prompt.

A prompt and the tree of all labels' tokens go through the model as one row: a token sees the prompt and its own
ancestors in the tree, so labels that begin alike share their beginning too (tree attention, as in SpecInfer, arXiv
2305.09781). Each label's score equals that of a plain full sequence (tested). Architectures that take no position ids
or no mask of that shape run the prompt once, and all labels after copies of its keys and values.
"""

from common import architecture, batched_forward, console
from common.console import InputError

COPY_PARTS = 4  # a batch is read in so many parts where every row's keys and values are copied once a label
MANY_TOKENS = 512  # of all labels together: reading them then takes longer than reading the document


def score_labels(model, encoder, prompts, labels, batch_size, callback, done=()):
    """Log-probability (natural) of every label after every prompt.

    prompts: lists of token ids; labels: class names. Where one label's ids begin another's ("a", "a b"), the end of
    sequence is scored with every label, as it is trained: else the shorter one would collect the longer one's
    probability as well. callback(rows, scores, seconds): scores is a list of lists of shape (len(rows), len(labels)).
    Raises InputError for two labels with the same ids.
    """
    import torch

    answers = label_ids(encoder, labels)
    lengths = [len(prompt) for prompt in prompts]
    longest, positions = max(lengths, default=0), len(tree(answers)[0]) + 1
    if positions > MANY_TOKENS:
        console.warn(f"the classes' names have {positions} tokens: each row reads them all, so scoring takes long")

    def work(rows):
        with torch.inference_mode():
            return batch_scores(model, [prompts[row] for row in rows], answers, encoder.tokenizer.pad_token_id).tolist()

    bytes_per_row = batched_forward.row_bytes(model, longest + positions, positions)
    if not architecture.takes_trees(model, longest + max(map(len, answers))):
        bytes_per_row *= max(1, len(answers) // COPY_PARTS)
    batched_forward.run(lengths, batch_size, work, callback, done, "scoring labels", bytes_per_row)


def label_ids(encoder, labels):
    """The ids to score of every label: its answer's, or where one label's ids begin another's those of all completions,
    end of sequence included."""
    answers = {label: tuple(encoder.answer(label)) for label in labels}
    owners = {ids: label for label, ids in answers.items()}
    for label, ids in answers.items():
        if owners[ids] != label:
            raise InputError(f"classes {label!r} and {owners[ids]!r} are the same tokens: rename one")
    if any(ids[:n] in owners for ids in owners for n in range(len(ids))):
        return [encoder.completion(label) for label in labels]
    return [list(ids) for ids in answers.values()]


def batch_scores(model, prompts, answers, pad_id):
    """Tensor (prompts, answers) of log-probabilities in float32."""
    import torch

    if architecture.takes_trees(model, max(map(len, prompts)) + max(map(len, answers))):
        return tree_scores(model, prompts, answers, pad_id)
    size = max(1, len(prompts) // COPY_PARTS)
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
    ids, real = batched_forward.pad_left(prompts, pad_id, model.device)
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
    logs = batched_forward.check_numbers(out.logits.float()).log_softmax(
        -1
    )  # (rows, prompt's end and nodes, vocabulary)
    # A token is predicted at the place before it: all answers' tokens, places and owners in three flat lists.
    wanted = torch.tensor([token for answer in answers for token in answer], device=ids.device)
    places = torch.tensor([0 if at is None else at + 1 for path in paths for at in path], device=ids.device)
    owners = torch.tensor([i for i, path in enumerate(paths) for _ in path], device=ids.device)
    scores = torch.zeros((rows, len(answers)), device=ids.device)
    return scores.index_add_(1, owners, logs[:, places, wanted])


def additive(mask, dtype):
    """0 where `mask` is True, the least number of `dtype` elsewhere."""
    import torch

    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def copied_scores(model, prompts, answers, pad_id):
    """Tensor (prompts, answers) of log-probabilities in float32: one pass over the prompts, left-padded,
    then one over all answers, each after a copy of its prompt's keys and values."""
    import torch

    positions = architecture.position_keywords(model)
    ids, mask = batched_forward.pad_left(prompts, pad_id, model.device)
    last = {"logits_to_keep": 1} if architecture.keeps_logits(model) else {}
    out = model(
        input_ids=ids, attention_mask=mask, use_cache=True, **positions((mask.cumsum(1) - 1).clamp(min=0)), **last
    )
    first = batched_forward.check_numbers(out.logits[:, -1].float()).log_softmax(-1)
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
        tail[i, :n], target[i, :n], real[i, :n] = torch.tensor(answer[:-1]), torch.tensor(answer[1:]), 1
    cache = out.past_key_values
    cache.batch_repeat_interleave(count)
    full_mask = torch.cat([mask.repeat_interleave(count, 0), real.repeat(len(prompts), 1)], 1)
    lengths = mask.sum(1).repeat_interleave(count)
    counted = positions(lengths[:, None] + torch.arange(width, device=ids.device))
    known = {"attention_mask": full_mask, "past_key_values": cache, "use_cache": True}
    out = model(input_ids=tail.repeat(len(prompts), 1), **known, **counted)
    rest = out.logits.float().log_softmax(-1).gather(-1, target.repeat(len(prompts), 1)[..., None])[..., 0]
    return scores + (rest * real.repeat(len(prompts), 1)).sum(1).view(len(prompts), count)
