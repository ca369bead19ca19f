"""Texts and dialogues as an encoder takes them: token ids, special tokens included."""

from common import console
from common.encoders import extraction


class Reader:
    """Encodes the rows of one run. truncated: {split: rows that were cut}, filled by `training_rows` and `inputs`.

    tokenizer: qlora.tokenizer's. It is set to pad on the right, because an encoder counts positions from the row's
    start, padding included.
    template: the folder's encoding.Template; settings: settings.Settings (max_document_tokens, cut, picks).
    """

    def __init__(self, tokenizer, template, settings):
        tokenizer.padding_side = "right"
        self.tokenizer, self.template, self.truncated = tokenizer, template, {}
        self.longest, self.cut, self.picks = settings.max_document_tokens, settings.cut, settings.picks

    def training_rows(self, rows, labels, split):
        """[{"input_ids", "labels"}]. labels: class names; "labels" is then the number of the row's class. Without
        them it is 1 for every token of an utterance that the oracle picks and 0 for all others."""
        ids, spans = self.inputs(rows, labels, split)
        if labels:
            number = {label: i for i, label in enumerate(labels)}
            answers = [number[row["target"]] for row in rows]
        else:
            answers = [
                [label for label, (start, end) in zip(of_row, spans_of_row, strict=True) for _ in range(end - start)]
                for of_row, spans_of_row in zip(self.oracle_labels(rows, spans), spans, strict=True)
            ]
        return [{"input_ids": each, "labels": answer} for each, answer in zip(ids, answers, strict=True)]

    def inputs(self, rows, labels, split):
        """(ids of every row, spans of every row): (start, end) of each utterance, or None where texts are classed."""
        if labels:
            encoded = [(ids, None, was_cut) for ids, was_cut in (self.text(row["text"]) for row in rows)]
        else:
            encoded = [self.dialogue(extraction.utterances(row["text"])) for row in rows]
        self.truncated[split] = sum(was_cut for _, _, was_cut in encoded)
        return [ids for ids, _, _ in encoded], [spans for _, spans, _ in encoded]

    def text(self, text):
        """(ids of one text, whether it was cut). A long text loses its end or, where `cut` is "middle", its middle: a
        quarter of what is read is then the beginning and the rest the end, where reviews conclude (Sun et al. 2019,
        arXiv 1905.05583)."""
        ids = self._ids(text)
        over = len(ids) - self.longest
        if over <= 0:
            return ids, False
        start = self.longest // 4 if self.cut == "middle" else self.longest - 1
        return ids[:start] + ids[start + over :], True

    def dialogue(self, turns):
        """(ids, spans, whether it was cut): every utterance between [CLS] and [SEP]. Utterances that do not fit are
        left out; the first one is always read, cut if need be."""
        ids, spans = [], []
        for turn in turns:
            more = self._ids(turn)
            if len(ids) + len(more) > self.longest:
                if not ids:
                    ids = [*more[: self.longest - 1], more[-1]]
                    spans = [(0, len(ids))]
                return ids, spans, True
            spans.append((len(ids), len(ids) + len(more)))
            ids = ids + more
        return ids, spans, False

    def oracle_labels(self, rows, spans):
        """[[1 or 0 an utterance that was read]] of every dialogue: whether the oracle picks it."""
        labels = []
        bar = console.progress(len(rows), "oracle summaries")
        for row, spans_of_row in zip(rows, spans, strict=True):
            read = extraction.utterances(row["text"])[: len(spans_of_row)]
            picked = extraction.oracle(read, row["target"], self.picks)
            labels.append([int(i in picked) for i in range(len(read))])
            bar.update(1)
        bar.close()
        return labels

    def _ids(self, text):
        return self.tokenizer(self.template.text.replace("{document}", text))["input_ids"]
