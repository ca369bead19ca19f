"""Scores every label by the log-likelihood of its full text after the prompt.

A prompt and the tree of all labels' tokens are one row of the forward pass. A token attends to the prompt and to its
ancestors in the tree, so that labels with a common beginning share its computation (tree attention, as in SpecInfer,
arXiv 2305.09781). Each score equals that of the plain full sequence (tested). Architectures without position ids or
without such a mask run the prompt once, then all labels, each after a copy of the prompt's keys and values.
"""

from common import architecture, batched_forward, console
from common.console import InputError

COPY_PARTS = 4  # a batch is scored in this many parts if its keys and values are copied for every label
MANY_TOKENS = 512  # of all labels together: above it, scoring them takes longer than reading the document


def score_labels(model, encoder, prompts, labels, batch_size, callback, done=()):
    """Log-likelihood (natural logarithm) of every label after every prompt.

    prompts: lists of token ids; labels: class names. If one label's ids begin another's ("a", "a b"), the end of
    sequence is scored with every label, as in training: otherwise the shorter label would also get the longer one's
    probability. callback(rows, scores, seconds): scores is a list of lists of shape (len(rows), len(labels)). done:
    numbers of rows to leave out. Raises InputError for two labels with the same ids.
    """
    import torch

    answers = label_ids(encoder, labels)
    lengths = [len(prompt) for prompt in prompts]
    longest, label_tokens = max(lengths, default=0), len(tree(answers)[0]) + 1
    if label_tokens > MANY_TOKENS:
        console.warn(f"the classes' names have {label_tokens} tokens: each row reads them all, so scoring takes long")

    def forward(rows):
        with torch.inference_mode():
            return batch_scores(model, [prompts[row] for row in rows], answers, encoder.tokenizer.pad_token_id).tolist()

    bytes_per_row = batched_forward.row_bytes(model, longest + label_tokens, label_tokens)
    if not architecture.takes_trees(model, longest + max(map(len, answers))):
        bytes_per_row *= max(1, len(answers) // COPY_PARTS)
    batched_forward.run(lengths, batch_size, forward, callback, done, "scoring labels", bytes_per_row)


def label_ids(encoder, labels):
    """The token ids to score of every label: those of its answer, or if one label's ids begin another's, those of its
    completion, with the end of sequence."""
    answers = {label: tuple(encoder.answer(label)) for label in labels}
    owners = {ids: label for label, ids in answers.items()}
    for label, ids in answers.items():
        if owners[ids] != label:
            raise InputError(f"classes {label!r} and {owners[ids]!r} are the same tokens: rename one")
    if any(ids[:n] in owners for ids in owners for n in range(len(ids))):
        return [encoder.completion(label) for label in labels]
    return [list(ids) for ids in answers.values()]


def batch_scores(model, prompts, answers, pad_id):
    """Float32 tensor of shape (prompts, answers) of log-likelihoods."""
    import torch

    if architecture.takes_trees(model, max(map(len, prompts)) + max(map(len, answers))):
        return tree_scores(model, prompts, answers, pad_id)
    size = max(1, len(prompts) // COPY_PARTS)
    parts = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    return torch.cat([copied_scores(model, part, answers, pad_id) for part in parts])


def tree(answers):
    """(nodes, paths) of the tree of the answers' tokens. nodes: (token, parent's number or None, depth) of every token
    that is followed by another one, parents first. paths[i]: numbers of the nodes that predict the tokens of answer i;
    the first is None, because the prompt's end predicts the first token."""
    nodes, numbers, paths = [], {}, []
    for answer in answers:
        path, node = [None], None
        for depth, token in enumerate(answer[:-1]):
            if (node, token) not in numbers:
                numbers[node, token] = len(nodes)
                nodes.append((token, node, depth))
            node = numbers[node, token]
            path.append(node)
        paths.append(path)
    return nodes, paths


def tree_scores(model, prompts, answers, pad_id):
    """`batch_scores` by one forward pass over prompts and tree."""
    import torch

    nodes, paths = tree(answers)
    ids, is_token = batched_forward.pad_left(prompts, pad_id, model.device)
    (rows, width), count = ids.shape, len(nodes)
    visible = torch.eye(count, dtype=torch.bool)  # a node attends to itself and its ancestors
    for i, (_, parent, _) in enumerate(nodes):
        if parent is not None:
            visible[i] |= visible[parent]
    mask = torch.ones((rows, 1, width + count, width + count), dtype=torch.bool).tril()
    mask[..., width:, width:] = visible
    mask[..., :width] &= is_token.bool().cpu()[:, None, None]
    mask |= torch.eye(width + count, dtype=torch.bool)  # padding attends to itself: a softmax over nothing is NaN
    tokens, depths = (torch.tensor([node[i] for node in nodes], dtype=torch.long, device=ids.device) for i in (0, 2))
    out = model(
        input_ids=torch.cat([ids, tokens.expand(rows, count)], 1),
        attention_mask=additive(mask, model.dtype).to(ids.device),
        position_ids=torch.cat([(is_token.cumsum(1) - 1).clamp(min=0), is_token.sum(1, keepdim=True) + depths], 1),
        use_cache=False,
        logits_to_keep=count + 1,
    )
    # shape (rows, prompt's end and nodes, vocabulary)
    log_probs = batched_forward.check_numbers(out.logits.float()).log_softmax(-1)
    # Every token of every answer, in flat lists: its id, the position that predicts it, and the number of its answer.
    targets = torch.tensor([token for answer in answers for token in answer], device=ids.device)
    positions = torch.tensor([0 if node is None else node + 1 for path in paths for node in path], device=ids.device)
    owners = torch.tensor([i for i, path in enumerate(paths) for _ in path], device=ids.device)
    scores = torch.zeros((rows, len(answers)), device=ids.device)
    return scores.index_add_(1, owners, log_probs[:, positions, targets])


def additive(mask, dtype):
    """`mask` as a tensor to add to attention scores: 0 where it is True, the least number of `dtype` elsewhere."""
    import torch

    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def copied_scores(model, prompts, answers, pad_id):
    """`batch_scores` by two forward passes: one over the prompts, one over all answers, each after a copy of its
    prompt's keys and values."""
    import torch

    positions = architecture.position_keywords(model)
    ids, mask = batched_forward.pad_left(prompts, pad_id, model.device)
    last_only = {"logits_to_keep": 1} if architecture.keeps_logits(model) else {}
    out = model(
        input_ids=ids, attention_mask=mask, use_cache=True, **positions((mask.cumsum(1) - 1).clamp(min=0)), **last_only
    )
    first = batched_forward.check_numbers(out.logits[:, -1].float()).log_softmax(-1)
    scores = first[:, [answer[0] for answer in answers]]
    longest = max(map(len, answers))
    if longest == 1:
        return scores

    # Rows of the second pass: prompt 0 with every answer, prompt 1 with every answer, …
    count = len(answers)
    width = longest - 1  # the last token of an answer is only predicted, never read
    answer_ids = torch.full((count, width), pad_id, device=ids.device)
    targets = torch.zeros((count, width), dtype=torch.long, device=ids.device)
    is_token = torch.zeros((count, width), dtype=torch.long, device=ids.device)
    for i, answer in enumerate(answers):
        n = len(answer) - 1
        answer_ids[i, :n], targets[i, :n], is_token[i, :n] = torch.tensor(answer[:-1]), torch.tensor(answer[1:]), 1
    cache = out.past_key_values
    cache.batch_repeat_interleave(count)
    full_mask = torch.cat([mask.repeat_interleave(count, 0), is_token.repeat(len(prompts), 1)], 1)
    lengths = mask.sum(1).repeat_interleave(count)
    position_ids = positions(lengths[:, None] + torch.arange(width, device=ids.device))
    cached = {"attention_mask": full_mask, "past_key_values": cache, "use_cache": True}
    out = model(input_ids=answer_ids.repeat(len(prompts), 1), **cached, **position_ids)
    rest_scores = out.logits.float().log_softmax(-1).gather(-1, targets.repeat(len(prompts), 1)[..., None])[..., 0]
    return scores + (rest_scores * is_token.repeat(len(prompts), 1)).sum(1).view(len(prompts), count)
