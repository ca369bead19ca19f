"""Several processes for one training, as `torchrun` or `accelerate launch` starts them on one machine or on several.

Each has its own device and its share of every batch. The first one prints, writes and, after the training, scores; the
others leave.
"""

import contextlib
import os

SHARDED = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")  # set by `accelerate launch`


def count():
    """Number of processes of this training."""
    return int(os.environ.get("WORLD_SIZE") or 1) if "LOCAL_RANK" in os.environ else 1


def rank():
    """Number of this process, from 0."""
    return int(os.environ.get("RANK") or 0) if count() > 1 else 0


def sharded():
    """Whether each process holds a part of the weights only."""
    return count() > 1 and any(os.environ.get(name) == "true" for name in SHARDED)


def state():
    """accelerate's PartialState: it connects the processes when it is first made."""
    import accelerate
    import torch

    return accelerate.PartialState(cpu=not torch.cuda.is_available())


def wait():
    """Until all processes are here."""
    if count() > 1:
        state().wait_for_everyone()


@contextlib.contextmanager
def first_goes_first():
    """Context in which the first process is through before the others enter: they find what it has left on disk."""
    with state().main_process_first() if count() > 1 else contextlib.nullcontext():
        yield


def part():
    """The end of the common work: the first process goes on alone, the others exit with code 0."""
    if count() == 1:
        return
    wait()
    state().destroy_process_group()
    if rank():
        raise SystemExit(0)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)
