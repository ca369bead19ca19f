"""What the budget of a training depends on: architecture, settings, and the shapes of its batches."""

import copy
import functools
import json
from dataclasses import dataclass, field, replace

from common import architecture, batches, checkpoints, encoders, encoding, files, precision, qlora
from common.settings import Settings

CHARACTERS = 4  # characters a token, assumed if there is no tokenizer
LENGTH_SAMPLE = 1000  # rows to tokenise for their lengths; the other rows are assumed to be similar

# For data that are not on this machine: number of training rows, and the deciles (0, 10 … 100 %) of the tokens of
# documents (uncut) and of answers, counted with a vocabulary of 49k.
TYPICAL = {
    "classification": (
        10_664,
        (4, 36, 57, 77, 101, 133, 176, 236, 320, 521, 18527),
        (3, 3, 4, 4, 4, 5, 7, 7, 8, 9, 10),
    ),
    "summarization": (
        14_732,
        (18, 42, 60, 75, 92, 118, 146, 180, 225, 289, 728),
        (5, 11, 15, 18, 21, 23, 27, 31, 38, 45, 76),
    ),
    "sentiment": (35_000, (34, 118, 154, 171, 192, 224, 262, 325, 403, 548, 1798), (1,) * 11),
    "instructions": (
        46_801,
        (5, 9, 11, 12, 14, 15, 17, 20, 25, 32, 168),
        (1, 10, 18, 33, 63, 105, 159, 217, 292, 363, 594),
    ),
}
VALIDATED = {"sentiment": 1 / 7}  # task -> validation rows for each training row: 10 % of the rows to 70 %


@dataclass
class Job:
    config: object  # transformers' config of the real architecture
    settings: Settings
    precision: str  # of the computation, as in settings.Execution
    classes: int | None  # of an encoder's head; None for a model that generates text
    per_token: bool  # whether that head classifies every token
    gpu: bool
    batches: list  # micro-batches of one epoch: (rows, padded tokens a row, tokens of all answers)
    validation_tokens: int = 0  # padded tokens of the validation rows, which are read after every epoch
    unpacked: bool | None = None  # whether frozen weights stay dequantised; None: if the memory allows it
    counts: dict = field(default_factory=dict)  # batch -> its memory.Count with one layer and with two

    @property
    def micro_batch(self):
        """Rows of a forward pass."""
        return batches.largest_divisor(self.settings.batch_size, self.settings.micro_batch_size)

    @property
    def steps(self):
        passes = self.settings.batch_size // self.micro_batch
        return round(-(-len(self.batches) // passes) * self.settings.epochs)

    @property
    def tokens(self):
        """Padded tokens of all epochs."""
        return self.settings.epochs * sum(rows * length for rows, length, _ in self.batches)

    @property
    def largest(self):
        return max(self.batches, key=lambda batch: (batch[0] * batch[1], batch))

    @property
    def dtype(self):
        """dtype of the weights that are not in 4 bits, by its name in torch."""
        return "float32" if self.precision == precision.MIXED else self.precision

    @property
    def layers(self):
        return self.config.num_hidden_layers

    @functools.cached_property
    def parameters(self):
        """Number of parameters of the whole model, without an adapter."""
        kind = "AutoModel" if self.classes else "AutoModelForCausalLM"
        return parameters_of(json.dumps(self.config.to_dict(), default=str, sort_keys=True), kind, self.config)

    def smaller(self, rows, tokens):
        """This job with at most `rows` rows a step and documents of at most `tokens` tokens, reduced to its largest
        batch."""
        n, length, answers = self.largest
        length, fewer = max(length - (self.settings.max_document_tokens - tokens), 16), min(n, rows)
        settings = self.settings.replaced({"batch_size": rows, "max_document_tokens": tokens})
        batch = (fewer, length, min(-(-answers * fewer // n), fewer * length))
        return replace(self, settings=settings, batches=[batch], counts={})


_counted = {}


def parameters_of(key, kind, config):
    """Number of parameters of an architecture, extrapolated from models of one and two layers without weights.

    key: text that identifies the config, for the cache; kind: name of transformers' auto class."""
    import torch
    import transformers

    if key not in _counted:
        sizes = []
        for layers in (1, 2):
            with torch.device("meta"):
                model = getattr(transformers, kind).from_config(with_layers(config, layers))
            sizes.append(sum(parameter.numel() for parameter in model.parameters()))
        _counted[key] = sizes[0] + (config.num_hidden_layers - 1) * (sizes[1] - sizes[0])
    return _counted[key]


def with_layers(config, layers):
    """A copy of `config` with `layers` layers and without quantisation."""
    config = copy.deepcopy(config)
    vars(config).pop("quantization_config", None)
    config.num_hidden_layers = layers
    if kinds := getattr(config, "layer_types", None):  # an entry for each layer
        config.layer_types = (list(kinds) * layers)[:layers]
    return config


def of_model(model, rows, validation, settings, execution):
    """The Job of a training of a loaded `model`. rows, validation: [{"input_ids", "labels"}], the trainer's rows."""
    import torch

    base = architecture.unwrapped(model)
    writes = base.can_generate()
    return Job(
        config=base.config,
        settings=settings,
        precision=execution.precision,
        classes=None if writes else base.config.num_labels,
        per_token=not writes and isinstance(rows[0]["labels"], list),
        gpu=torch.cuda.is_available(),
        batches=batches_of(rows, settings),
        validation_tokens=padded_tokens(validation, execution),
        unpacked=not qlora.linear4bit(base) if settings.quantization else None,
    )


def of_run(run, rows=None, validation=(), gpu=None):
    """The Job of a training run; None if its architecture is not known without a download.

    rows, validation: training and validation rows as token ids; without them `lengths_of` finds their lengths. gpu:
    whether the training runs on a GPU (default: whether this machine has one)."""
    import torch

    gpu = torch.cuda.is_available() if gpu is None else gpu
    config = config_of(run.checkpoint, run.variant)
    if config is None:
        return None
    if rows is None:
        rows, validation = lengths_of(run)
    labels = run.data.labels if run.data else []
    classes = len(labels) or {"classification": 20}.get(run.task, 2)
    return Job(
        config=config,
        settings=run.settings,
        precision=precision_of(run, gpu),
        classes=classes if run.is_encoder else None,
        per_token=run.is_encoder and run.task == "summarization",
        gpu=gpu,
        batches=batches_of(rows, run.settings),
        validation_tokens=padded_tokens(validation, run.execution),
    )


def config_of(checkpoint, variant):
    """transformers' config of the checkpoint; None if that takes a download."""
    import transformers

    if checkpoint.name == variant.checkpoint and variant.shape:
        return transformers.AutoConfig.for_model(**variant.shape)
    try:
        if checkpoint.source == "gguf":
            file = files.expanded(checkpoint.name)
            return transformers.AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        return transformers.AutoConfig.from_pretrained(checkpoints.prepare(checkpoint), revision=checkpoint.pin)
    except (OSError, ValueError):
        return None


def precision_of(run, gpu):
    trains_all = run.settings.lora_r is None
    return precision.chosen(run.identity.precision, run.facts.PRECISION, trains_all, run.variant.shape, gpu)[0]


def batches_of(rows, settings):
    """[(rows, padded length, tokens of all answers)] of an epoch's micro-batches, as the trainer draws them."""
    size = batches.largest_divisor(settings.batch_size, settings.micro_batch_size)
    lengths = [len(row["input_ids"]) for row in rows]
    order = list(batches.by_length(lengths, settings.batch_size, settings.seed))
    shapes = []
    for start in range(0, len(order), size):
        batch_rows = order[start : start + size]
        answers = sum(lengths[i] - prompt_tokens(rows[i]) for i in batch_rows)
        shapes.append((len(batch_rows), max(lengths[i] for i in batch_rows), answers))
    return shapes


def prompt_tokens(row):
    """Number of tokens before the answer."""
    labels = row["labels"]
    return next((i for i, label in enumerate(labels) if label != -100), 0) if isinstance(labels, list) else 0


def padded_tokens(rows, execution):
    """Padded tokens of all rows, read in batches of similar length."""
    size = execution.inference_batch_size
    lengths = sorted(len(row["input_ids"]) for row in rows or ())
    batches = [lengths[start : start + size] for start in range(0, len(lengths), size)]
    return sum(len(batch) * batch[-1] for batch in batches)


# Lengths of rows, before a model is loaded


def lengths_source(run):
    """The source of the lengths of a run's rows, in words."""
    if run.data is None:
        return "typical of the data set"
    return "by characters" if run.checkpoint.source == "hub" else "as tokenised"


def lengths_of(run):
    """(training rows, validation rows) in the trainer's form. Lengths come from the tokenizer; from the number of
    characters if the tokenizer is not on this machine; from typical lengths of the task if the data are not."""
    rows = run.data
    if rows is None:
        return typical(run)
    if run.checkpoint.source == "hub":
        encode = functools.partial(by_characters, run)
    elif run.is_encoder:
        reader = encoders.reader(qlora.tokenizer(run.checkpoint), run.template, run.settings)
        encode = functools.partial(as_read, reader, rows.labels)
    else:
        tokenizer = qlora.tokenizer(run.checkpoint)
        prompter = encoding.prompter(tokenizer, run.template, run.format, run.settings, rows.labels)
        encode = functools.partial(encoding.training_rows, prompter, split="train")
    return tuple(
        repeated(encode(split[:LENGTH_SAMPLE]), len(split)) if split else [] for split in (rows.train, rows.validation)
    )


def as_read(reader, labels, rows):
    """Rows of an encoder in the trainer's form; the labels do not matter for their lengths."""
    return [{"input_ids": ids, "labels": 0} for ids in reader.inputs(rows, labels, "train")[0]]


def by_characters(run, rows):
    tokens = lambda text: round(len(text) / CHARACTERS)  # noqa: E731
    return [made_row(run, tokens(row["text"]), tokens(row["target"])) for row in rows]


def repeated(rows, count):
    return (rows * -(-count // len(rows)))[:count]


def typical(run):
    """(training rows, validation rows) with lengths spread evenly over the quantiles of TYPICAL."""
    count, documents, answers = TYPICAL[run.task]
    settings = run.settings
    trained = max(1, min(settings.max_train_samples or count, int(settings.train_sample_fraction * count)))
    validated = settings.max_validation_samples or -(-trained * VALIDATED.get(run.task, 0) // 1)

    def rows(n):
        # The golden ratio pairs long documents with short answers as often as with long ones, as in real data.
        places = [(10 * (i + 0.5) / n, 10 * (i * 0.618 % 1)) for i in range(n)]
        return [made_row(run, quantile(documents, place), quantile(answers, other)) for place, other in places]

    return rows(trained), rows(int(validated) if run.task in VALIDATED else 0)


def made_row(run, document, answer):
    """A row in the trainer's form, of `document` and `answer` tokens; the document is cut like the run's."""
    longest = run.settings.max_document_tokens
    if run.is_encoder:
        return {"input_ids": range(min(document + 2, longest)), "labels": 0}
    prompt = round(len(run.template.text + run.template.cue) / CHARACTERS) + min(document, longest)
    return {"input_ids": range(prompt + answer + 1), "labels": [-100] * prompt + [1]}


def quantile(points, place):
    """The value at `place` (0 … len(points) - 1), rounded; linear between the points."""
    lower = min(int(place), len(points) - 2)
    return round(points[lower] + (place - lower) * (points[lower + 1] - points[lower]))
