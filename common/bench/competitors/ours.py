"""Scoring and writing as this project does it, and the plain ways beside it, on weights that are not quantised (as the
competitors have them). Reads a JSON task from standard input, prints one JSON line: seconds and what was found.

Task: {"way", "folder", "dtype", "batch_size", "prompts": [[token id]]} and, to score, "answers": [[token id]], one a
label; to write, "max_new_tokens", "stop": [token id].
"""

import json
import sys
import time

from common import batched_forward, generation, machine, scoring


class Spelled:
    """What scoring and writing ask of an encoding.Encoder, for answers that are ids already."""

    def __init__(self, tokenizer, answers=(), stop=()):
        self.tokenizer, self.answers, self.stop = tokenizer, answers, stop

    def answer(self, label):
        return self.answers[label]


def kept(task):
    """(a list with a place for every prompt, the callback that fills it)."""
    found = [None] * len(task["prompts"])

    def keep(rows, values, seconds):
        for row, value in zip(rows, values, strict=True):
            found[row] = value

    return found, keep


def shared(model, tokenizer, task):
    """Log-probabilities of all labels, prompt by prompt: the labels share the prompt's work."""
    found, keep = kept(task)
    encoder, labels = Spelled(tokenizer, task["answers"]), range(len(task["answers"]))
    scoring.score_labels(model, encoder, task["prompts"], labels, task["batch_size"], keep)
    return found


def full_sequences(model, tokenizer, task):
    """The same by one whole sequence a label, a batch a prompt."""
    import torch

    found, longest = [], max(map(len, task["answers"]))
    for prompt in task["prompts"]:
        ids, mask = batched_forward.pad_left(
            [prompt + answer for answer in task["answers"]], tokenizer.pad_token_id, "cpu"
        )
        with torch.inference_mode():
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            out = model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=longest + 1)
        likely = out.logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, -longest:, None])[..., 0]
        lengths = [len(answer) for answer in task["answers"]]
        found.append([row[-length:].sum().item() for row, length in zip(likely, lengths, strict=True)])
    return found


def together(model, tokenizer, task):
    """Texts, written in batches."""
    found, keep = kept(task)
    encoder = Spelled(tokenizer, stop=task["stop"])
    generation.generate(model, encoder, task["prompts"], task["max_new_tokens"], task["batch_size"], keep)
    return [answer["text"] for answer in found]


def one_at_a_time(model, tokenizer, task, use_cache=True):
    """Texts by transformers' generate, a prompt at a time."""
    import torch

    encoder, found = Spelled(tokenizer, stop=task["stop"]), []
    config = generation.configuration(generation.GREEDY, task["max_new_tokens"], task["stop"], tokenizer.pad_token_id)
    config.use_cache = use_cache
    model.generation_config = config
    for prompt in task["prompts"]:
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        found.append(generation.cut(out[0, len(prompt) :].tolist(), encoder)["text"])
    return found


def without_cache(model, tokenizer, task):
    """The same without keys and values kept: all that was written is read again for every token."""
    return one_at_a_time(model, tokenizer, task, use_cache=False)


def prefill(model, tokenizer, task):
    """Nothing but the reading of the prompts, a batch at a time."""
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
    auto, dtype = transformers.AutoModelForCausalLM, getattr(torch, task["dtype"])
    model = auto.from_pretrained(task["folder"], dtype=dtype, use_safetensors=True).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(task["folder"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    way = WAYS[task["way"]]
    way(model, tokenizer, {**task, "prompts": task["prompts"][:1], "max_new_tokens": 4})  # warm
    began = time.monotonic()
    found = way(model, tokenizer, task)
    print(json.dumps({"seconds": time.monotonic() - began, "found": found}))


if __name__ == "__main__":
    main()
