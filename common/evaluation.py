"""The test stage of both tasks: base model and tuned model by the same prompts, decoding and scorer.

The base model is the tuned one with its adapter switched off: the same weights in the same process.
Finished rows are kept as they come (predictions-*.jsonl), so an interrupted test goes on where it stopped.
"""

import contextlib
import json
import math

from common import generation, loading, metrics, passes, records, scoring
from common.console import warn


def labels(run, model, data):
    """Classification: all labels scored by log-likelihood, with free generation beside it.

    Returns {"base": metrics | None, "tuned": metrics | None, "inference": block of the record}.
    """

    def score(stage, encoder, prompts, timing):
        scored = Predictions(run, f"{stage}-labels", len(prompts), timing)
        scoring.score_labels(
            model, encoder, prompts, data.labels, run.settings["inference_batch_size"],
            lambda rows, scores, seconds: scored.add(rows, [{"scores": row} for row in scores], seconds), scored.done,
        )  # fmt: skip
        written = generate(run, model, encoder, prompts, stage, Timing())
        texts, truth = [row["text"] for row in written], [row["target"] for row in data.test]
        found = classes(run, data, stage, likeliest(data.labels, [row["scores"] for row in scored.rows]))
        found |= metrics.outcomes(texts, truth, data.labels)
        return found | (metrics.generated(texts, truth, data.labels) if len(data.labels) == 2 else {})

    return prompted(run, model, data, score)


def random_head(run, data):
    """A classification head that nobody trained, on the untrained model: chance, and what it looks like. Returns the
    same as `labels`."""
    import torch
    import transformers

    transformers.set_seed(run.args.seed)
    auto = transformers.AutoModelForSequenceClassification
    keywords = {"num_labels": len(data.labels), "pad_token_id": run.tokenizer.pad_token_id}
    model = loading.quantised(auto, run.checkpoint, run.settings["precision"], ["score"], **keywords)
    loading.assert_quantised(model, [model.score])
    run.keep_settings()

    def score(stage, encoder, prompts, timing):
        scored = Predictions(run, f"{stage}-head", len(prompts), timing)

        def work(rows):
            ids, mask = passes.pad_left([prompts[row] for row in rows], run.tokenizer.pad_token_id, model.device)
            with torch.inference_mode():
                return [{"scores": row} for row in model(input_ids=ids, attention_mask=mask).logits.float().tolist()]

        lengths, size = [len(prompt) for prompt in prompts], run.settings["inference_batch_size"]
        passes.run(lengths, size, work, scored.add, scored.done, "random head reads")
        return classes(run, data, stage, likeliest(data.labels, [row["scores"] for row in scored.rows]))

    return prompted(run, model, data, score)


def likeliest(labels, scores):
    """The label with the highest of every row's scores, which are one a label."""
    return [labels[max(range(len(row)), key=row.__getitem__)] for row in scores]


def classes(run, data, stage, found):
    """Metrics of the classes `found` for the test rows; their confusion matrix goes to the run."""
    truth = [row["target"] for row in data.test]
    run.confusion[stage] = metrics.confusion(found, truth, data.labels)
    return metrics.classification(found, truth, data.labels)


def summaries(run, model, data):
    """Summarization: greedy summaries, ROUGE, and the share of summaries that ended on their own.

    Returns the same as `labels`.
    """

    def score(stage, encoder, prompts, timing):
        written = generate(run, model, encoder, prompts, stage, timing)
        found = metrics.rouge([row["text"] for row in written], [row["target"] for row in data.test])
        return found | {"stopped": metrics.mean([row["stopped"] for row in written])}

    return prompted(run, model, data, score)


def instructions(run, model, data):
    """Instructions: one generation pass, then BLEU, ROUGE, BERTScore and length of the responses alone; beside them
    the echo, the score of an answer that repeats the prompt. Every answer stands in answers.jsonl.

    Returns the same as `labels`.
    """
    references, echo = [row["target"] for row in data.test], {}

    def score(stage, encoder, prompts, timing):
        written = generate(run, model, encoder, prompts, stage, timing)
        answers = [row["text"] for row in written]
        asked = [encoder.document(row) for row in data.test]
        lines = zip(asked, references, answers, strict=True)
        rows = [dict(zip(("prompt", "reference", "answer"), line, strict=True)) for line in lines]
        records.write_lines(run.folder / "answers.jsonl", rows)
        found = metrics.responses(answers, references, run.settings["bertscore_model"])
        if not echo:  # the same for the base model and the tuned one
            parrot = metrics.responses(asked, references, run.settings["bertscore_model"])
            echo.update({f"echo_{name}": value for name, value in parrot.items()})
        return found | {"stopped": metrics.mean([row["stopped"] for row in written])} | echo

    return prompted(run, model, data, score)


def of_task(run, model, data):
    """The test stage that --task_type names."""
    return {"classification": labels, "summarization": summaries}[run.task](run, model, data)


def answer(run):
    """What the trained adapter answers to --text: a summary, or the likeliest classes."""
    names = records.read(run.experiment / "labels.json")
    encoder = run.encoder(names)
    prompts, model, found = [encoder.prompt(run.text)], run.model(), []
    if encoder.truncated:
        warn(f"the text is longer than {run.settings['max_document_tokens']} tokens and was cut")
    keep = lambda rows, answers, seconds: found.extend(answers)  # noqa: E731
    if not names:
        how = {"decoding": run.settings.get("decoding"), "seed": run.args.seed}
        generation.generate(model, encoder, prompts, run.settings["max_new_tokens"], 1, keep, **how)
        return found[0]["text"]
    scoring.score_labels(model, encoder, prompts, names, 1, keep)
    total = sum(math.exp(score) for score in found[0])
    ranked = sorted(zip(found[0], names, strict=True), reverse=True)[:3]
    return "\n".join(f"{name}  {math.exp(score) / total:.1%} of the labels' probability" for score, name in ranked)


def prompted(run, model, data, score):
    """`stages` of a model that is prompted: score(stage, encoder, prompts, timing) meets the base model with the
    adapter switched off."""
    encoder = run.encoder(data.labels, data.train)
    prompts = [encoder.prompt(encoder.document(row)) for row in data.test]
    run.truncated["test"] = encoder.truncated

    def one(stage, timing):
        plain = stage == "base" and hasattr(model, "disable_adapter")
        with model.disable_adapter() if plain else contextlib.nullcontext():
            return score(stage, encoder, prompts, timing)

    return stages(run, len(prompts), one)


def stages(run, n, score):
    """What score(stage, timing) finds on `n` test rows for the base model, the tuned model, or both, as the run
    asks, and the record's `inference` block: that of the last stage."""
    found = {"base": None, "tuned": None}
    for stage in run.stages:
        timing = Timing()
        found[stage] = score(stage, timing)
    return {**found, "inference": timing.block(n)}


def generate(run, model, encoder, prompts, stage, timing):
    """Answers to all prompts, in their order, resumed where a run before stopped."""
    answers = Predictions(run, f"{stage}-answers", len(prompts), timing)
    generation.generate(
        model, encoder, prompts, run.settings["max_new_tokens"], run.settings["inference_batch_size"],
        answers.add, answers.done, label=f"{stage} model writes",
        decoding=run.settings.get("decoding"), seed=run.args.seed,
    )  # fmt: skip
    return answers.rows


class Timing:
    """Seconds of every batch and rows in it, for the record's `inference` block."""

    def __init__(self):
        self.batches, self.tokens = [], None

    def block(self, n):
        """latency: how long a row waits for its batch; batch_size: rows of the largest. Tokens per second count written
        tokens only."""
        if not self.batches:
            return dict.fromkeys(
                ("seconds", "samples_per_second", "tokens_per_second", "latency_p50_s", "latency_p90_s", "batch_size")
            )
        waits = sorted(seconds for seconds, rows in self.batches for _ in range(rows))
        total = sum(seconds for seconds, _ in self.batches)
        return {
            "seconds": total,
            "samples_per_second": n / total,
            "tokens_per_second": self.tokens / total if self.tokens is not None else None,
            "latency_p50_s": waits[len(waits) // 2],
            "latency_p90_s": waits[min(len(waits) - 1, int(len(waits) * 0.9))],
            "batch_size": max(rows for _, rows in self.batches),
        }


class Predictions:
    """What a stage found, row by row, in a file that survives a kill.

    rows: one dictionary a test row, in the rows' order, complete once every batch was added.
    done: numbers of the rows that an earlier, interrupted part of this run finished.
    """

    def __init__(self, run, name, n, timing):
        self.rows, self.timing = [None] * n, timing
        self.path = run.folder / f"predictions-{name}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not run.args.resume:
            self.path.unlink(missing_ok=True)
        whole = self._read() if self.path.exists() else ""
        self.path.write_text(whole, encoding="utf-8")  # drops a line that a kill cut short
        self.done = frozenset(i for i, row in enumerate(self.rows) if row is not None)

    def _read(self):
        whole = ""
        for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            batch = json.loads(line)
            self._place(batch["rows"], batch["found"], batch["seconds"])
            whole += line
        return whole

    def add(self, rows, found, seconds):
        """Keep one batch: a line of the file is a batch, so a batch is there whole or not at all."""
        self._place(rows, found, seconds)
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"rows": rows, "seconds": seconds, "found": found}, ensure_ascii=False) + "\n")

    def _place(self, rows, found, seconds):
        for row, value in zip(rows, found, strict=True):
            self.rows[row] = value
        self.timing.batches.append((seconds, len(rows)))
        if "tokens" in found[0]:
            self.timing.tokens = (self.timing.tokens or 0) + sum(row["tokens"] for row in found)
