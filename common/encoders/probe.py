"""What an encoder knows without fine-tuning: its frozen features under a logistic regression. And a dummy, which does
not look at the texts."""

import collections

from common.encoders import extraction, heads

TRAINING = "features of the training rows"  # a part of a stage, by its name


def features(encoder, reader, ids, spans, settings, execution, timing):
    """An array of shape (1, width) a text, or (utterances, width) a dialogue: the last hidden state at [CLS], or its
    mean over the text or utterance, as settings.pooling says. ids, spans: Reader.inputs'. timing: evaluation.Timing
    that gets the seconds."""
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
    """A logistic regression on the frozen encoder's features, fitted on the training rows: the test rows' classes, or
    for every utterance of them the log-probability of being picked."""
    import numpy
    from sklearn.linear_model import LogisticRegression

    encoder = frozen(checkpoint)
    ids, spans = reader.inputs(data.train, data.labels, "train")
    if data.labels:
        targets = [row["target"] for row in data.train]
    else:
        targets = [label for of_row in reader.oracle_labels(data.train, spans) for label in of_row]
    test_ids, test_spans = reader.inputs(data.test, data.labels, "test")
    if len(set(targets)) == 1:  # nothing to fit: few rows of one class, or dialogues of which every turn is picked
        return targets[:1] * len(test_ids) if data.labels else [[0.0] * len(each) for each in test_spans]
    train = features(encoder, reader, ids, spans, settings, execution, timing.beside(TRAINING))
    test = features(encoder, reader, test_ids, test_spans, settings, execution, timing)
    regression = LogisticRegression(max_iter=2000, random_state=settings.seed)
    regression.fit(numpy.concatenate(train), targets)
    if data.labels:
        return regression.predict(numpy.concatenate(test)).tolist()
    return [regression.predict_log_proba(array)[:, 1].tolist() for array in test]


def frozen(checkpoint):
    """The encoder as it was published, without a head, in float32."""
    import transformers

    return heads.placed(heads.whole(transformers.AutoModel, checkpoint))


def dummy(data):
    """What `probe` returns, without a look at the texts: the most frequent class, or scores that fall with the
    utterance's number."""
    if not data.labels:
        return [range(0, -len(extraction.utterances(row["text"])), -1) for row in data.test]
    counts = collections.Counter(row["target"] for row in data.train)
    return [max(sorted(counts), key=counts.__getitem__)] * len(data.test)
