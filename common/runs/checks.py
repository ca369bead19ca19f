"""What is refused before anything is loaded: flags that this machine cannot serve, models that it cannot hold."""

import importlib.util
import os
import shlex
import shutil
import sys

from common import checkpoints, console, data, machine
from common.console import InputError

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # a weight, with its scales (double quantisation)
PACKAGES = {"use_flash_attention": ("flash_attn", "flash-attn --no-build-isolation")}  # flag -> module, pip's words
PACKAGES |= {"use_liger_kernel": ("liger_kernel", "liger-kernel")}


def check_machine(run):
    """Raises InputError if this machine cannot hold the model or lacks what a flag needs; says what works instead."""
    check_kernels(run.execution)
    check_tracker(run.execution.report_to)
    lack = shortage(run.variant) if run.checkpoint.name == run.variant.checkpoint else None
    if lack:
        raise InputError(f"{lack} This works here: {works_here(run)}")


def works_here(run):
    """The same command on the embedded model; on the sample if no data is at hand."""
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
    """What this machine lacks to load `variant`, a published checkpoint, in a sentence; None if nothing. What training
    takes beside the weights depends on the rows, and is the budget's."""
    gpu = machine.cuda().get_device_properties(0).total_memory if machine.cuda() else 0
    weights = NF4_BYTES * variant.linear_parameters + 2 * (variant.parameters - variant.linear_parameters)
    if gpu >= weights or (not gpu and variant.parameters <= machine.CPU_LIMIT):
        return None
    here = f"a GPU with {gpu / 1e9:.0f} GB" if gpu else f"{os.cpu_count()} CPU cores and no GPU"
    size = f"{variant.parameters / 1e9:.1f} billion parameters are {weights / 1e9:.1f} GB in 4-bit"
    return f"{variant.name} takes an NVIDIA GPU: its {size}; here: {here}."


def check_kernels(execution):
    """Raises InputError where the machine lacks what a flag of `execution` needs."""
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


def check_encoder(name):
    """Raises InputError for an encoder that BERTScore cannot use, before anything is trained."""
    if name != checkpoints.stand_in("encoder"):
        from bert_score.utils import model2layers

        if name not in model2layers:
            raise InputError(f"--bertscore_model {name} is not known to bert-score; give minilm or, say, roberta-large")


def check_context(settings, variant):
    """Raises InputError where what is read and what is written do not fit the context of `variant` together. The rest
    of the prompt is not counted: it is of a few dozen tokens."""
    written = settings.max_new_tokens or 0
    read = max(settings.max_document_tokens, settings.prompt_tokens if settings.shots else 0)
    if read + written > variant.context:
        raise InputError(
            f"{read} tokens read and {written} written do not fit the context of {variant.name}, "
            f"{variant.context} tokens: lower --max_document_tokens"
        )
