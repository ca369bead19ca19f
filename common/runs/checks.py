"""Checks before anything is loaded: flags that need what this machine lacks, and models that it cannot hold."""

import importlib.util
import os
import shlex
import shutil
import sys
from pathlib import Path

from common import checkpoints, console, data, machine, processes
from common.console import InputError

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # bytes of a weight with its scales (double quantisation)
# flag -> (module, arguments of pip install)
PACKAGES = {"use_flash_attention": ("flash_attn", "flash-attn --no-build-isolation")}
PACKAGES |= {"use_liger_kernel": ("liger_kernel", "liger-kernel")}


def check_machine(run):
    """Raises InputError, with a command that works here, if this machine cannot hold the model of `run` or lacks what
    its flags need."""
    check_processes(run)
    check_kernels(run.execution)
    check_tracker(run.execution.report_to)
    lack = shortage(run.variant) if run.checkpoint.name == run.variant.checkpoint else None
    if lack:
        raise InputError(f"{lack} This works here: {works_here(run)}")


def works_here(run):
    """The same command with the embedded model, and with the sample if the data are not on this machine."""
    words = list(sys.argv)
    while "--pretrained_ckpt" in words:
        at = words.index("--pretrained_ckpt")
        del words[at : at + 2]
    words = [word for word in words if not word.startswith("--pretrained_ckpt=")]
    extra = ["--pretrained_ckpt", checkpoints.stand_in(run.variant.format)]
    if run.trains and not run.args.max_train_samples:
        extra += ["--max_train_samples", "400"]
    if not run.args.max_test_samples:
        extra += ["--max_test_samples", "64"]
    if not data.at_hand(run.task, run.args.data, run.args.demo):
        extra = ["--demo"]
    return shlex.join(["python", *words, *extra])


def shortage(variant):
    """A sentence that says why this machine cannot load `variant`, a published checkpoint; None if it can. It counts
    the weights only: the memory of a training depends on the rows, and common/budget estimates it."""
    gpu = machine.cuda().get_device_properties(0).total_memory if machine.cuda() else 0
    weights = NF4_BYTES * variant.linear_parameters + 2 * (variant.parameters - variant.linear_parameters)
    if gpu >= weights or (not gpu and variant.parameters <= machine.CPU_LIMIT):
        return None
    here = f"a GPU with {gpu / 1e9:.0f} GB" if gpu else f"{os.cpu_count()} CPU cores and no GPU"
    size = f"{variant.parameters / 1e9:.1f} billion parameters are {weights / 1e9:.1f} GB in 4-bit"
    return f"{variant.name} takes an NVIDIA GPU: its {size}; here: {here}."


def check_processes(run):
    """Raises InputError if `run` cannot use its processes, or leaves cards to none."""
    count, cards = processes.count(), machine.cuda().device_count() if machine.cuda() else 0
    if count == 1 and cards > 1 and run.trains:
        raise InputError(
            f"{cards} cards are visible to one process: `accelerate launch --num_processes {cards} {sys.argv[0]} …` "
            "trains on all of them, CUDA_VISIBLE_DEVICES=0 on one"
        )
    if count > 1 and (not run.trains or run.experiment.kind == "loop"):
        raise InputError(f"{count} processes share a Trainer's training, this script has none: start it without them")
    if count > 1 and run.settings.batch_size % count:
        raise InputError(f"--batch_size {run.settings.batch_size} does not divide among {count} processes")


def check_kernels(execution):
    """Raises InputError if this machine lacks what a flag of `execution` (settings.Execution) needs."""
    for flag, (module, words) in PACKAGES.items():
        if getattr(execution, flag) and not (machine.cuda() and importlib.util.find_spec(module)):
            lack = "the package is missing" if machine.cuda() else "there is no GPU here: drop the flag"
            raise InputError(f"--{flag} needs an NVIDIA GPU and `pip install {words}`; {lack}")
    if execution.torch_compile:
        from torch._inductor import config

        if not any(shutil.which(name) for name in config.cpp.cxx if name):
            raise InputError("--torch_compile needs a C++ compiler (apt-get install g++); there is none: drop the flag")


def check_tracker(name):
    """Raises InputError for a --report_to that transformers does not know or whose package is missing."""
    if name == "none":
        return
    from transformers.integrations import get_reporting_integration_callbacks

    try:
        for tracker in get_reporting_integration_callbacks([name]):
            tracker()
    except (ValueError, RuntimeError, ImportError) as error:
        raise InputError(f"--report_to {name}: {console.one_line(error)[:200]}") from None


def check_baseline(name, task):
    """Raises InputError for a --baseline that does not fit the task or whose package is missing."""
    if name == "setfit" and task == "summarization":
        raise InputError("--baseline setfit learns classes, not summaries: choose another baseline")
    if name == "setfit" and not importlib.util.find_spec("setfit"):
        raise InputError("--baseline setfit takes its package: pip install -e '.[setfit]'")


def check_encoder(name):
    """Raises InputError for an encoder that BERTScore cannot use."""
    if name != checkpoints.stand_in("encoder"):
        from bert_score.utils import model2layers

        if name not in model2layers:
            raise InputError(f"--bertscore_model {name} is not known to bert-score; give minilm or, say, roberta-large")


def check_context(settings, variant):
    """Raises InputError if the document and the answer together exceed the context of `variant`. It leaves out the few
    dozen other tokens of the prompt."""
    written = settings.max_new_tokens or 0
    read = max(settings.max_document_tokens, settings.prompt_tokens if settings.shots else 0)
    if read + written > variant.context:
        raise InputError(
            f"{read} tokens read and {written} written do not fit the context of {variant.name}, "
            f"{variant.context} tokens: lower --max_document_tokens"
        )


def check_places(*paths):
    """Raises InputError if one of the files cannot be written, before the measurement takes an hour."""
    for path in filter(None, paths):
        folder = Path(path).resolve().parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from None
        is_other = Path(path).exists() and not Path(path).is_file()  # a device would be replaced by a file
        if is_other or not os.access(folder, os.W_OK):
            raise InputError(f"cannot write {path}: it is no file, or its folder may not be written")
