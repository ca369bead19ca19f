"""An encoder with a new head: built, trained, saved and loaded again.

A head classifies a text, or every token by whether its utterance is picked; an utterance's score is the mean over its
tokens. One [CLS] token per utterance, as in BertSum (arXiv 1908.08345), needs far more rows: on 818 dialogues the
vectors of all utterances became alike.
"""

from common import batched_forward, bookkeeping, checkpoints, machine, processes, qlora, training
from common.console import Failed, InputError, say


def network(checkpoint, labels, settings, execution, folder=None):
    """The encoder with a head, in eval mode: a new head on the checkpoint, or what a run trained and saved.

    labels: class names, for a head that classifies texts; empty for one that picks utterances. settings.lora_r: the
    encoder is then in 4 bits, with an adapter. folder: of the run that trained it; None for a new head, initialised
    with settings.seed. Raises InputError for a model that is no encoder, and if the folder's labels are others.
    """
    if settings.full_tune and not settings.lora_r:
        raise InputError("--full_tune puts adapters on all linear layers: it needs --lora_r, say 16")
    check_config(checkpoint, settings)
    if folder and (trained := training.trained_labels(folder)) != list(labels):
        raise InputError(f"{folder} was trained for {described(trained)}, the data has {described(labels)}")
    auto, keywords = auto_class(labels), {"num_labels": len(labels) or 2}
    training.seed(settings)
    if settings.lora_r:
        heads = new_modules(whole(auto, checkpoint, **keywords))
        model = qlora.quantised(auto, checkpoint, execution.precision, heads, **keywords)
        qlora.assert_quantised(model, [module for head in heads for module in model.get_submodule(head).modules()])
        model = qlora.unpacked(model)
        if folder:
            model = qlora.with_adapter(model, folder / "adapter")
    elif folder:
        model = load_saved(labels, folder)
    else:
        model = whole(auto, checkpoint, **keywords)
    return placed(named(model, labels))


def named(model, labels):
    """`model` with the class names in its config, by which transformers' pipeline calls the classes."""
    if labels:
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: i for i, label in enumerate(labels)}
    return model


def auto_class(labels):
    import transformers

    return transformers.AutoModelForSequenceClassification if labels else transformers.AutoModelForTokenClassification


def check_config(checkpoint, settings):
    """Raises InputError if the checkpoint is no encoder, or has fewer positions than settings.max_document_tokens."""
    import transformers

    config = qlora.reading(transformers.AutoConfig, checkpoint)
    reads_both_ways = type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING
    if not reads_both_ways or config.is_encoder_decoder or getattr(config, "is_decoder", False):
        raise InputError(
            f"{checkpoint.name} is a model that writes ({config.model_type}), these scripts are for encoders: "
            f"take another --pretrained_ckpt, say {checkpoints.stand_in('encoder')}"
        )
    positions = getattr(config, "max_position_embeddings", None)
    if positions and settings.max_document_tokens > positions:
        raise InputError(f"{checkpoint.name} reads {positions} tokens at most: lower --max_document_tokens")


def described(labels):
    """What a head with these labels does, in words."""
    first_labels = ", ".join(labels[:3]) + (", …" if len(labels) > 3 else "")
    return f"{len(labels)} classes ({first_labels})" if labels else "picking utterances"


def whole(auto, checkpoint, **keywords):
    """`auto`'s model of the checkpoint in float32, unquantised."""
    import torch

    return qlora.reading(auto, checkpoint, dtype=torch.float32, use_safetensors=True, **keywords)


def load_saved(labels, folder):
    """The model that `save` wrote into `folder`. Raises InputError for a missing weight: transformers would draw it."""
    import safetensors

    file = folder / "model" / "model.safetensors"
    model = whole(auto_class(labels), checkpoints.find(str(file.parent)), num_labels=len(labels) or 2)
    with safetensors.safe_open(file, framework="pt") as tensors:
        missing = sorted(model.state_dict().keys() - set(tensors.keys()))
    if missing:
        raise InputError(f"{file} lacks {len(missing)} tensors, the first of them {missing[0]}: train again")
    return model


def placed(model):
    """`model` on this process' own device, in eval mode."""
    return model.to(machine.device()[""]).eval()


def new_modules(model):
    """Names of the modules on top of the pretrained encoder."""
    return [name for name, _ in model.named_children() if name != model.base_model_prefix and "dropout" not in name]


def tune(model, reader, data, settings, execution, expect=None):
    """Train the head together with every weight, or with an adapter on the 4-bit encoder, by transformers' Trainer.

    model: from `network`; expect: budget.before or None. settings.keep: "best" keeps the epoch that is best on the
    validation rows, "last" the last one. Weights are saved to model/ or adapter/ in execution.folder. With
    execution.resume a finished training is not repeated. Returns (the model loaded from disk again, the report of
    training.fit).
    """
    rows = reader.training_rows(data.train, data.labels, "train")
    validation = reader.training_rows(data.validation, data.labels, "validation") if data.validation else []
    report = training.finished(execution)
    if report is None:
        trained = with_new_adapter(model, settings) if settings.lora_r else model
        keep = lambda _=None: save(trained, settings, execution.folder)  # noqa: E731
        best = keeps_best(settings, validation)
        build = trainer_of(reader.tokenizer)
        training.seed(settings)
        with guarded(settings, execution):
            report = training.fit(trained, rows, validation, build, settings, execution, expect, keep, best)
            reader.tokenizer.save_pretrained(weights_file(settings, execution.folder).parent)
            training.finish(execution, data.labels, report)
        model = training.as_loaded(trained) if settings.lora_r else model
    return saved(model, data.labels, settings, execution.folder), report


def guarded(settings, execution):
    """bookkeeping.guarded of the file that `save` writes the weights to."""
    return bookkeeping.guarded(weights_file(settings, execution.folder), execution)


def weights_file(settings, folder):
    """The file that `save` writes the weights to."""
    return folder / ("adapter/adapter_model.safetensors" if settings.lora_r else "model/model.safetensors")


def keeps_best(settings, validation):
    """Whether training keeps the weights of the best epoch instead of the last one."""
    if settings.keep == "best" and not validation:
        say("no validation rows to choose an epoch on: the last one's weights are kept")
    return settings.keep == "best" and bool(validation)


def with_new_adapter(model, settings):
    """`model` with a new LoRA adapter. All of its head is trained: peft's own list leaves half of some heads random."""
    training.seed(settings)
    return qlora.new_adapter(model, settings, task_type=None, modules_to_save=new_modules(model))


def save(model, settings, folder):
    """Save the trained weights: adapter and head, or the whole model. Raises Failed if they are not finite."""
    if not all(parameter.isfinite().all() for parameter in model.parameters() if parameter.requires_grad):
        raise Failed("failed", "the weights are not finite: lower --learning_rate")
    model.save_pretrained(weights_file(settings, folder).parent, safe_serialization=True)


def saved(model, labels, settings, folder):
    """The model that `save` wrote, for scoring. model: from `network`; an adapter is put on its 4-bit weights."""
    if settings.lora_r:
        return placed(qlora.with_adapter(model, folder / "adapter"))
    return placed(load_saved(labels, folder))


def trainer_of(tokenizer):
    """build of training.fit: makes transformers' Trainer for token ids with a class per row, or a class per token."""
    import torch
    import transformers

    def build(model, datasets, config, sampler, callback):
        train, validation = datasets
        per_row = isinstance(train[0]["labels"], int)
        collator = transformers.DataCollatorWithPadding if per_row else transformers.DataCollatorForTokenClassification

        class Trainer(transformers.Trainer):
            def _get_train_sampler(self, train_dataset=None):
                return sampler

        def accuracy(outputs):
            return {"accuracy": float((outputs.predictions.argmax(-1) == outputs.label_ids).mean())}

        def shared_loss(outputs, labels, num_items_in_batch):
            """The mean over the rows, or the tokens, of all processes: their shares of a last batch differ."""
            logits = outputs.logits.flatten(0, -2)
            return torch.nn.functional.cross_entropy(logits, labels.flatten(), reduction="sum") / num_items_in_batch

        return Trainer(
            compute_loss_func=shared_loss if processes.count() > 1 else None,
            model=model,
            args=transformers.TrainingArguments(**config),
            train_dataset=train,
            eval_dataset=validation,
            data_collator=collator(tokenizer),
            compute_metrics=accuracy if per_row else None,
            callbacks=[callback],
        )

    return build


def read(model, reader, rows, select, convert, execution, callback, done=(), label="reading"):
    """Run `model` over rows of token ids in batches of similar length.

    select(output): the tensor to use of the model's output, of shape (rows, …). convert(number, part): a row's value
    from its part of that tensor, without padding. callback(numbers, values, seconds): called after every batch. done:
    numbers of rows to leave out.
    """
    import torch

    def forward(numbers):
        padded = reader.tokenizer.pad({"input_ids": [rows[number] for number in numbers]}, return_tensors="pt")
        with torch.inference_mode():
            selected = batched_forward.check_numbers(select(model(**padded.to(model.device))).float())
        per_token = selected.dim() == 3
        parts = [selected[i, : len(rows[number])] if per_token else selected[i] for i, number in enumerate(numbers)]
        return [convert(number, part) for number, part in zip(numbers, parts, strict=True)]

    batched_forward.run([len(row) for row in rows], execution.inference_batch_size, forward, callback, done, label)
