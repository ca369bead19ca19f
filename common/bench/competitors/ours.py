"""Scoring and generation as this project does them, and the plain ways to the same answers, on weights that are not
quantised, like the competitors'. Reads a JSON task from standard input, prints one JSON line: "seconds" and "results".

Task: {"way", "folder", "dtype", "batch_size", "prompts": [[token id]]}; ways that score take "answers": [[token id]],
one for each label; ways that generate take "max_new_tokens" and "stop": [token id].
"""

import json
import sys
import time

from common import batched_forward, generation, machine, scoring


class Spelled:
    """Stands in for encoding.Encoder in scoring and generation, with answers that are token ids already."""

    def __init__(self, tokenizer, answers=(), stop=()):
        self.tokenizer, self.answers, self.stop = tokenizer, answers, stop

    def answer(self, label):
        return self.answers[label]


def collector(task):
    """(a list with an entry for every prompt, the callback that fills it)."""
    results = [None] * len(task["prompts"])

    def callback(rows, values, seconds):
        for row, value in zip(rows, values, strict=True):
            results[row] = value

    return results, callback


def shared(model, tokenizer, task):
    """For each prompt the log-probabilities of all labels; the labels share one pass over the prompt."""
    results, callback = collector(task)
    encoder, labels = Spelled(tokenizer, task["answers"]), range(len(task["answers"]))
    scoring.score_labels(model, encoder, task["prompts"], labels, task["batch_size"], callback)
    return results


def full_sequences(model, tokenizer, task):
    """The same log-probabilities from one whole sequence for each label; a batch is one prompt with all labels."""
    import torch

    scores, longest = [], max(map(len, task["answers"]))
    for prompt in task["prompts"]:
        ids, mask = batched_forward.pad_left(
            [prompt + answer for answer in task["answers"]], tokenizer.pad_token_id, "cpu"
        )
        with torch.inference_mode():
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            out = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=longest + 1)
        log_probabilities = out.logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, -longest:, None])[..., 0]
        lengths = [len(answer) for answer in task["answers"]]
        scores.append([row[-length:].sum().item() for row, length in zip(log_probabilities, lengths, strict=True)])
    return scores


def together(model, tokenizer, task):
    """Texts, generated in batches."""
    results, callback = collector(task)
    encoder = Spelled(tokenizer, stop=task["stop"])
    generation.generate(model, encoder, task["prompts"], task["max_new_tokens"], task["batch_size"], callback)
    return [answer["text"] for answer in results]


def one_at_a_time(model, tokenizer, task, use_cache=True):
    """Texts by transformers' generate, one prompt at a time."""
    import torch

    encoder, texts = Spelled(tokenizer, stop=task["stop"]), []
    config = generation.configuration(generation.GREEDY, task["max_new_tokens"], task["stop"], tokenizer.pad_token_id)
    config.use_cache = use_cache
    model.generation_config = config
    for prompt in task["prompts"]:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        texts.append(generation.cut(out[0, len(prompt) :].tolist(), encoder)["text"])
    return texts


def without_cache(model, tokenizer, task):
    """The same without a cache of keys and values: every token reads the whole text again."""
    return one_at_a_time(model, tokenizer, task, use_cache=False)


def prefill(model, tokenizer, task):
    """Read the prompts in batches, and generate nothing."""
    import torch

    def work(rows):
        ids, mask = batched_forward.pad_left([task["prompts"][row] for row in rows], tokenizer.pad_token_id, "cpu")
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1)
        return rows

    batched_forward.run([len(prompt) for prompt in task["prompts"]], task["batch_size"], work, lambda *batch: None)


WAYS = {way.__name__: way for way in (shared, full_sequences, together, one_at_a_time, without_cache, prefill)}


def main():
    import torch
    import transformers

    task = json.load(sys.stdin)
    machine.keep_freed()
    model_class, dtype = transformers.AutoModelForCausalLM, getattr(torch, task["dtype"])
    model = model_class.from_pretrained(task["folder"], dtype=dtype, use_safetensors=True).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(task["folder"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    way = WAYS[task["way"]]
    way(model, tokenizer, {**task, "prompts": task["prompts"][:1], "max_new_tokens": 4})  # warm up
    began = time.monotonic()
    results = way(model, tokenizer, task)
    print(json.dumps({"seconds": time.monotonic() - began, "results": results}))


if __name__ == "__main__":
    main()
