"""The test stage of encoders: the tuned model beside the untrained encoder, and answers to single texts."""

from common import evaluation, metrics
from common.console import InputError, warn
from common.encoders import contrastive, extraction, heads, probe


def labels(model, reader, data, settings, execution, checkpoint):
    """Test stage of classification. model: the tuned one. "base" is a logistic regression on the features of the
    untrained encoder (`checkpoint`), fitted on the same training rows. Returns the same as evaluation.labels."""

    def score(stage, timing):
        if stage == "base":
            predicted = probe.probe(checkpoint, reader, data, settings, execution, timing)
        else:
            scores = outputs(model, reader, data, execution, timing)
            predicted = evaluation.argmax_label(data.labels, scores)
        return evaluation.classes(data, predicted)

    return evaluation.stages(execution, len(data.test), score)


def summaries(model, reader, data, settings, execution, checkpoint):
    """Test stage of extractive summarization. Arguments and result are those of `labels`."""

    def score(stage, timing):
        if stage == "base":
            scores = probe.probe(checkpoint, reader, data, settings, execution, timing)
        else:
            scores = outputs(model, reader, data, execution, timing)
        return extracts(data, scores, settings.picks), None

    return evaluation.stages(execution, len(data.test), score)


def baseline(checkpoint, reader, data, settings, execution):
    """Test stage of a model without fine-tuning. settings.baseline: "frozen-features", "tfidf", "setfit", or "dummy"
    (the most frequent class, or the first utterances). Returns the same as `labels`."""

    def score(stage, timing):
        if settings.baseline == "dummy":
            predicted = probe.dummy(data)
        elif settings.baseline == "setfit":
            predicted = contrastive.classes(checkpoint, reader, data, settings, execution, timing)
        else:
            predicted = probe.probe(checkpoint, reader, data, settings, execution, timing)
        return evaluation.classes(data, predicted) if data.labels else (extracts(data, predicted, settings.picks), None)

    return evaluation.stages(execution, len(data.test), score)


def extracts(data, scores, picks):
    """ROUGE of the test rows' summaries of `picks` utterances with the highest scores. scores: a list a row."""
    dialogues = [extraction.utterances(row["text"]) for row in data.test]
    extracted = [extraction.summary(turns, values, picks) for turns, values in zip(dialogues, scores, strict=True)]
    return metrics.rouge(extracted, [row["target"] for row in data.test])


def outputs(model, reader, data, execution, timing):
    """A list for every test row: the log-probability of every class, or for every utterance that of being picked."""
    rows, spans = reader.inputs(data.test, data.labels, "test")
    predictions = evaluation.Predictions(execution, "tuned-scores", len(rows), timing)
    sizes = [len(data.labels) if data.labels else len(row_spans) for row_spans in spans]
    done = {row for row in predictions.done if len(predictions.rows[row]["scores"]) == sizes[row]}

    def convert(number, logits):
        return {"scores": utterance_scores(logits, spans[number]) if spans[number] else logits.log_softmax(-1).tolist()}

    heads.read(model, reader, rows, logits_of, convert, execution, predictions.add, done, "tuned model reads")
    return [row["scores"] for row in predictions.rows]


def logits_of(output):
    return output.logits


def utterance_scores(logits, spans):
    """Every utterance's score: the mean over its tokens of the log-probability of being picked. logits: (tokens, 2)."""
    picked = logits.log_softmax(-1)[:, 1]
    return [picked[start:end].mean().item() for start, end in spans]


def answer(model, reader, text, labels, execution):
    """The answer of a trained encoder to one text: the three likeliest classes with their probability, a line each;
    without `labels`, the utterances that it picks."""
    if not text.strip():
        raise InputError("--text has nothing to read")
    turns = extraction.utterances(text)
    if labels:
        (ids, was_cut), spans = reader.text(text), None
    else:
        ids, spans, was_cut = reader.dialogue(turns)
    if was_cut:
        warn(f"the text is longer than {reader.longest} tokens and was cut")
    rows = []
    keep = lambda numbers, values, seconds: rows.extend(values)  # noqa: E731
    heads.read(model, reader, [ids], logits_of, lambda number, logits: logits, execution, keep)
    if not labels:
        return extraction.summary(turns, utterance_scores(rows[0], spans), reader.picks)
    ranked = sorted(zip(rows[0].softmax(-1).tolist(), labels, strict=True), reverse=True)[:3]
    return "\n".join(f"{label}  {share:.1%}" for share, label in ranked)
