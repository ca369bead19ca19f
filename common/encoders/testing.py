"""The test stage of encoders: the tuned model beside the untrained encoder, and answers to single texts."""

from common import evaluation, metrics
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
        found, confusion = evaluation.classes(data, predicted)
        if stage == "tuned":

            def score_others(rows):
                beside = timing.beside(evaluation.CALIBRATION)
                return read_all(model, reader, rows, data.labels, "validation", execution, beside)

            found |= evaluation.calibration.calibrated(data, execution, scores, score_others)
        return found, confusion

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
    """`read_all` of the test rows."""
    return read_all(model, reader, data.test, data.labels, "test", execution, timing)


def read_all(model, reader, texts, labels, split, execution, timing):
    """A list for every row: the log-probability of every class, or for every utterance that of being picked."""
    rows, spans = reader.inputs(texts, labels, split)
    name = "tuned-scores" if split == "test" else f"tuned-scores-{split}"
    predictions = evaluation.Predictions(execution, name, len(rows), timing)
    sizes = [len(labels) if labels else len(row_spans) for row_spans in spans]
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


def answers(model, reader, questions, labels, execution):
    """What a trained encoder says to each of questions.rows, as evaluation.answers returns it: its likeliest class and
    the probability of each, or without `labels` the utterances that it picks."""
    scores = read_all(model, reader, questions.rows, labels, "input", execution, evaluation.Timing())
    evaluation.warn_of_cuts(reader.truncated["input"], len(scores), reader.longest)
    if labels:
        return evaluation.ranked(labels, scores, questions.temperature)
    dialogues = [extraction.utterances(row["text"]) for row in questions.rows]
    pairs = zip(dialogues, scores, strict=True)
    return [
        {"answer": extraction.summary(turns, values, reader.picks), "probabilities": None} for turns, values in pairs
    ]
