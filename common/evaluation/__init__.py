"""The test stage: base model and tuned model by the same prompts, decoding and scorer.

The base model is the tuned one with its adapter disabled: the same weights in the same process. Predictions are written
batch by batch (predictions-*.jsonl), so that a resumed test goes on where it stopped.
"""

import contextlib

from common import batched_forward, console, encoding, files, generation, metrics, qlora, scoring
from common.evaluation import calibration
from common.evaluation.kept import Predictions, Timing, is_answer, rows_apart, scores_of

FREE = "free answers"  # name of the part of a stage that generates beside label scoring
CALIBRATION = "calibration"  # and of the one that scores the validation rows


def labels(model, encoder, data, settings, execution):
    """Test stage of classification: every label is scored by log-likelihood; free answers are generated beside it.

    encoder: from encoding.prompter. execution.stages says which models are tested. Returns {"base": metrics | None,
    "tuned": metrics | None, "inference": block of the record, "confusion": {stage: metrics.confusion} | None,
    "row_scores": {stage: rows_apart}}.
    """

    def score(stage, prompts, timing):
        label_scores = scores_of_labels(model, encoder, prompts, f"{stage}-labels", execution, timing)
        answers = generate(model, encoder, prompts, stage, settings, execution, timing.beside(FREE))
        texts, truth = [row["text"] for row in answers], [row["target"] for row in data.test]
        scores, confusion = classes(data, argmax_label(data.labels, label_scores))
        scores |= metrics.outcomes(texts, truth, data.labels)

        def score_others(rows):
            prompts = encoding.prompts(encoder, rows, "validation")
            return scores_of_labels(model, encoder, prompts, "validation", execution, timing.beside(CALIBRATION))

        if stage == "tuned":
            scores |= calibration.calibrated(data, execution, label_scores, score_others)
        if len(data.labels) == 2:
            scores |= metrics.generated(texts, truth, data.labels)
        return scores, confusion

    return prompted(model, encoder, data, execution, score)


def random_head(checkpoint, encoder, data, settings, execution):
    """Test stage of an untrained classification head on the untrained model, which is at chance. Returns the same as
    `labels`."""
    import torch
    import transformers

    transformers.set_seed(settings.seed)
    auto, pad_id = transformers.AutoModelForSequenceClassification, encoder.tokenizer.pad_token_id
    keywords = {"num_labels": len(data.labels), "pad_token_id": pad_id}
    model = qlora.quantised(auto, checkpoint, execution.precision, ["score"], **keywords)
    qlora.assert_quantised(model, [model.score])

    def score(stage, prompts, timing):
        predictions = Predictions(execution, f"{stage}-head", len(prompts), timing, scores_of(data.labels))

        def forward(rows):
            ids, mask = batched_forward.pad_left([prompts[row] for row in rows], pad_id, model.device)
            with torch.inference_mode():
                logits = batched_forward.check_numbers(model(input_ids=ids, attention_mask=mask).logits.float())
            return [{"scores": row} for row in logits.tolist()]

        lengths, batch_size = [len(prompt) for prompt in prompts], execution.inference_batch_size
        batched_forward.run(lengths, batch_size, forward, predictions.add, predictions.done, "random head reads")
        return classes(data, argmax_label(data.labels, [row["scores"] for row in predictions.rows]))

    return prompted(model, encoder, data, execution, score)


def summaries(model, encoder, data, settings, execution):
    """Test stage of summarization: ROUGE, and the share of answers that ended by themselves.

    Returns the same as `labels`.
    """

    def score(stage, prompts, timing):
        answers = generate(model, encoder, prompts, stage, settings, execution, timing)
        scores = metrics.rouge([row["text"] for row in answers], [row["target"] for row in data.test])
        return scores | {"stopped": metrics.share([row["stopped"] for row in answers])}, None

    return prompted(model, encoder, data, execution, score)


def instructions(model, encoder, data, settings, execution):
    """Test stage of instructions: BLEU, ROUGE, BERTScore and length of the answers without their prompts. echo_* are
    the same metrics of the prompt in place of an answer. All answers are written to answers.jsonl.

    Returns the same as `labels`.
    """
    references, prompts_as_text = (
        [row["target"] for row in data.test],
        [encoder.template.document(row) for row in data.test],
    )
    echo = {}

    def score(stage, prompts, timing):
        predictions = generate(model, encoder, prompts, stage, settings, execution, timing)
        answers = [row["text"] for row in predictions]
        lines = zip(prompts_as_text, references, answers, strict=True)
        rows = [dict(zip(("prompt", "reference", "answer"), line, strict=True)) for line in lines]
        files.write_lines(execution.folder / "answers.jsonl", rows)
        scores = metrics.responses(answers, references, settings.bertscore_model)
        if not echo:  # the same for the base model and the tuned one
            echo_scores = metrics.responses(prompts_as_text, references, settings.bertscore_model)
            echo.update({f"echo_{name}": value for name, value in echo_scores.items()})
        return scores | {"stopped": metrics.share([row["stopped"] for row in predictions])} | echo, None

    return prompted(model, encoder, data, execution, score)


def of_task(task, model, encoder, data, settings, execution):
    """Run the test stage of a task, as --task_type names it. Returns the same as `labels`."""
    stage = {"classification": labels, "sentiment": labels, "summarization": summaries, "instructions": instructions}
    return stage[task](model, encoder, data, settings, execution)


def scores_of_labels(model, encoder, prompts, name, execution, timing):
    """The log-likelihood of each of encoder.labels after every prompt, shape (prompts, labels), by `Predictions`."""
    predictions = Predictions(execution, name, len(prompts), timing, scores_of(encoder.labels))

    def keep(rows, scores, seconds):
        predictions.add(rows, [{"scores": row} for row in scores], seconds)

    batch_size = execution.inference_batch_size
    scoring.score_labels(model, encoder, prompts, encoder.labels, batch_size, keep, predictions.done)
    return [row["scores"] for row in predictions.rows]


def answers(model, encoder, questions, settings, execution):
    """What a trained adapter says to each of questions.rows: [{"answer": text, "probabilities"}]. With encoder.labels
    the answer is the likeliest, and probabilities has them all, {label: share}; without it is None."""
    prompts, timing = encoding.prompts(encoder, questions.rows, "input"), Timing()
    warn_of_cuts(encoder.truncated["input"], len(prompts), settings.max_document_tokens)
    if not encoder.labels:
        written = generate(model, encoder, prompts, "tuned", settings, execution, timing)
        return [{"answer": row["text"], "probabilities": None} for row in written]
    scores = scores_of_labels(model, encoder, prompts, "tuned-labels", execution, timing)
    return ranked(encoder.labels, scores, questions.temperature)


def ranked(labels, scores, temperature):
    """The `answers` of rows with these scores: the first of equally likely labels."""
    shares = calibration.probabilities(scores, temperature).tolist() if scores else []
    likeliest = argmax_label(labels, scores)
    return [
        {"answer": label, "probabilities": dict(zip(labels, row, strict=True))}
        for label, row in zip(likeliest, shares, strict=True)
    ]


def warn_of_cuts(cut, total, longest):
    if cut:
        which, were = ("the text is", "was") if total == 1 else (f"{cut} of {total} texts are", "were")
        console.warn(f"{which} longer than {longest} tokens and {were} cut")


def argmax_label(labels, scores):
    """The label with the highest score of every row; the first of equal ones. scores: shape (rows, labels)."""
    return [labels[max(range(len(row)), key=row.__getitem__)] for row in scores]


def classes(data, predicted):
    """(metrics, confusion matrix) of the predicted class of every test row."""
    truth = [row["target"] for row in data.test]
    return metrics.classification(predicted, truth, data.labels), metrics.confusion(predicted, truth, data.labels)


def prompted(model, encoder, data, execution, score):
    """`stages` of a causal model. score(stage, prompts, timing) runs with the adapter disabled for the base model."""
    prompts = encoding.prompts(encoder, data.test, "test")

    def score_stage(stage, timing):
        without_adapter = stage == "base" and hasattr(model, "disable_adapter")
        with model.disable_adapter() if without_adapter else contextlib.nullcontext():
            return score(stage, prompts, timing)

    return stages(execution, len(prompts), score_stage)


def stages(execution, n, score):
    """Test the base model, the tuned model, or both, as execution.stages says.

    score(stage, timing) returns (metrics, confusion or None) of the `n` test rows. Returns the same as `labels`. The
    "inference" block is of the last stage; its "stages" has the seconds of every stage and part, by name.
    """
    results, confusions, rows, seconds = {"base": None, "tuned": None}, {}, {}, {}
    for stage in execution.stages:
        timing = Timing()
        results[stage], confusion = score(stage, timing)
        rows[stage] = rows_apart(results[stage])
        if confusion:
            confusions[stage] = confusion
        seconds |= timing.seconds(stage)
    inference = {**timing.block(n), "stages": seconds}
    return {**results, "inference": inference, "confusion": confusions or None, "row_scores": rows}


def generate(model, encoder, prompts, stage, settings, execution, timing):
    """The answers to all prompts, in their order. A resumed run generates only the missing ones."""
    predictions = Predictions(execution, f"{stage}-answers", len(prompts), timing, is_answer)
    batch_size, options = execution.inference_batch_size, {"decoding": settings.decoding, "seed": settings.seed}
    options |= {"done": predictions.done, "label": f"{stage} model writes"}
    generation.generate(model, encoder, prompts, settings.max_new_tokens, batch_size, predictions.add, **options)
    return predictions.rows
