"""An encoder with a new head: built, trained, saved and loaded again.

A head classes texts, or tells of every token whether its utterance is picked; an utterance's score is the mean over its
tokens. One mark an utterance, as BertSum has it (arXiv 1908.08345), wants far more rows: on 818 dialogues all marks
came to look alike.
"""

import contextlib

from common import batched_forward, bookkeeping, checkpoints, files, machine, qlora, training
from common.console import Failed, InputError, say


def network(checkpoint, labels, settings, execution, folder=None):
    """The encoder with a head, ready to score: a new one on the checkpoint, or the one that a run trained and saved.

    labels: class names, for a head that classes texts; empty for one that picks utterances. settings.lora_r: the
    encoder is then in 4 bits and its adapter in `folder`. folder: of the run that trained it; None for a new head,
    which settings.seed draws. Raises InputError for a model that writes, and if the folder's labels are others.
    """
    if settings.full_tune and not settings.lora_r:
        raise InputError("--full_tune puts adapters on all linear layers: it needs --lora_r, say 16")
    check_config(checkpoint, settings)
    if folder and (trained := trained_labels(folder)) != list(labels):
        raise InputError(f"{folder} was trained for {described(trained)}, the data has {described(labels)}")
    auto, keywords = auto_class(labels), {"num_labels": len(labels) or 2}
    training.seed(settings)
    if settings.lora_r:
        heads = new_modules(whole(auto, checkpoint, **keywords))
        model = qlora.quantised(auto, checkpoint, execution.precision, heads, **keywords)
        qlora.assert_quantised(model, [each for head in heads for each in model.get_submodule(head).modules()])
        model = qlora.unpacked(model)
        if folder:
            model = qlora.with_adapter(model, folder / "adapter")
    elif folder:
        model = load_saved(labels, folder)
    else:
        model = whole(auto, checkpoint, **keywords)
    return placed(model)


def auto_class(labels):
    import transformers

    return transformers.AutoModelForSequenceClassification if labels else transformers.AutoModelForTokenClassification


def check_config(checkpoint, settings):
    """Raises InputError if the checkpoint's architecture is no encoder, or has no room for the documents."""
    import transformers

    config = qlora.reading(transformers.AutoConfig, checkpoint)
    reads_both_ways = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING
    if not reads_both_ways or config.is_encoder_decoder or getattr(config, "is_decoder", False):
        raise InputError(
            f"{checkpoint.name} is a model that writes ({config.model_type}), these scripts are for encoders: "
            f"take another --pretrained_ckpt, say {checkpoints.stand_in('encoder')}"
        )
    most = getattr(config, "max_position_embeddings", None)
    if most and settings.max_document_tokens > most:
        raise InputError(f"{checkpoint.name} reads {most} tokens at most: lower --max_document_tokens")


def trained_labels(folder):
    """The class names that the run in `folder` was trained for; [] if it picks utterances."""
    labels = files.read_json(folder / "labels.json")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InputError(f"{folder / 'labels.json'} is no list of class names: the run is damaged")
    return labels


def described(labels):
    few = ", ".join(labels[:3]) + (", …" if len(labels) > 3 else "")
    return f"{len(labels)} classes ({few})" if labels else "picking utterances"


def whole(auto, checkpoint, **keywords):
    """`auto`'s model of the checkpoint in float32, unquantised."""
    import torch

    return qlora.reading(auto, checkpoint, dtype=torch.float32, use_safetensors=True, **keywords)


def load_saved(labels, folder):
    """The model that `save` wrote into `folder`, every weight from the file: the library would draw missing ones."""
    import safetensors

    file = folder / "model" / "model.safetensors"
    model = whole(auto_class(labels), checkpoints.find(str(file.parent)), num_labels=len(labels) or 2)
    with safetensors.safe_open(file, framework="pt") as tensors:
        missing = sorted(model.state_dict().keys() - set(tensors.keys()))
    if missing:
        raise InputError(f"{file} lacks {len(missing)} tensors, the first of them {missing[0]}: train again")
    return model


def placed(model):
    """`model` on this process' own device, ready to score."""
    return model.to(machine.device()[""]).eval()


def new_modules(model):
    """Names of the modules on top of the pretrained encoder."""
    return [name for name, _ in model.named_children() if name != model.base_model_prefix and "dropout" not in name]


def tune(model, reader, data, settings, execution, expect=None):
    """Train the head and, with it, every weight or an adapter on the 4-bit encoder, with transformers' Trainer.

    model: `network`'s; expect: budget.before or None. Returns (the model as it was saved, loaded from disk again, and
    training's report). settings.keep: "best" keeps the epoch that is best on the validation rows, "last" the last one.
    Weights go to model/ or adapter/ of execution.folder. With execution.resume a finished training is not repeated.
    """
    rows = reader.training_rows(data.train, data.labels, "train")
    validation = reader.training_rows(data.validation, data.labels, "validation") if data.validation else []
    report = training.finished(execution)
    if report is None:
        trained = with_new_adapter(model, settings) if settings.lora_r else model
        keep = lambda: save(trained, settings, execution.folder)  # noqa: E731
        best = keeps_best(settings, validation)
        build = trainer_of(reader.tokenizer)
        training.seed(settings)
        with guarded(settings, execution):
            report = training.fit(trained, rows, validation, build, settings, execution, expect, keep if best else None)
            if not best:
                keep()
            training.finish(execution, data.labels, report)
        model = training.as_loaded(trained) if settings.lora_r else model
    return saved(model, data.labels, settings, execution.folder), report


@contextlib.contextmanager
def guarded(settings, execution):
    """Context of a training: of one that fails no weights are left, and a full disk ends it in one line."""
    weights = weights_file(settings, execution.folder)
    if not execution.resume:  # a resumed training may have its best epoch behind it
        weights.unlink(missing_ok=True)
    try:
        with bookkeeping.disk_errors(execution.folder):
            yield
    except Failed:
        weights.unlink(missing_ok=True)
        raise


def weights_file(settings, folder):
    """Where `save` puts the weights."""
    return folder / ("adapter/adapter_model.safetensors" if settings.lora_r else "model/model.safetensors")


def keeps_best(settings, validation):
    """Whether the weights of the best epoch are kept, not those of the last one."""
    if settings.keep == "best" and not validation:
        say("no validation rows to choose an epoch on: the last one's weights are kept")
    return settings.keep == "best" and bool(validation)


def with_new_adapter(model, settings):
    """`model` in a fresh LoRA adapter, its new head trained whole: peft's own list leaves half of some heads random."""
    training.seed(settings)
    return qlora.new_adapter(model, settings, task_type=None, modules_to_save=new_modules(model))


def save(model, settings, folder):
    """Write the trained weights: of the adapter and the head, or all of them. Raises Failed if they are not finite."""
    if not all(parameter.isfinite().all() for parameter in model.parameters() if parameter.requires_grad):
        raise Failed("failed", "the weights are not finite: lower --learning_rate")
    model.save_pretrained(weights_file(settings, folder).parent, safe_serialization=True)


def saved(model, labels, settings, folder):
    """What `save` wrote, for scoring. model: `network`'s, for its 4-bit weights under an adapter."""
    if settings.lora_r:
        return placed(qlora.with_adapter(model, folder / "adapter"))
    return placed(load_saved(labels, folder))


def trainer_of(tokenizer):
    """The function that makes transformers' Trainer for rows of token ids with a class a row, or a class a token."""
    import transformers

    def build(model, datasets, config, sampler, callback):
        train, validation = datasets
        per_row = isinstance(train[0]["labels"], int)
        pad = transformers.DataCollatorWithPadding if per_row else transformers.DataCollatorForTokenClassification

        class Trainer(transformers.Trainer):
            def _get_train_sampler(self, train_dataset=None):
                return sampler

        def accuracy(outputs):
            return {"accuracy": float((outputs.predictions.argmax(-1) == outputs.label_ids).mean())}

        return Trainer(
            model=model,
            args=transformers.TrainingArguments(**config),
            train_dataset=train,
            eval_dataset=validation,
            data_collator=pad(tokenizer),
            compute_metrics=accuracy if per_row else None,
            callbacks=[callback],
        )

    return build


def read(model, reader, rows, pick, make, execution, on_batch, done=(), label="reading"):
    """Run `model` over rows of ids in batches of like length.

    pick(output) is a tensor of shape (rows, …); make(number, that row's part of it, without padding) makes one of the
    values that on_batch(numbers, values, seconds) gets. done: numbers of rows to leave out.
    """
    import torch

    def work(numbers):
        padded = reader.tokenizer.pad({"input_ids": [rows[number] for number in numbers]}, return_tensors="pt")
        with torch.inference_mode():
            out = batched_forward.check_numbers(pick(model(**padded.to(model.device))).float())
        per_token = out.dim() == 3
        return [make(number, out[i, : len(rows[number])] if per_token else out[i]) for i, number in enumerate(numbers)]

    batched_forward.run([len(row) for row in rows], execution.inference_batch_size, work, on_batch, done, label)
