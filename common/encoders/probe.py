"""Baselines without fine-tuning: a logistic regression on the encoder's frozen features or on TF-IDF, and a dummy that
does not read the texts."""

import collections
import time
from pathlib import Path

from common import checkpoints, encoding, evaluation, qlora
from common.encoders import extraction, heads
from common.encoders.reader import Reader
from common.settings import Execution, Settings

TRAINING = "features of the training rows"  # names of these parts of a stage
FIT = "regression"
TFIDF_STRENGTH = 20.0  # inverse regularisation of a regression on TF-IDF, whose values are small


def features(encoder, reader, ids, spans, settings, execution, timing):
    """Frozen features: an array of shape (texts or utterances, width). They are the last hidden state at [CLS], or its
    mean over the text or utterance, as settings.pooling says. ids, spans: from Reader.inputs. timing: the
    evaluation.Timing that counts the seconds."""
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
    return numpy.concatenate(arrays)


def embedded(texts, tokens, checkpoint="minilm"):
    """Features of texts by the embedded encoder, an array of shape (texts, width): the mean of the last hidden states
    of at most `tokens` tokens, in float32."""
    checkpoint = checkpoints.find(checkpoint)
    settings = Settings(max_document_tokens=tokens, cut="end", pooling="mean")
    read = Reader(qlora.tokenizer(checkpoint), encoding.Template("{document}"), settings)
    ids, spans = read.inputs([{"text": text} for text in texts], ["a"], "test")
    execution = Execution(folder=Path("nowhere"))
    return features(frozen(checkpoint), read, ids, spans, settings, execution, evaluation.Timing())


def probe(checkpoint, reader, data, settings, execution, timing):
    """Predictions of a logistic regression fitted on the training rows: the class of every test row, or for every
    utterance of it the log-probability of being picked. It sees frozen features, or TF-IDF if settings.baseline says
    so."""
    ids, spans = reader.inputs(data.train, data.labels, "train")
    if data.labels:
        targets = [row["target"] for row in data.train]
    else:
        targets = [label for row_labels in reader.oracle_labels(data.train, spans) for label in row_labels]
    test_ids, test_spans = reader.inputs(data.test, data.labels, "test")
    if len(set(targets)) == 1:  # nothing to fit: all rows are of one class, or every turn is picked
        return targets[:1] * len(test_ids) if data.labels else [[0.0] * len(row_spans) for row_spans in test_spans]
    began, strength = time.monotonic(), 1.0
    if settings.baseline == "tfidf":
        train, test = words(texts(data.train, spans), texts(data.test, test_spans), pairs=len(data.labels) == 2)
        strength = TFIDF_STRENGTH
    else:
        encoder = frozen(checkpoint)
        train = features(encoder, reader, ids, spans, settings, execution, timing.beside(TRAINING))
        test = features(encoder, reader, test_ids, test_spans, settings, execution, timing)
        began = time.monotonic()
    fitted = regression(settings, strength).fit(train, targets)
    timing.beside(FIT).batches.append((time.monotonic() - began, len(data.train)))
    if data.labels:
        return fitted.predict(test).tolist()
    scores = iter(fitted.predict_log_proba(test)[:, 1].tolist())
    return [[next(scores) for _ in row_spans] for row_spans in test_spans]


def regression(settings, strength=1.0):
    """sklearn's logistic regression, not fitted. strength: inverse of the regularisation."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=2000, random_state=settings.seed)


def of_words(data, seed):
    """The class of every test row by TF-IDF and a logistic regression: what `probe` returns for settings.baseline
    "tfidf", without a tokenizer or an encoder. Raises ValueError for texts without a word."""
    targets = [row["target"] for row in data.train]
    if len(set(targets)) == 1:
        return targets[:1] * len(data.test)
    train, test = words(*([row["text"] for row in rows] for rows in (data.train, data.test)), len(data.labels) == 2)
    fitted = regression(Settings(seed=seed), TFIDF_STRENGTH).fit(train, targets)
    return fitted.predict(test).tolist()


def texts(rows, spans):
    """The whole texts of rows, or the utterances of dialogues that have a span."""
    flat = []
    for row, own in zip(rows, spans, strict=True):
        flat += extraction.utterances(row["text"])[: len(own)] if own else [row["text"]]
    return flat


def words(train, test, pairs):
    """TF-IDF matrices of training and test texts: of words, with `pairs` also of two neighbouring ones."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2 if pairs else 1))
    return vectorizer.fit_transform(train), vectorizer.transform(test)


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
