"""Baselines without fine-tuning: a logistic regression on the encoder's frozen features, and a dummy that does not read
the texts."""

import collections

from common.encoders import extraction, heads

TRAINING = "features of the training rows"  # name of this part of a stage


def features(encoder, reader, ids, spans, settings, execution, timing):
    """Frozen features: an array of shape (1, width) per text, or (utterances, width) per dialogue. They are the last
    hidden state at [CLS], or its mean over the text or utterance, as settings.pooling says. ids, spans: from
    Reader.inputs. timing: the evaluation.Timing that counts the seconds."""
    import numpy

    arrays = [None] * len(ids)

    def pool(number, states):
        parts = spans[number] or [(0, len(ids[number]))]
        if settings.pooling == "cls":
            return states[[start for start, _ in parts]].cpu().numpy()
        return numpy.stack([states[start:end].mean(0).cpu().numpy() for start, end in parts])

    def keep(numbers, batch, seconds):
        timing.batches.append((seconds, len(numbers)))
        for number, array in zip(numbers, batch, strict=True):
            arrays[number] = array

    heads.read(
        encoder, reader, ids, lambda out: out.last_hidden_state, pool, execution, keep, label="frozen encoder reads"
    )
    return arrays


def probe(checkpoint, reader, data, settings, execution, timing):
    """Predictions of a logistic regression on the frozen features, fitted on the training rows: the class of every test
    row, or for every utterance of it the log-probability of being picked."""
    import numpy
    from sklearn.linear_model import LogisticRegression

    encoder = frozen(checkpoint)
    ids, spans = reader.inputs(data.train, data.labels, "train")
    if data.labels:
        targets = [row["target"] for row in data.train]
    else:
        targets = [label for row_labels in reader.oracle_labels(data.train, spans) for label in row_labels]
    test_ids, test_spans = reader.inputs(data.test, data.labels, "test")
    if len(set(targets)) == 1:  # nothing to fit: all rows are of one class, or every turn is picked
        return targets[:1] * len(test_ids) if data.labels else [[0.0] * len(row_spans) for row_spans in test_spans]
    train = features(encoder, reader, ids, spans, settings, execution, timing.beside(TRAINING))
    test = features(encoder, reader, test_ids, test_spans, settings, execution, timing)
    regression = LogisticRegression(max_iter=2000, random_state=settings.seed)
    regression.fit(numpy.concatenate(train), targets)
    if data.labels:
        return regression.predict(numpy.concatenate(test)).tolist()
    return [regression.predict_log_proba(array)[:, 1].tolist() for array in test]


def frozen(checkpoint):
    """The published encoder without a head, in float32 and in eval mode."""
    import transformers

    return heads.placed(heads.whole(transformers.AutoModel, checkpoint))


def dummy(data):
    """Predictions as `probe` returns them, without reading the texts: the most frequent class, or scores that fall with
    the utterance's number."""
    if not data.labels:
        return [range(0, -len(extraction.utterances(row["text"])), -1) for row in data.test]
    counts = collections.Counter(row["target"] for row in data.train)
    return [max(sorted(counts), key=counts.__getitem__)] * len(data.test)
