"""Fine-tune DistilBERT on IMDB with a plain PyTorch loop: what transformers' Trainer does in distilbert_sentiment.py.

    python distilbert/distilbert_sentiment_loop.py
    python distilbert/distilbert_sentiment_loop.py --pretrained_ckpt minilm --max_train_samples 4000
    python distilbert/distilbert_sentiment_loop.py --demo

AdamW, linear warm-up and decay, gradients clipped to norm 1; the epoch is chosen on the validation rows. A killed run
goes on after its last finished epoch (--resume). Same rows, split, seed and batches as the Trainer: the two should
agree within a point.
"""

import sys
import time

import model
import prompts

from common import (
    budget,
    console,
    data,
    encoders,
    experiment,
    flags,
    loops,
    machine,
    memory,
    passes,
    records,
    training,
)


def arguments():
    return flags.sentiment(flags.training(__doc__, adapter=False)).parse_args()


def main(run):
    reviews = data.imdb(run)  # the same rows, in the same order, for every model
    network = loop(run, encoders.network(run, reviews.labels), reviews)  # the best epoch on validation
    scores = encoders.labels(run, network, reviews)
    records.finish(run, reviews, scores)


def loop(run, network, reviews):
    """Train every weight of `network`; returns the best epoch's weights, reloaded."""
    import torch
    import transformers

    reader, settings = encoders.Reader(run), run.settings
    rows = reader.rows(reviews.train, reviews.labels)
    run.truncated["train"] = reader.truncated
    held = reader.rows(reviews.validation, reviews.labels)
    if training.finished_before(run):
        return encoders.trained(run, reviews)
    sampler = training.by_length([len(row["input_ids"]) for row in rows], settings["batch_size"], run.args.seed)
    per_epoch = -(-len(rows) // settings["batch_size"])
    steps = round(per_epoch * settings["epochs"])
    limit = budget.before(run, rows, held)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings["learning_rate"], weight_decay=0.0)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, max(1, round(0.03 * steps)), steps)
    progress = loops.Progress(run, network, optimizer)
    history, validation, seconds, tokens = progress.restored([], [], 0.0, 0)
    for _ in history:
        schedule.step()
    bar = console.progress(steps, "training", "step", done=len(history))
    while len(history) < steps:
        epoch = len(history) // per_epoch
        began = time.monotonic()
        torch.manual_seed(run.args.seed + epoch)  # dropout
        network.train()
        sampler.set_epoch(epoch)
        order = list(sampler)
        for start in range(0, len(rows), settings["batch_size"]):
            batch = loops.batch(run, [rows[i] for i in order[start : start + settings["batch_size"]]])
            with torch.autocast(network.device.type, torch.bfloat16, enabled=settings["precision"] == machine.MIXED):
                loss = network(**batch).loss
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            history.append(
                {
                    "step": len(history) + 1,
                    "loss": loss.item(),
                    "grad_norm": norm.item(),
                    "learning_rate": schedule.get_last_lr()[0],
                }
            )
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            tokens += int(batch["attention_mask"].sum())
            memory.hand_back(limit)
            bar.update(1)
            if len(history) == steps:
                break
        seconds += time.monotonic() - began
        found = {"epoch": epoch + 1, **validated(run, network.eval(), held)}
        console.say(f"\nvalidation: {found}")
        if all(found["accuracy"] > each["accuracy"] for each in validation):
            encoders.save(run, network)
        validation.append(found)
        progress.keep(history, validation, seconds, tokens)
    bar.close()
    last = [entry["loss"] for entry in history[-per_epoch:]]
    run.training = {
        "seconds": seconds,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "steps": steps,
        "loss": sum(last) / len(last),
        "losses": [round(entry["loss"], 4) for entry in history],
        "peak_memory_bytes": memory.peak(),
        "trainable_parameters": sum(p.numel() for p in network.parameters()),
        "validation": validation,
        "curves": training.curves(history),
    }
    training.finish(run, reviews.labels)
    return encoders.trained(run, reviews)


def validated(run, network, rows):
    """Mean loss and accuracy (0 to 1) on the validation rows."""
    import torch

    loss, right = 0.0, 0
    for numbers in passes.batches([len(row["input_ids"]) for row in rows], run.settings["inference_batch_size"]):
        batch = loops.batch(run, [rows[i] for i in numbers])
        with torch.inference_mode():
            out = network(**batch)
        loss += out.loss.item() * len(numbers)
        right += int((out.logits.argmax(-1) == batch["labels"]).sum())
    return {"loss": loss / len(rows), "accuracy": right / len(rows)}


if __name__ == "__main__":
    sys.exit(experiment.start(main, arguments(), model, prompts, "training"))
