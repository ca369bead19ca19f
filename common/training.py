"""Fine-tuning an adapter with TRL's SFTTrainer: loss on the answer only, resumable after a kill.

Only this file imports trl. Rows are token ids with a loss mask already (encoding.py), so the trainer cuts, drops and
reformats nothing.
"""

import contextlib
import functools
import pickle

from common import (
    architecture,
    batches,
    bookkeeping,
    console,
    encoding,
    files,
    generation,
    machine,
    precision,
    processes,
    qlora,
)
from common.console import Failed, InputError, say, warn

SAVES = 10  # checkpoints of a run: a kill costs a tenth of it at most
RECOMPUTE_ABOVE = 1e9  # parameters: activations of smaller models fit; recomputing them takes a third more time
SMALL_MACHINE = 20e9  # bytes: a CPU run of the embedded model on long dialogues took up to 13 GB


def tune(model, encoder, data, settings, execution, expect=None):
    """Train a new adapter on data.train and save it to execution.folder/adapter.

    model: from qlora.base; encoder: from encoding.prompter; expect: see `fit`. settings.keep: "best" keeps the epoch
    that is best on the validation rows, "last" the last one. With execution.resume a finished training is not repeated.
    Returns (the 4-bit base with the adapter loaded from disk, so that what is scored is what was saved; the report of
    `fit`).
    """
    rows = encoding.training_rows(encoder, data.train, "train")
    validation = encoding.training_rows(encoder, data.validation, "validation")
    if len(rows) != len(data.train):
        raise RuntimeError(f"{len(data.train)} rows went in, {len(rows)} came out")
    adapter, report = execution.folder / "adapter", finished(execution)
    if report is None:
        seed(settings)
        tuned = qlora.new_adapter(model, settings)

        def save(state=None):
            tuned.save_pretrained(adapter, state_dict=state, safe_serialization=True)
            encoder.tokenizer.save_pretrained(adapter)
            stop, pad = encoder.stop, encoder.tokenizer.pad_token_id
            generation.configuration(settings.decoding, settings.max_new_tokens, stop, pad).save_pretrained(adapter)

        best, sharded = settings.keep == "best" and validation, processes.sharded()
        build = functools.partial(answers_only, encoder.tokenizer)
        with bookkeeping.guarded(adapter / qlora.WEIGHTS, execution):
            report = fit(tuned, rows, validation, build, settings, execution, expect, save, best)
            finish(execution, data.labels, report)
        if sharded:
            say(f"the adapter is trained; one process scores it: {console.command_line()} --resume")
            raise SystemExit(console.DONE)
        model = as_loaded(tuned)
    return qlora.with_adapter(model, adapter), report


def seed(settings, rank=0):
    """Seed every random generator with settings.seed, plus the number of this process among several."""
    import transformers

    transformers.set_seed(settings.seed + rank)


def finished(execution):
    """The report of a training that a resumed run had finished; else None, and an old report is removed."""
    path = execution.folder / "training.json"
    if execution.resume and path.is_file():
        with contextlib.suppress(InputError, AttributeError, KeyError, TypeError):
            report = files.read_json(path)
            if report["training"]["steps"] and report.keys() == {"training", "estimate"}:
                say("training: finished before; going on to the test")
                processes.part()
                return report
        warn(f"{files.display(path)} is not as written: the training is repeated")
    path.unlink(missing_ok=True)
    return None


def finish(execution, labels, report):
    """After the trained weights are on disk: write labels and report, remove the checkpoints unless they go on."""
    files.write_json(execution.folder / "labels.json", labels)
    files.write_json(execution.folder / "training.json", report)
    if not execution.goes_on:
        bookkeeping.remove_checkpoints(execution.folder / "checkpoints")


def trained_labels(folder):
    """The class names that the run in `folder` was trained for; [] if its answers are free text."""
    labels = files.read_json(folder / "labels.json")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InputError(f"{folder / 'labels.json'} is no list of class names: the run is damaged")
    return labels


def fit(model, rows, validation, build, settings, execution, expect=None, save=None, best=False):
    """Train the parameters that require gradients on `rows` of token ids ({"input_ids", "labels"}). A resumed run goes
    on from its last valid checkpoint.

    validation: rows whose loss (and accuracy, if a row has a class) is measured after every epoch. save() is called at
    the end or, with `best`, after every epoch that is better than all before it; save(state) with the collected weights
    if each process holds a part of them. Of several processes the first one saves and returns. build(model,
    datasets, arguments, sampler, callback) makes the trainer. expect(model, rows, validation, settings, execution)
    estimates the training by one process: an object with .peak_memory_bytes, .seconds and .limit (bytes that the
    process may hold between steps), or None.

    Returns {"training": {seconds, tokens, tokens_per_second, steps, loss (mean over the last epoch), losses,
    peak_memory_bytes, trainable_parameters, micro_batch_size (smaller than the setting if memory ran out; a step then
    has more micro-batches), unpacked; with validation rows also validation and curves}, "estimate":
    {peak_memory_bytes, seconds} or None}.
    Raises Failed if the loss is not finite or memory does not hold one row, InputError if the disk is full.
    """
    workers = processes.count()
    with processes.first_goes_first():
        folder = bookkeeping.checkpoint_folder(execution)
    expected = expect(model, rows, validation, settings, execution) if expect and workers == 1 else None
    micro_batch = batches.largest_divisor(settings.batch_size // workers, settings.micro_batch_size)
    sampler, data = ordered(rows, validation, settings, micro_batch)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    n_trainable = sum(parameter.numel() for parameter in trainable)
    initial_values = [parameter.detach().to("cpu", copy=True) for parameter in trainable]
    description = f"{len(rows)} rows, {n_trainable / 1e6:.1f} M of {model.num_parameters() / 1e6:.0f} M parameters"
    while True:
        with processes.first_goes_first():
            checkpoint = bookkeeping.resume_point(folder)
        limit = expected.limit if expected else None
        callback = bookkeeping.bookkeeper(description, checkpoint, save if best else None, limit)
        config = arguments(settings, execution, model, len(rows), folder, micro_batch)
        if validation:
            eval_size = min(execution.inference_batch_size, 2 * micro_batch)  # twice as many: no gradients are kept
            config |= {"eval_strategy": "epoch", "per_device_eval_batch_size": eval_size}
        trainer = ready(build(model, data, config, sampler, callback))
        if workers > 1:
            seed(settings, processes.rank())  # each process draws its own dropout
        if gpu := machine.cuda():
            gpu.reset_peak_memory_stats()
        try:
            with bookkeeping.disk_errors(execution.folder):
                if to_the_end(trainer, checkpoint, callback):
                    break
        except pickle.UnpicklingError:  # torch refuses to unpickle code
            raise InputError(f"{checkpoint} holds more than numbers: remove it, then add --resume") from None
        if micro_batch == 1 or workers > 1:
            at_once = "a single row" if micro_batch == 1 else f"{micro_batch} rows"
            raise Failed("OOM", f"out of memory with {at_once} at once: lower --max_document_tokens")
        fewer = batches.largest_divisor(settings.batch_size, micro_batch // 2)
        warn(f"out of memory with {micro_batch} rows at once: going on with {fewer}, as many a step as before")
        micro_batch = fewer
        machine.give_back()
        for parameter, value in zip(trainable, initial_values, strict=True):  # if no checkpoint exists
            parameter.grad, parameter.data = None, value.to(parameter.device, copy=True)
        seed(settings)
    if not all(parameter.isfinite().all() for parameter in trainable):
        raise Failed("failed", "the weights are not finite after the last step: lower --learning_rate")
    estimate = expected and {"peak_memory_bytes": expected.peak_memory_bytes, "seconds": expected.seconds}
    measured = measurements(trainer.state, callback.seconds(), settings.epochs)
    unpacked = getattr(architecture.unwrapped(model), "unpacked", None)
    measured |= {"trainable_parameters": n_trainable, "micro_batch_size": micro_batch, "unpacked": unpacked}
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if processes.sharded() else None
    processes.part()
    if save and not best:
        save(state)
    return {"training": measured, "estimate": estimate}


def ordered(rows, validation, settings, micro_batch):
    """(sampler of the training rows, datasets of training and validation rows, the latter may be None). Several
    processes each get micro_batch rows in turn, and a row with nothing to learn fills the last step up."""
    import datasets

    several = processes.count() > 1
    fill = micro_batch * processes.count() if several else 1
    sampler = batches.by_length([len(row["input_ids"]) for row in rows], settings.batch_size, settings.seed, fill)
    parts = [[*rows, batches.nothing_to_learn(rows[0])] if several else list(rows), validation]
    return sampler, [datasets.Dataset.from_list(list(part)) if part else None for part in parts]


def measurements(state, seconds, epochs):
    """What a training measured, for the record. state: of the trainer at its end."""
    tokens = state.num_input_tokens_seen
    block = {"seconds": seconds, "tokens": tokens, "tokens_per_second": tokens / seconds, "steps": state.global_step}
    return block | bookkeeping.losses_of(state, epochs) | {"peak_memory_bytes": machine.peak()}


def ready(trainer):
    """`trainer` without its printed lines and with trainable parameters in float32: trl casts adapters to bfloat16, in
    which small Adam steps are rounded to nothing."""
    import transformers

    trainer.remove_callback(transformers.PrinterCallback)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return trainer


def to_the_end(trainer, checkpoint, callback):
    """Train to the end, from a checkpoint or None. Returns False if memory ran out; the attempt is then cleaned up."""
    from peft.helpers import disable_input_dtype_casting

    # peft casts an adapter's input to the weights' float32, which autocast undoes: two copies for nothing.
    mixed, start = trainer.args.bf16 or trainer.args.fp16, str(checkpoint) if checkpoint else None
    try:
        with (
            bookkeeping.graceful(callback),
            disable_input_dtype_casting(trainer.model, mixed),
            fused_layers(trainer.model, trainer.args.torch_compile),
        ):
            result = machine.attempt(trainer.train, resume_from_checkpoint=start)
    finally:
        if callback.bar:
            callback.bar.close()
    if result is None and getattr(trainer, "neftune_hook_handle", None):
        trainer.neftune_hook_handle.remove()  # transformers removes it only after a complete training
    trainer.optimizer = trainer.lr_scheduler = None
    return result is not None


def fused_layers(model, compiled=False, gpu=None):
    """Context in which `model` is trained: on a CPU common/cpu computes its layers in fewer passes over memory.
    compiled: torch's compiler does that; gpu: whether it is trained on a GPU; None: if there is one."""
    if compiled or (machine.cuda() if gpu is None else gpu):
        return contextlib.nullcontext()
    from common.cpu import layers

    return layers.fused(model)


def as_loaded(tuned):
    """The base model below `tuned`, without the adapter, trl's forward and gradient checkpointing."""
    model = tuned.unload()
    vars(model).pop("forward", None)
    if model.is_gradient_checkpointing:
        model.gradient_checkpointing_disable()
        model.disable_input_require_grads()
    return model.eval()


def arguments(settings, execution, model, rows, folder, micro_batch):
    """Keywords of transformers' TrainingArguments, the same for every trainer here. rows: number of rows in an epoch;
    folder: for checkpoints; micro_batch: rows of a forward pass."""
    import torch

    gpu = torch.cuda.is_available()
    steps = max(1, -(-rows // settings.batch_size)) * settings.epochs
    return {
        "output_dir": str(folder),
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": settings.batch_size // (micro_batch * processes.count()),
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.lr_scheduler,
        "warmup_steps": max(1, round(settings.warmup_ratio * steps)) if settings.warmup_ratio else 0,
        "max_grad_norm": settings.max_grad_norm,
        "weight_decay": settings.weight_decay,
        "optim": "adamw_torch_fused" if settings.optimizer == "adamw_torch" else settings.optimizer,  # the same steps
        "neftune_noise_alpha": settings.neftune,
        "seed": settings.seed,
        "bf16": execution.precision in ("bfloat16", precision.MIXED),
        "fp16": gpu and execution.precision == "float16",
        "use_cpu": not gpu,
        "ddp_find_unused_parameters": False,  # all have a part in every loss
        "gradient_checkpointing": recompute(model.num_parameters(), gpu),
        "use_liger_kernel": execution.use_liger_kernel,
        "torch_compile": execution.torch_compile,
        "remove_unused_columns": False,
        "include_num_input_tokens_seen": "non_padding",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would log the mean of earlier steps in place of NaN
        "save_strategy": "steps",
        "save_steps": max(1, round(steps / SAVES)),
        "save_total_limit": None,  # bookkeeper removes old ones: transformers would take any checkpoint-*
        "report_to": [] if execution.report_to == "none" else [execution.report_to],
        "disable_tqdm": True,
        "dataloader_pin_memory": gpu,
    }


def answers_only(tokenizer, model, datasets, config, sampler, callback):
    """TRL's SFTTrainer for rows of token ids with a loss mask. Arguments after `tokenizer`: of build in `fit`."""
    import torch
    import transformers
    import trl

    class Trainer(trl.SFTTrainer):
        def _get_train_sampler(self, train_dataset=None):
            return sampler

        def create_model_card(self, *args, **keywords):
            """Do nothing: a model card would overwrite a README.md beside the checkpoints."""

        def compute_loss(self, model, inputs, *args, **keywords):
            """transformers' loss, with logits of the answers' tokens alone: the others, which are most, do not enter
            the loss. trl computes all logits on a CPU, and their entropy."""
            if config.use_liger_kernel:  # computes logits and loss together
                return transformers.Trainer.compute_loss(self, model, inputs, *args, **keywords)
            following = torch.nn.functional.pad(inputs["labels"], (0, 1), value=-100)[:, 1:].flatten()
            positions = (following != -100).nonzero()[:, 0]
            labels = following[positions][None]
            inputs = {**inputs, "use_cache": False, "labels": labels, "shift_labels": labels}
            if architecture.unwrapped(self.model).config._attn_implementation != "flash_attention_2":
                inputs.pop("attention_mask")  # rows are padded behind their end, where no token looks
            with logits_at(self.model, positions):
                return transformers.Trainer.compute_loss(self, model, inputs, *args, **keywords)

    config = trl.SFTConfig(
        **config,
        max_length=None,  # documents were cut before; cutting here would remove the answer
        packing=False,
        shuffle_dataset=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    keywords = {"train_dataset": datasets[0], "eval_dataset": datasets[1], "callbacks": [callback]}
    return Trainer(model=model, args=config, processing_class=tokenizer, **keywords)


def logits_at(model, positions):
    """Context in which `model` computes logits at these positions alone, numbered over all rows of a batch: of shape
    (1, positions, vocabulary)."""
    head = architecture.unwrapped(model).get_output_embeddings()
    return head.register_forward_pre_hook(lambda _, inputs: inputs[0].flatten(0, 1)[positions][None])


def recompute(parameters, gpu):
    """Whether to recompute activations (gradient checkpointing): large models on a GPU, any on a small machine."""
    return parameters > RECOMPUTE_ABOVE if gpu else machine.total() < SMALL_MACHINE
