"""The test stage: base model and tuned model by the same prompts, decoding and scorer.

The base model is the tuned one with its adapter switched off: the same weights in the same process. Finished rows are
kept as they come (predictions-*.jsonl), so an interrupted test goes on where it stopped.
"""

import contextlib
import math

from common import batched_forward, console, encoding, files, generation, metrics, qlora, scoring
from common.evaluation.kept import Predictions, Timing, is_answer, scores_of

FREE = "free answers"  # what is written beside the labels that are scored: a part of a stage, by its name


def labels(model, encoder, data, settings, execution):
    """Classification: all labels scored by log-likelihood, with free generation beside it.

    encoder: encoding.prompter's. Returns {"base": metrics | None, "tuned": metrics | None, "inference": block of the
    record, "confusion": {stage: metrics.confusion} | None}; which stages are scored, execution.stages says.
    """

    def score(stage, prompts, timing):
        predictions = Predictions(execution, f"{stage}-labels", len(prompts), timing, scores_of(data.labels))
        size = execution.inference_batch_size

        def keep(rows, scores, seconds):
            predictions.add(rows, [{"scores": row} for row in scores], seconds)

        scoring.score_labels(model, encoder, prompts, data.labels, size, keep, predictions.done)
        written = generate(model, encoder, prompts, stage, settings, execution, timing.beside(FREE))
        texts, truth = [row["text"] for row in written], [row["target"] for row in data.test]
        scores, confusion = classes(data, argmax_label(data.labels, [row["scores"] for row in predictions.rows]))
        scores |= metrics.outcomes(texts, truth, data.labels)
        if len(data.labels) == 2:
            scores |= metrics.generated(texts, truth, data.labels)
        return scores, confusion

    return prompted(model, encoder, data, execution, score)


def random_head(checkpoint, encoder, data, settings, execution):
    """A classification head that nobody trained, on the untrained model: chance, and what it looks like. Returns the
    same as `labels`."""
    import torch
    import transformers

    transformers.set_seed(settings.seed)
    auto, pad = transformers.AutoModelForSequenceClassification, encoder.tokenizer.pad_token_id
    keywords = {"num_labels": len(data.labels), "pad_token_id": pad}
    model = qlora.quantised(auto, checkpoint, execution.precision, ["score"], **keywords)
    qlora.assert_quantised(model, [model.score])

    def score(stage, prompts, timing):
        predictions = Predictions(execution, f"{stage}-head", len(prompts), timing, scores_of(data.labels))

        def work(rows):
            ids, mask = batched_forward.pad_left([prompts[row] for row in rows], pad, model.device)
            with torch.inference_mode():
                logits = batched_forward.check_numbers(model(input_ids=ids, attention_mask=mask).logits.float())
            return [{"scores": row} for row in logits.tolist()]

        lengths, size = [len(prompt) for prompt in prompts], execution.inference_batch_size
        batched_forward.run(lengths, size, work, predictions.add, predictions.done, "random head reads")
        return classes(data, argmax_label(data.labels, [row["scores"] for row in predictions.rows]))

    return prompted(model, encoder, data, execution, score)


def summaries(model, encoder, data, settings, execution):
    """Summarization: ROUGE, and the share of summaries that ended on their own. Returns the same as `labels`."""

    def score(stage, prompts, timing):
        written = generate(model, encoder, prompts, stage, settings, execution, timing)
        scores = metrics.rouge([row["text"] for row in written], [row["target"] for row in data.test])
        return scores | {"stopped": metrics.share([row["stopped"] for row in written])}, None

    return prompted(model, encoder, data, execution, score)


def instructions(model, encoder, data, settings, execution):
    """Instructions: one generation pass, then BLEU, ROUGE, BERTScore and length of the responses alone; beside them
    the echo, the score of an answer that repeats the prompt. Every answer stands in answers.jsonl.

    Returns the same as `labels`.
    """
    references, prompts_as_text = [row["target"] for row in data.test], [encoder.document(row) for row in data.test]
    echo = {}

    def score(stage, prompts, timing):
        written = generate(model, encoder, prompts, stage, settings, execution, timing)
        answers = [row["text"] for row in written]
        lines = zip(prompts_as_text, references, answers, strict=True)
        rows = [dict(zip(("prompt", "reference", "answer"), line, strict=True)) for line in lines]
        files.write_lines(execution.folder / "answers.jsonl", rows)
        scores = metrics.responses(answers, references, settings.bertscore_model)
        if not echo:  # the same for the base model and the tuned one
            parrot = metrics.responses(prompts_as_text, references, settings.bertscore_model)
            echo.update({f"echo_{name}": value for name, value in parrot.items()})
        return scores | {"stopped": metrics.share([row["stopped"] for row in written])} | echo, None

    return prompted(model, encoder, data, execution, score)


def of_task(task, model, encoder, data, settings, execution):
    """The test stage of the task that --task_type names."""
    stage = {"classification": labels, "sentiment": labels, "summarization": summaries, "instructions": instructions}
    return stage[task](model, encoder, data, settings, execution)


def answer(model, encoder, text, settings):
    """What a trained adapter answers to one text: the three likeliest of encoder.labels with their share of the
    probability, or without labels what it writes."""
    prompts, results = [encoder.prompt(text, "text")], []
    if encoder.truncated["text"]:
        console.warn(f"the text is longer than {settings.max_document_tokens} tokens and was cut")
    keep = lambda rows, values, seconds: results.extend(values)  # noqa: E731
    if not encoder.labels:
        how = {"decoding": settings.decoding, "seed": settings.seed}
        generation.generate(model, encoder, prompts, settings.max_new_tokens, 1, keep, **how)
        return results[0]["text"]
    scoring.score_labels(model, encoder, prompts, encoder.labels, 1, keep)
    best = max(results[0])
    weights = [math.exp(score - best) for score in results[0]]  # less the best: long labels underflow to 0 of 0
    ranked = sorted(zip(weights, encoder.labels, strict=True), reverse=True)[:3]
    return "\n".join(f"{name}  {weight / sum(weights):.1%} of the labels' probability" for weight, name in ranked)


def argmax_label(labels, scores):
    """The label with the highest score in every row; of equal scores the first."""
    return [labels[max(range(len(row)), key=row.__getitem__)] for row in scores]


def classes(data, predicted):
    """(metrics, confusion matrix) of the classes `predicted` for the test rows."""
    truth = [row["target"] for row in data.test]
    return metrics.classification(predicted, truth, data.labels), metrics.confusion(predicted, truth, data.labels)


def prompted(model, encoder, data, execution, score):
    """`stages` of a model that is prompted. score(stage, prompts, timing) meets the base model with the adapter
    switched off."""
    prompts = encoding.prompts(encoder, data.test, "test")

    def one(stage, timing):
        plain = stage == "base" and hasattr(model, "disable_adapter")
        with model.disable_adapter() if plain else contextlib.nullcontext():
            return score(stage, prompts, timing)

    return stages(execution, len(prompts), one)


def stages(execution, n, score):
    """Test the base model, the tuned model, or both, as execution.stages says.

    score(stage, timing) returns (metrics, confusion or None) of the `n` test rows. Returns what `labels` returns; the
    `inference` block is that of the last stage, and its "stages" holds the seconds of all of them, each part by name.
    """
    results, confusions, seconds = {"base": None, "tuned": None}, {}, {}
    for stage in execution.stages:
        timing = Timing()
        results[stage], confusion = score(stage, timing)
        if confusion:
            confusions[stage] = confusion
        seconds |= timing.seconds(stage)
    return {**results, "inference": {**timing.block(n), "stages": seconds}, "confusion": confusions or None}


def generate(model, encoder, prompts, stage, settings, execution, timing):
    """Answers to all prompts, in their order, resumed where a run before stopped."""
    predictions = Predictions(execution, f"{stage}-answers", len(prompts), timing, is_answer)
    most, how = execution.inference_batch_size, {"decoding": settings.decoding, "seed": settings.seed}
    label = f"{stage} model writes"
    generation.generate(
        model, encoder, prompts, settings.max_new_tokens, most, predictions.add, predictions.done, label, **how
    )
    return predictions.rows
