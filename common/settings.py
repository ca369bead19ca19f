"""What a run is told: `Settings` can change a number and are part of its identity, `Execution` cannot.

A script writes its Settings down in full, so that the experiment can be read and changed on one page. None means that
a setting does not apply to the run.
"""

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Every hyper-parameter of a run. Flags of the same name replace them (common/flags.py)."""

    # the rows, thinned after the splits are made; the same ones for every seed and model
    train_sample_fraction: float = 1.0  # share of the training rows; smaller shares are subsets of larger ones
    max_train_samples: int | None = None
    max_validation_samples: int | None = None
    max_test_samples: int | None = None

    # what the model reads and writes, in tokens
    max_document_tokens: int = 512  # a longer document is cut; the prompt never is
    max_new_tokens: int | None = None  # of an answer
    prompt_type: str | None = None  # "zero-shot", "one-shot", "few-shot": an untrained model
    shots: int = 0  # examples in the prompt
    prompt_tokens: int | None = None  # that a prompt with examples may take; examples are shortened to it

    # how it writes; without any of them the likeliest token is taken
    temperature: float | None = None
    top_k: int | None = None
    num_beams: int = 1

    # fine-tuning
    trainer: str | None = None  # "SFTTrainer" of trl, "Trainer" of transformers, "loop" of the script itself
    quantization: str | None = None  # "nf4, double": of the frozen weights, in training and scoring; None: as published
    lora_r: int | None = None  # rank of the adapter; None: every weight is trained
    lora_alpha: int | None = None  # the adapter's output is scaled by alpha / rank
    dropout: float | None = None  # on the adapter's input
    full_tune: bool = False  # adapters on all linear layers but the head; else on attention alone
    targets: tuple | None = None  # those layers, by the ends of their names
    epochs: float | None = None
    learning_rate: float | None = None
    lr_scheduler: str | None = None  # as transformers names it: "constant", "linear", "cosine", …
    warmup_ratio: float | None = None  # share of the steps; "constant" has no warm-up
    optimizer: str | None = None  # as transformers names it
    weight_decay: float | None = None
    max_grad_norm: float | None = None  # gradients are clipped to it
    batch_size: int | None = None  # rows an optimizer step
    micro_batch_size: int | None = None  # rows a forward pass; dropout and padding are drawn by it
    neftune: float | None = None  # alpha of the noise on the embeddings
    keep: str | None = None  # "last": the last epoch's weights; "best": the best epoch's on the validation rows

    # models that read and cannot write
    pooling: str | None = None  # where frozen features are read: "cls" or "mean"
    cut: str | None = None  # long texts lose their "end" or their "middle"
    picks: int | None = None  # utterances in an extractive summary
    baseline: str | None = None  # "dummy" or "frozen-features"

    head: str | None = None  # "random": a class head that nobody trained
    bertscore_model: str | None = None  # encoder of BERTScore
    seed: int = 42  # of training and sampling; never of the rows

    def replaced(self, changes):
        """These settings with some of them changed. changes: {name: value}; lists become tuples."""
        frozen = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
        return dataclasses.replace(self, **frozen)

    def fields(self):
        """As JSON has them."""
        return dataclasses.asdict(self) | {"targets": self.targets and list(self.targets)}

    def untuned(self):
        """Without what only a training has: settings of the untrained model."""
        names = ("lora_r", "lora_alpha", "dropout", "targets", "trainer", "epochs", "keep")
        more = ("learning_rate", "lr_scheduler", "warmup_ratio", "optimizer", "weight_decay", "max_grad_norm")
        return self.replaced(dict.fromkeys((*names, *more, "batch_size", "micro_batch_size", "neftune")))

    @classmethod
    def names(cls):
        return [field.name for field in dataclasses.fields(cls)]

    @property
    def samples(self):
        """Whether answers are drawn, so that --seed matters to an untrained model."""
        return bool(self.temperature or self.top_k)

    @property
    def decoding(self):
        return {"temperature": self.temperature, "top_k": self.top_k, "num_beams": self.num_beams}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """Where and how a run runs."""

    folder: Path  # adapter, checkpoints, predictions
    resume: bool = False
    precision: str = "float32"  # what is computed in here, as torch names it, or machine.MIXED
    inference_batch_size: int = 8  # rows scored at once, at most; fewer where memory says so
    stages: tuple = ("base", "tuned")  # which models the test stage scores
    report_to: str = "none"  # tracker, as transformers names it
    use_flash_attention: bool = False
    use_liger_kernel: bool = False
    torch_compile: bool = False
