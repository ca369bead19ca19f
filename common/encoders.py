"""Encoders: models that read and cannot write. A new head on top classes a text, or picks the utterances of a
dialogue that stand for a summary (extractive summarization): it tells of every token whether its utterance is
picked, and an utterance's score is the mean over its tokens. One mark an utterance, as BertSum has it (arXiv
1908.08345), wants far more rows: on 818 dialogues all marks came to look alike.

Beside the fine-tuned encoder stands the same encoder untrained: frozen features under a logistic regression.
"""

import collections

from common import console, evaluation, extraction, loading, machine, metrics, passes, records, training
from common.console import warn


def network(run, labels):
    """The encoder with a head: new from the checkpoint, or the trained one that the run uses.

    labels: class names, for a head that classes texts; empty for one that tells whether an utterance is picked.
    """
    import torch
    import transformers

    auto = transformers.AutoModelForSequenceClassification if labels else transformers.AutoModelForTokenClassification
    keywords = {"num_labels": len(labels) or 2}
    whole = {"dtype": torch.float32, "use_safetensors": True}
    training.seed(run)  # a new head is random
    if run.settings["quantization"]:
        heads = new_modules(loading.reading(auto, run.checkpoint, **whole, **keywords))
        model = loading.quantised(auto, run.checkpoint, run.settings["precision"], heads, **keywords)
        loading.assert_quantised(model, [m for head in heads for m in model.get_submodule(head).modules()])
        model = loading.unpacked(model)
        if run.experiment:
            model = loading.with_adapter(model, run.experiment / "adapter")
    elif run.experiment:
        model = auto.from_pretrained(run.experiment / "model", **whole)
    else:
        model = loading.reading(auto, run.checkpoint, **whole, **keywords)
    if not run.text:
        run.keep_settings()
    return placed(model)


def placed(model):
    """`model` on this process' own device, ready to score."""
    return model.to(machine.device()[""]).eval()


def tune(run, model, data):
    """Train the head and, with it, every weight or an adapter on the 4-bit encoder; save; return what was saved,
    reloaded. With validation rows the best epoch's weights are saved, without the last one's."""
    reader = Reader(run)
    rows = reader.rows(data.train, data.labels)
    run.truncated["train"] = reader.truncated
    if training.finished_before(run):
        return trained(run, data)
    tuned = adapted(run, model) if run.settings["lora_r"] else model
    keep = lambda: save(run, tuned)  # noqa: E731
    held = reader.rows(data.validation, data.labels)
    training.seed(run)
    training.fit(run, tuned, rows, len(data.train), whole_rows, held, keep if held else None)
    if not held:  # else the best epoch stands there
        keep()
    training.finish(run, data.labels)
    return trained(run, data)


def save(run, model):
    model.save_pretrained(run.folder / ("adapter" if run.settings["lora_r"] else "model"), safe_serialization=True)


def adapted(run, model):
    """`model` in a fresh LoRA adapter, its new head trained whole: peft's own list leaves half of some heads random."""
    training.seed(run)
    return loading.new_adapter(model, run.settings, task_type=None, modules_to_save=new_modules(model))


def trained(run, data):
    """The encoder as `tune` saved it."""
    run.experiment = run.folder
    return network(run, data.labels)


def new_modules(model):
    """Names of the modules on top of the pretrained encoder: those beside its base model."""
    return [name for name, _ in model.named_children() if name != model.base_model_prefix and "dropout" not in name]


def whole_rows(run, model, datasets, config, sampler, book):
    """transformers' Trainer for rows of token ids with a class a row, or a class a token."""
    import transformers

    tokenizer = right_padded(run.tokenizer)
    train, validation = datasets
    per_row = isinstance(train[0]["labels"], int)
    pad = transformers.DataCollatorWithPadding if per_row else transformers.DataCollatorForTokenClassification

    class Trainer(transformers.Trainer):
        def _get_train_sampler(self, train_dataset=None):
            return sampler

    def accuracy(found):
        return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}

    config = transformers.TrainingArguments(**config)
    return Trainer(
        model=model,
        args=config,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=pad(tokenizer),
        compute_metrics=accuracy if per_row else None,
        callbacks=[book],
    )


def right_padded(tokenizer):
    """Positions are counted from the row's start, padding included: it has to come last."""
    tokenizer.padding_side = "right"
    return tokenizer


class Reader:
    """Texts as an encoder takes them, and how many were cut."""

    def __init__(self, run):
        self.run, self.tokenizer, self.truncated = run, run.tokenizer, 0
        self.longest = run.settings["max_document_tokens"]

    def rows(self, rows, labels):
        """Training rows: {"input_ids", "labels"}; labels: the class, or for every token 1 if the oracle picks its
        utterance, else 0."""
        if labels:
            place = {label: i for i, label in enumerate(labels)}
            return [{"input_ids": self.text(row["text"]), "labels": place[row["target"]]} for row in rows]
        ids, marks = inputs(self, rows, [])
        found = []
        for each, starts, wanted in zip(ids, marks, oracle_labels(rows, marks), strict=True):
            of_token = [
                label
                for label, (start, end) in zip(wanted, spans(starts, each), strict=True)
                for _ in range(end - start)
            ]
            found.append({"input_ids": each, "labels": of_token})
        return found

    def text(self, text):
        """Ids of one text, special tokens included, cut at the run's document length: behind it or, where the setting
        `cut` says so, in the middle, so that a quarter is the text's beginning and the rest its end, where reviews
        conclude (Sun et al. 2019, arXiv 1905.05583)."""
        text = self.run.template.text.replace("{document}", text)
        ids = self.tokenizer(text)["input_ids"]
        over = len(ids) - self.longest
        if over <= 0:
            return ids
        self.truncated += 1
        kept = self.longest // 4 if self.run.settings.get("cut") == "middle" else self.longest - 1
        return ids[:kept] + ids[kept + over :]

    def dialogue(self, said):
        """(ids, marks): every utterance between [CLS] and [SEP]; marks are where each begins. Utterances
        that do not fit the document length are left out, and the dialogue counts as cut."""
        ids, marks = [], []
        for utterance in said:
            text = self.run.template.text.replace("{document}", utterance)
            more = self.tokenizer(text)["input_ids"]
            if len(ids) + len(more) > self.longest:
                if not ids:
                    ids, marks = [*more[: self.longest - 1], more[-1]], [0]
                self.truncated += 1
                break
            marks.append(len(ids))
            ids += more
        return ids, marks


def oracle_labels(rows, marks):
    """For every dialogue 1 or 0 an utterance that was read: whether the oracle picks it."""
    found = []
    bar = console.progress(len(rows), "oracle summaries")
    for row, starts in zip(rows, marks, strict=True):
        chosen = extraction.oracle(extraction.utterances(row["text"])[: len(starts)], row["target"])
        found.append([int(i in chosen) for i in range(len(starts))])
        bar.update(1)
    bar.close()
    return found


def spans(marks, ids):
    """(start, end) of every utterance."""
    return list(zip(marks, [*marks[1:], len(ids)], strict=True))


def picked(logits, marks, ids):
    """Every utterance's score: the mean log-probability of being picked, over its tokens."""
    scores = logits.log_softmax(-1)[:, 1]
    return [scores[start:end].mean().item() for start, end in spans(marks, ids)]


def labels(run, model, data):
    """Test stage of classification. "base" is a logistic regression on the untrained encoder's features, fitted
    on the same training rows. Returns the same as evaluation.labels."""

    def score(stage, timing):
        if stage == "base":
            return evaluation.classes(run, data, stage, probe(run, data, timing))
        return evaluation.classes(
            run, data, stage, evaluation.likeliest(data.labels, outputs(run, model, data, timing))
        )

    return evaluation.stages(run, len(data.test), score)


def summaries(run, model, data):
    """Test stage of extractive summarization; "base" as in `labels`. Returns the same as evaluation.summaries."""

    def score(stage, timing):
        return extracts(data, probe(run, data, timing) if stage == "base" else outputs(run, model, data, timing))

    return evaluation.stages(run, len(data.test), score)


def baseline(run, data):
    """What needs no fine-tuning, by --baseline: "frozen-features", or "dummy": the most frequent class, the
    first extraction.PICKS utterances. Returns the same as `labels` and `summaries`."""

    def score(stage, timing):
        found = probe(run, data, timing) if run.method == "frozen-features" else dummy(data)
        return evaluation.classes(run, data, stage, found) if data.labels else extracts(data, found)

    run.keep_settings()
    return evaluation.stages(run, len(data.test), score)


def dummy(data):
    """What `probe` gives, without a look at the texts."""
    if not data.labels:
        return [range(0, -len(extraction.utterances(row["text"])), -1) for row in data.test]
    counts = collections.Counter(row["target"] for row in data.train)
    return [max(sorted(counts), key=counts.__getitem__)] * len(data.test)


def extracts(data, scores):
    """Metrics of the summaries that the scores of the test rows' utterances pick."""
    written = [
        extraction.summary(extraction.utterances(row["text"]), s) for row, s in zip(data.test, scores, strict=True)
    ]
    return metrics.rouge(written, [row["target"] for row in data.test])


def outputs(run, model, data, timing):
    """A list a test row: log-probabilities of all classes, or for every utterance that of being picked."""
    reader = Reader(run)
    rows, marks = inputs(reader, data.test, data.labels)
    run.truncated["test"] = reader.truncated
    kept = evaluation.Predictions(run, "tuned-scores", len(rows), timing)

    def found(number, logits):
        if data.labels:
            return {"scores": logits.log_softmax(-1).tolist()}
        return {"scores": picked(logits, marks[number], rows[number])}

    read(run, model, rows, lambda out: out.logits, found, kept.add, kept.done, "tuned model reads")
    return [row["scores"] for row in kept.rows]


def inputs(reader, rows, labels):
    """(ids of every row, places of the marks in every row or None)."""
    if labels:
        return [reader.text(row["text"]) for row in rows], [None] * len(rows)
    read = [reader.dialogue(extraction.utterances(row["text"])) for row in rows]
    return [ids for ids, _ in read], [marks for _, marks in read]


def probe(run, data, timing):
    """A logistic regression on the frozen encoder's features, fitted on the training rows: the test rows' classes,
    or the scores of their utterances. `timing` gets the reading of the test rows."""
    import numpy
    from sklearn.linear_model import LogisticRegression

    encoder, reader = frozen(run), Reader(run)
    ids, marks = inputs(reader, data.train, data.labels)
    if data.labels:
        wanted = [row["target"] for row in data.train]
    else:
        wanted = [label for labels in oracle_labels(data.train, marks) for label in labels]
    learned = features(run, encoder, ids, marks, evaluation.Timing())
    reader.truncated = 0
    asked = features(run, encoder, *inputs(reader, data.test, data.labels), timing)
    run.truncated["test"] = reader.truncated
    model = LogisticRegression(max_iter=2000, random_state=run.args.seed)
    model.fit(numpy.concatenate(learned), wanted)
    if data.labels:
        return model.predict(numpy.concatenate(asked)).tolist()
    return [model.predict_log_proba(row)[:, 1].tolist() for row in asked]


def frozen(run):
    import torch
    import transformers

    keywords = {"dtype": torch.float32, "use_safetensors": True}
    return placed(loading.reading(transformers.AutoModel, run.checkpoint, **keywords))


def features(run, encoder, ids, marks, timing):
    """An array of shape (1, width) a text, or (utterances, width) a dialogue: the last hidden state at [CLS]
    or its mean over the text or utterance, as the setting `pooling` says. ids, marks: as `inputs` gives them."""
    import numpy

    kept = [None] * len(ids)

    def found(number, states):
        starts = marks[number] or [0]
        if run.settings["pooling"] == "cls":
            return states[starts].cpu().numpy()
        return numpy.stack([states[start:end].mean(0).cpu().numpy() for start, end in spans(starts, ids[number])])

    def keep(numbers, arrays, seconds):
        timing.batches.append((seconds, len(numbers)))
        for number, array in zip(numbers, arrays, strict=True):
            kept[number] = array

    read(run, encoder, ids, lambda out: out.last_hidden_state, found, keep, (), "frozen encoder reads")
    return kept


def read(run, model, rows, pick, found, on_batch, done, label):
    """Run `model` over rows of ids in batches of like length. pick(output) is a tensor (rows, …); found(number,
    tensor of that row without padding) makes what on_batch(numbers, values, seconds) gets."""
    import torch

    tokenizer = right_padded(run.tokenizer)

    def work(numbers):
        batch = tokenizer.pad({"input_ids": [rows[number] for number in numbers]}, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            out = pick(model(**batch)).float()
        per_token = out.dim() == 3
        return [found(number, out[i, : len(rows[number])] if per_token else out[i]) for i, number in enumerate(numbers)]

    passes.run([len(row) for row in rows], run.settings["inference_batch_size"], work, on_batch, done, label)


def answer(run):
    """What the trained encoder answers to --text: the likeliest classes, or the utterances it picks."""
    names = records.read(run.experiment / "labels.json")
    model, reader, found = network(run, names), Reader(run), []
    said = extraction.utterances(run.text)
    ids, marks = (reader.text(run.text), None) if names else reader.dialogue(said)
    if reader.truncated:
        warn(f"the text is longer than {reader.longest} tokens and was cut")
    keep = lambda numbers, values, seconds: found.extend(values)  # noqa: E731
    read(run, model, [ids], lambda out: out.logits, lambda number, logits: logits, keep, (), "reading")
    if not names:
        return extraction.summary(said, picked(found[0], marks, ids))
    ranked = sorted(zip(found[0].softmax(-1).tolist(), names, strict=True), reverse=True)[:3]
    return "\n".join(f"{name}  {share:.1%}" for share, name in ranked)
