"""Fine-tune DistilBERT on IMDB with a plain PyTorch loop, equivalent to the Trainer of distilbert_sentiment.py.

    python distilbert/distilbert_sentiment_loop.py
    python distilbert/distilbert_sentiment_loop.py --demo

The loop has AdamW, linear warm-up and decay, and gradients clipped to norm 1, and chooses the epoch on the validation
rows. With --resume a killed run goes on after its last finished epoch. Rows, split, seed and batches are those of the
Trainer, so the two should agree within a point.
"""

import math
import sys
import time

import model
import prompts

from common import batches, bookkeeping, budget, console, data, encoders, machine, training
from common.runs import experiment
from common.settings import Settings

SETTINGS = Settings(
    max_document_tokens=256,
    cut="middle",  # drop the middle of a long review, because its end concludes
    pooling="cls",  # position of the untrained encoder's features
    trainer="loop",
    epochs=2,
    learning_rate=5e-5,
    lr_scheduler="linear",
    warmup_ratio=0.03,
    optimizer="adamw_torch",
    weight_decay=0.0,
    max_grad_norm=1.0,
    batch_size=16,
    micro_batch_size=16,
    keep="best",  # choose the epoch on the validation rows
    seed=42,
)
EXPERIMENT = experiment.Experiment(__file__, __doc__, "sentiment", "loop", SETTINGS, model, prompts)


def main(run):
    reviews = data.imdb(**run.rows)  # the same rows, in the same order, for every model
    reader = encoders.reader(run.tokenizer, run.template, run.settings)
    network = encoders.network(run.checkpoint, reviews.labels, run.settings, run.execution)  # with a new head
    rows = reader.training_rows(reviews.train, reviews.labels, "train")
    validation = reader.training_rows(reviews.validation, reviews.labels, "validation")
    report = training.finished(run.execution)
    if report is None:
        expected = budget.before(network, rows, validation, run.settings, run.execution)
        with encoders.guarded(run.settings, run.execution), training.fused_layers(network):
            report = machine.attempt(loop, network, reader, rows, validation, run.settings, run.execution, expected)
            if report is None:
                raise console.Failed("OOM", "memory does not hold a step: lower --batch_size or --max_document_tokens")
            training.finish(run.execution, reviews.labels, report)
    network = encoders.saved(network, reviews.labels, run.settings, run.execution.folder)  # of the best epoch
    scores = encoders.labels(network, reader, reviews, run.settings, run.execution, run.checkpoint)
    run.finish(reviews, reader.truncated, scores, report)


def loop(network, reader, rows, validation, settings, execution, expected):
    """Train every weight of `network` and save the weights of the best epoch; returns the report of the training.

    rows, validation: [{"input_ids", "labels"}]; expected: budget.Expectation or None. Raises console.Failed if
    the loss or the gradient norm is not finite.
    """
    import torch
    import transformers

    micro_batch = batches.largest_divisor(settings.batch_size, settings.micro_batch_size)  # rows of a forward pass
    per_epoch = math.ceil(len(rows) / settings.batch_size)
    steps = math.ceil(per_epoch * settings.epochs)
    rate, decay = settings.learning_rate, settings.weight_decay
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay, fused=True)
    warmup = max(1, round(settings.warmup_ratio * per_epoch * settings.epochs)) if settings.warmup_ratio else 0
    schedule = transformers.get_scheduler(settings.lr_scheduler, optimizer, warmup, steps)
    sampler = batches.by_length([len(row["input_ids"]) for row in rows], settings.batch_size, settings.seed)
    progress = encoders.Progress(network, optimizer, schedule, execution)
    history, epochs, tokens, seconds = progress.restore_or_reset()  # at the end of an epoch
    began = time.monotonic() - seconds
    bar = console.progress(steps, "training", "step", done=len(history))
    while len(history) < steps:
        epoch = len(history) // per_epoch
        torch.manual_seed(settings.seed + epoch)  # so that a resumed epoch draws the same dropout
        sampler.set_epoch(epoch)
        order = [rows[i] for i in sampler][: (steps - len(history)) * settings.batch_size]
        network.train()
        for start in range(0, len(order), settings.batch_size):
            rows_of_step, loss = order[start : start + settings.batch_size], 0.0
            for batch in encoders.batches(reader, rows_of_step, micro_batch):
                with encoders.autocast(execution):
                    part = network(**batch).loss * len(batch["labels"]) / len(rows_of_step)
                part.backward()
                loss += part.item()
                tokens += int(batch["attention_mask"].sum())
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings.max_grad_norm)
            step = {"step": len(history) + 1, "loss": loss, "grad_norm": norm.item()}
            bookkeeping.check_finite(**step)
            history.append({**step, "learning_rate": schedule.get_last_lr()[0]})
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            machine.hand_back(expected and expected.limit)
            bar.update(1)
        if validation:
            measured = validate(network, reader, validation, 2 * micro_batch, execution)
            bookkeeping.check_finite(len(history), measured["loss"])
            epochs.append({"epoch": round(len(history) / per_epoch, 2), **measured})
            console.say(f"\nvalidation: {epochs[-1]}")
        if bookkeeping.is_best(epochs) or settings.keep == "last":
            encoders.save(network, settings, execution.folder)
        progress.keep(history, epochs, tokens, time.monotonic() - began)
    bar.close()
    seconds = time.monotonic() - began  # with validation
    return encoders.report(network, history, epochs, tokens, seconds, per_epoch, micro_batch, expected)


def validate(network, reader, rows, size, execution):
    """Mean loss and accuracy (0 to 1) on the validation rows, in the batches and the precision of the Trainer."""
    import torch

    loss, right = 0.0, 0
    network.eval()
    for batch in encoders.batches(reader, rows, min(execution.inference_batch_size, size)):
        with torch.inference_mode(), encoders.autocast(execution):
            out = network(**batch)
        loss += out.loss.item() * len(batch["labels"])
        right += int((out.logits.argmax(-1) == batch["labels"]).sum())
    return {"loss": loss / len(rows), "accuracy": right / len(rows)}


if __name__ == "__main__":
    sys.exit(EXPERIMENT.start(main))
