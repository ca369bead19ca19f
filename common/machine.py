"""The machine at hand: what it computes on and in, and whether it can hold a model."""

import functools
import os
import platform
import shlex
import shutil
import sys
from pathlib import Path

from common import checkpoints, memory
from common.console import InputError

MIXED = "float32, products in bfloat16"  # how whole fine-tuning computes where bfloat16 is fast
CPU_LIMIT = 2e9  # parameters: above this a CPU is not a place to train or score


def device():
    """{"": place} for `device_map`: this process' own GPU, or the CPU."""
    import torch

    return {"": int(os.environ.get("LOCAL_RANK", "0")) if torch.cuda.is_available() else "cpu"}


def precision(wanted="bfloat16"):
    """The dtype to compute in, as torch names it: `wanted`, or float32 on a CPU without bfloat16
    instructions, where bfloat16 is emulated and many times slower."""
    import torch

    if torch.cuda.is_available():
        return "float16" if wanted == "bfloat16" and not torch.cuda.is_bf16_supported() else wanted
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return wanted if fast and wanted == "bfloat16" else "float32"


def run_precision(wanted, whole, gpu=None):
    """The precision of a run whose folder asks for `wanted`; `whole`: every weight is trained, which keeps float32 and
    multiplies in bfloat16 where that is fast. gpu: False or True for a CPU or a GPU, None for what is here."""
    import torch

    here = gpu is None or gpu == torch.cuda.is_available()
    fast = (precision() if here else "bfloat16" if gpu else "float32") == "bfloat16"
    if whole and fast:
        return MIXED
    return precision(wanted) if here else wanted


@functools.cache
def device_name():
    """The GPU's name, or the processor's."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "CPU " + next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return f"CPU {platform.machine()}"


def check(run):
    """Raises InputError if this machine cannot hold the model, or lacks what a flag needs; says what
    works here instead."""
    import importlib.util

    import torch

    for flag, package, how in (
        ("use_flash_attention", "flash_attn", "pip install flash-attn --no-build-isolation"),
        ("use_liger_kernel", "liger_kernel", "pip install liger-kernel"),
    ):
        there = importlib.util.find_spec(package)
        if vars(run.args).get(flag) and not (torch.cuda.is_available() and there):
            lack = "the package is missing" if torch.cuda.is_available() else "there is no GPU here: drop the flag"
            raise InputError(f"--{flag} needs an NVIDIA GPU and `{how}`; {lack}")
    if vars(run.args).get("torch_compile"):
        from torch._inductor import config

        if not any(shutil.which(name) for name in config.cpp.cxx if name):
            raise InputError("--torch_compile needs a C++ compiler (apt-get install g++); there is none: drop the flag")
    if run.checkpoint.name == run.variant.checkpoint and (lack := shortage(run.variant, run.trains)):
        raise InputError(f"{lack} This works here: {works_here(run)}")


def shortage(variant, trains=False):
    """What this machine lacks to run or train `variant`, a published checkpoint, in a sentence; None if it can."""
    import torch

    from common import budget

    needed = variant.memory_to_run  # what is trained is scored, too
    if trains:
        needed = max(needed, budget.peak_of_defaults(variant))
    here = f"{os.cpu_count()} CPU cores and {memory.total() / 1e9:.0f} GB of memory, no GPU"
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        if total >= needed:
            return None
        here = f"a GPU with {total / 1e9:.0f} GB"
    elif variant.parameters < CPU_LIMIT:
        return None
    doing = "train" if trains else "run"
    return f"{variant.name} takes an NVIDIA GPU with about {needed / 1e9:.0f} GB to {doing} in 4-bit; here: {here}."


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
    if not (run.args.data or os.environ.get("DATA_DIR")):
        extra = ["--demo"]
    return shlex.join(["python", *words, *extra])
