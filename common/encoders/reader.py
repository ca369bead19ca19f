"""Turns texts and dialogues into token ids for an encoder, special tokens included."""

from common import console, encoding
from common.encoders import extraction


class Reader:
    """Encodes the rows of one run. truncated: {split: number of rows cut}, set by `training_rows` and `inputs`.

    tokenizer: from qlora.tokenizer. It is set to pad on the right, because an encoder counts positions from the row's
    start, padding included.
    template: the folder's encoding.Template; settings: settings.Settings (max_document_tokens, cut, picks).
    """

    def __init__(self, tokenizer, template, settings):
        tokenizer.padding_side = "right"
        self.tokenizer, self.template, self.truncated = tokenizer, template, {}
        self._text = encoding.text_alone(tokenizer)
        self.longest, self.cut, self.picks = settings.max_document_tokens, settings.cut, settings.picks

    def training_rows(self, rows, labels, split):
        """[{"input_ids", "labels"}] of every row. With class names `labels`, "labels" is the number of the row's class.
        Without, it has 1 for every token of an utterance that the oracle picks and 0 for all other tokens."""
        ids, spans = self.inputs(rows, labels, split)
        if labels:
            class_number = {label: i for i, label in enumerate(labels)}
            targets = [class_number[row["target"]] for row in rows]
        else:
            targets = [
                [label for label, (start, end) in zip(row_labels, row_spans, strict=True) for _ in range(end - start)]
                for row_labels, row_spans in zip(self.oracle_labels(rows, spans), spans, strict=True)
            ]
        return [{"input_ids": row_ids, "labels": target} for row_ids, target in zip(ids, targets, strict=True)]

    def inputs(self, rows, labels, split):
        """(ids of every row, spans of every row). Spans are (start, end) of each utterance; None with class names."""
        if labels:
            encoded = [(ids, None, was_cut) for ids, was_cut in (self.text(row["text"]) for row in rows)]
        else:
            encoded = [self.dialogue(extraction.utterances(row["text"])) for row in rows]
        self.truncated[split] = sum(was_cut for _, _, was_cut in encoded)
        return [ids for ids, _, _ in encoded], [spans for _, spans, _ in encoded]

    def text(self, text):
        """(ids of one text, whether it was cut). A long text loses its end or, if `cut` is "middle", its middle: a
        quarter of the ids then come from the beginning and the rest from the end, where reviews conclude (Sun et al.
        2019, arXiv 1905.05583)."""
        ids = self._ids(text)
        excess = len(ids) - self.longest
        if excess <= 0:
            return ids, False
        start = self.longest // 4 if self.cut == "middle" else self.longest - 1
        return ids[:start] + ids[start + excess :], True

    def dialogue(self, turns):
        """(ids, spans, whether it was cut) of a dialogue, with every utterance between [CLS] and [SEP]. Utterances that
        do not fit are left out; the first one is cut instead."""
        ids, spans = [], []
        for turn in turns:
            turn_ids = self._ids(turn)
            if len(ids) + len(turn_ids) > self.longest:
                if not ids:
                    ids = [*turn_ids[: self.longest - 1], turn_ids[-1]]
                    spans = [(0, len(ids))]
                return ids, spans, True
            spans.append((len(ids), len(ids) + len(turn_ids)))
            ids = ids + turn_ids
        return ids, spans, False

    def oracle_labels(self, rows, spans):
        """For every dialogue a list with 1 or 0 per utterance that was read: whether the oracle picks it."""
        labels = []
        bar = console.progress(len(rows), "oracle summaries")
        for row, row_spans in zip(rows, spans, strict=True):
            turns = extraction.utterances(row["text"])[: len(row_spans)]
            picked = extraction.oracle(turns, row["target"], self.picks)
            labels.append([int(i in picked) for i in range(len(turns))])
            bar.update(1)
        bar.close()
        return labels

    def _ids(self, text):
        return self.tokenizer(self.template.text.replace("{document}", self._text(text)))["input_ids"]
