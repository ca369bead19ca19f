"""A run's configuration: `Settings` can change its numbers and are part of its identity, `Execution` cannot.

A script writes all its Settings down, so that the experiment can be read and changed on one page. None means that a
setting does not apply to the run.
"""

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Every hyper-parameter of a run. A flag of the same name replaces its value (common/runs/flags.py)."""

    # rows, subsampled after the split; the same ones for every seed and model
    train_sample_fraction: float = 1.0  # share of the training rows; smaller shares are subsets of larger ones
    max_train_samples: int | None = None
    max_validation_samples: int | None = None
    max_test_samples: int | None = None

    # prompt and answer, in tokens
    max_document_tokens: int = 512  # a longer document is cut; the rest of the prompt never is
    max_new_tokens: int | None = None  # of an answer
    prompt_type: str | None = None  # of an untrained model: "zero-shot", "one-shot" or "few-shot"
    shots: int = 0  # examples in the prompt
    prompt_tokens: int | None = None  # maximum of a prompt with examples, which are cut to fit

    # decoding; greedy with these defaults
    temperature: float | None = None
    top_k: int | None = None
    num_beams: int = 1

    # fine-tuning
    trainer: str | None = None  # "SFTTrainer" (trl), "Trainer" (transformers) or "loop" (the script's own)
    quantization: str | None = None  # "nf4, double": of the frozen weights, always; None: not quantised
    lora_r: int | None = None  # rank of the adapter; None: every weight is trained
    lora_alpha: int | None = None  # the adapter's output is scaled by alpha / rank
    dropout: float | None = None  # probability, on the adapter's input
    full_tune: bool = False  # adapters on all linear layers but the head, not on attention alone
    targets: tuple | None = None  # layers with an adapter, by the ends of their names
    epochs: float | None = None
    learning_rate: float | None = None
    lr_scheduler: str | None = None  # as transformers names it: "constant", "linear", "cosine", …
    warmup_ratio: float | None = None  # share of the steps; "constant" has no warm-up
    optimizer: str | None = None  # as transformers names it
    weight_decay: float | None = None
    max_grad_norm: float | None = None  # gradients are clipped to this norm
    batch_size: int | None = None  # rows of an optimizer step
    micro_batch_size: int | None = None  # rows of a forward pass; it changes dropout and padding
    neftune: float | None = None  # alpha of the noise on the embeddings
    keep: str | None = None  # the weights of the "last" epoch or of the "best" one on the validation rows

    # encoders
    pooling: str | None = None  # of frozen features: "cls" or "mean"
    cut: str | None = None  # long texts lose their "end" or their "middle"
    picks: int | None = None  # utterances in an extractive summary
    baseline: str | None = None  # "dummy", "tfidf", "frozen-features" or "setfit"

    head: str | None = None  # "random": an untrained classification head
    bertscore_model: str | None = None  # encoder of BERTScore
    seed: int = 42  # of training and sampling; the rows never depend on it

    def replaced(self, changes):
        """A copy with other values. changes: {name: value}; lists become tuples."""
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
        return dataclasses.replace(self, **values)

    def fields(self):
        """The settings as a dictionary for JSON."""
        return vars(self) | {"targets": self.targets and list(self.targets)}

    def untuned(self):
        """The settings of the untrained model: None for those that only a training has."""
        names = ("lora_r", "lora_alpha", "dropout", "targets", "trainer", "epochs", "keep")
        more = ("learning_rate", "lr_scheduler", "warmup_ratio", "optimizer", "weight_decay", "max_grad_norm")
        return self.replaced(dict.fromkeys((*names, *more, "batch_size", "micro_batch_size", "neftune")))

    @classmethod
    def names(cls):
        return [field.name for field in dataclasses.fields(cls)]

    @property
    def samples(self):
        """Whether answers are sampled, so that --seed changes those of an untrained model too."""
        return bool(self.temperature or self.top_k)

    @property
    def decoding(self):
        return {"temperature": self.temperature, "top_k": self.top_k, "num_beams": self.num_beams}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """Where and how a run is executed."""

    folder: Path  # adapter, checkpoints, predictions
    resume: bool = False
    goes_on_from: Path | None = None  # folder of the same training with fewer epochs, which is continued
    goes_on: bool = False  # whether a training with more epochs continues this one: its last checkpoint is kept
    precision: str = "float32"  # to compute in, as torch names it, or precision.MIXED
    inference_batch_size: int = 8  # rows of a batch, at most; fewer if memory is short
    stages: tuple = ("base", "tuned")  # which models the test stage scores
    report_to: str = "none"  # tracker, as transformers names it
    use_flash_attention: bool = False
    use_liger_kernel: bool = False
    torch_compile: bool = False
