"""`make bench`: how much the faster paths give over the plain ones, with the embedded model and the sample.

Every line is a ratio of two ways to the same answer, run in turn RUNS times in one process; medians. The
machine's speed cancels out, so ratios can be quoted; the seconds beside them belong to this machine.
"""

import statistics
import sys
import time

from common import checkpoints, console, data, encoding, generation, loading, machine, memory, passes, scoring
from common.console import say

RUNS = 3
CLASS = encoding.Template("Classify the post. The answer is exactly one of:\n{labels}\n\nPost:\n{document}")
SUMMARY = encoding.Template("Summarize the dialogue in one or two short sentences.\n\n{document}")


def alternating(ways):
    """{name: median seconds} of functions run in turn, after one warm-up each."""
    seconds = {name: [] for name in ways}
    for turn in range(RUNS + 1):
        for name, way in ways.items():
            began = time.monotonic()
            way()
            if turn:
                seconds[name].append(time.monotonic() - began)
    return {name: statistics.median(found) for name, found in seconds.items()}


def full_sequences(model, encoder, prompts, labels):
    """Scores of all labels by one whole sequence a label, as a batch a prompt: the plain way."""
    import torch

    for prompt in prompts:
        rows = [prompt + encoder.answer(label) for label in labels]
        ids, mask = passes.pad_left(rows, encoder.tokenizer.pad_token_id, model.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        longest = max(len(encoder.answer(label)) for label in labels)
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=longest + 1).logits.float()


def main():
    memory.keep_freed()
    checkpoint = checkpoints.find("smollm2")
    model, tokenizer = loading.base(checkpoint, machine.precision()), loading.tokenizer(checkpoint)

    sample = data.split_by_column(data.SAMPLE / "posts.jsonl", {"text": "text", "target": "label"})
    posts, labels = sample["test"][:2], sorted({row["target"] for row in sample["train"]})
    encoder = encoding.Encoder(tokenizer, CLASS, "chat", 192, 2048, labels)
    prompts = [encoder.prompt(row["text"]) for row in posts]
    ignore = lambda *batch: None  # noqa: E731
    label_seconds = alternating(
        {
            "plain": lambda: full_sequences(model, encoder, prompts, labels),
            "shared": lambda: scoring.score_labels(model, encoder, prompts, labels, len(prompts), ignore),
        }
    )

    dialogues = data.split_by_column(data.SAMPLE / "dialogues.jsonl", {"text": "dialogue", "target": "summary"})["test"]
    writer = encoding.Encoder(tokenizer, SUMMARY, "chat", 512, 2048)
    starts = [writer.prompt(row["text"]) for row in dialogues]
    written = alternating(
        {
            "one": lambda: generation.generate(model, writer, starts, 40, 1, ignore),
            "batch": lambda: generation.generate(model, writer, starts, 40, 16, ignore),
        }
    )
    rows = [["what", "plain", "here", "ratio"]]
    for what, plain, here in (
        (
            f"scoring {len(labels)} labels of {len(posts)} posts: full sequences / shared prompt",
            label_seconds["plain"],
            label_seconds["shared"],
        ),
        (f"writing {len(starts)} summaries: one at a time with cache / batch of 16", written["one"], written["batch"]),
    ):
        rows.append([what, f"{plain:.2f} s", f"{here:.2f} s", f"{plain / here:.1f}"])
    say(console.columns(rows))


if __name__ == "__main__":
    sys.exit(console.exit_code(main))
