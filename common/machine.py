"""The machine: its device and cores, its total and free memory, and running out of it."""

import contextlib
import ctypes
import functools
import gc
import os
import platform
import resource
import sys
from pathlib import Path

CPU_LIMIT = 2e9  # parameters: a larger model is too slow to train or score on a CPU
OOM_MESSAGES = ("can't allocate memory", "out of memory", "bad_alloc", "STATUS_ALLOC_FAILED")  # torch, CUDA, C++
ONEDNN_MESSAGES = ("could not create a memory", "could not create a primitive", "could not execute a primitive")
PAGE = os.sysconf("SC_PAGE_SIZE")


def cuda():
    """torch.cuda where there is a GPU, else None."""
    import torch

    return torch.cuda if torch.cuda.is_available() else None


def device():
    """The `device_map` {"": device} of this process' own GPU, or of the CPU."""
    return {"": int(os.environ.get("LOCAL_RANK", "0")) if cuda() else "cpu"}


@functools.cache
def device_name():
    """The GPU's name, or the processor's."""
    if gpu := cuda():
        return gpu.get_device_name()
    names = [line.split(": ")[1] for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return f"CPU {names[0] if names else platform.machine()}"


def threads():
    """Number of CPU threads that torch uses."""
    import torch

    return torch.get_num_threads()


def cache():
    """Folder of files made once per machine: $FINETUNING_HUB_CACHE, or finetuning-hub in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FINETUNING_HUB_CACHE") or Path(base) / "finetuning-hub")


def attempt(function, *args, **keywords):
    """The result of function(…), or None if memory ran out. The memory that it held is then freed."""
    try:
        return function(*args, **keywords)
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
    # Not inside the handler: there the traceback's frames still hold the tensors.
    gc.collect()
    give_back()
    return None


def ran_out(error):
    """Whether an exception means that memory ran out. oneDNN's messages give no reason: they count only if little
    memory is free, and never if they name a "primitive descriptor", which means a missing kernel."""
    import torch

    message, certain = str(error), isinstance(error, MemoryError | torch.OutOfMemoryError)
    vague = any(words in message for words in ONEDNN_MESSAGES) and "descriptor" not in message
    return certain or any(words in message for words in OOM_MESSAGES) or (vague and free() < max(1e9, total() / 10))


def total():
    """Bytes of memory that this process can use at most: the machine's, within the limits of ulimit -v and cgroups."""
    return min(allowed for allowed, _ in limits())


def free():
    """Bytes that this process can still allocate: on the GPU, or on the machine within its limits."""
    if gpu := cuda():
        return gpu.mem_get_info()[0] + gpu.memory_reserved() - gpu.memory_allocated()
    reusable = _libc().mallinfo2().fields[8] if hasattr(_libc(), "mallinfo2") else 0  # freed, but still in the heap
    return max(0, min(allowed - used for allowed, used in limits())) + reusable


def limits(groups="/sys/fs/cgroup", own_groups="/proc/self/cgroup"):
    """[(bytes allowed, bytes used)] of the machine, the address space, and every control group of this process. Page
    cache does not count as used where the kernel can drop it."""
    machine = PAGE * os.sysconf("SC_PHYS_PAGES")
    available = [int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable")]
    pairs = [(machine, machine - available[0] if available else machine // 2)]
    if (allowed := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
        pairs.append((allowed, PAGE * int(_lines("/proc/self/statm")[0].split()[0])))
    for folder, version in control_groups("memory", groups, own_groups):
        old = version == 1
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
        with contextlib.suppress(OSError, ValueError):  # not mounted here, or "max"
            allowed, used = (int((folder / name).read_text()) for name in names)
            stat = dict(line.split() for line in _lines(folder / "memory.stat"))
            pairs.append((allowed, used - int(stat.get("total_inactive_file" if old else "inactive_file", 0))))
    return pairs


def cores(groups="/sys/fs/cgroup", own_groups="/proc/self/cgroup"):
    """CPU cores that this process may use: those it is bound to, or fewer where a control group limits its time."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder, version in control_groups("cpu", groups, own_groups):
        with contextlib.suppress(OSError, ValueError):
            if version == 1:
                quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            else:
                quota, period = map(int, (folder / "cpu.max").read_text().split())  # or "max 100000"
            if quota > 0:
                usable = min(usable, max(1, round(quota / period)))
    return usable


def control_groups(controller, groups, own_groups):
    """(folder, version 1 or 2) of this process' control groups for "memory" or "cpu", and of the groups above them."""
    for _, controllers, path in (line.split(":", 2) for line in _lines(own_groups)):
        if controllers and controller not in controllers.split(","):
            continue
        mount = Path(groups, controller if controllers else "")
        for folder in (mount / path.lstrip("/") / "_").parents:
            if folder.is_relative_to(mount):
                yield folder, 1 if controllers else 2


def resident():
    """Bytes of this process in memory now (resident set, Linux)."""
    return PAGE * int(_lines("/proc/self/statm")[0].split()[1])


def peak():
    """Peak memory in bytes: of the GPU allocator since its reset, or this process' largest resident set so far."""
    if gpu := cuda():
        return gpu.max_memory_allocated()
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


def keep_freed():
    """Make glibc reuse freed blocks instead of returning each to the kernel: a training step frees and allocates the
    same gigabytes many times, and new pages for them took a third of its time."""
    if _libc():
        _libc().mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD, bytes
        _libc().mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD, bytes


def hand_back(limit=None):
    """Between steps: return unused memory once this process holds more than `limit` bytes and a quarter of all memory,
    or half of it. Batches differ in length, and holes in the heap that fit no later block add up to 2 to 3 times a
    step's need. Pages that were returned are slow to get again: below a quarter they stay."""
    if _libc() and resident() > min(max(limit or total(), total() / 4), total() / 2):
        give_back()


def give_back():
    """Return memory that this process holds and does not use."""
    if _libc():
        _libc().malloc_trim(0)
    if gpu := cuda():
        gpu.empty_cache()


@functools.cache
def _libc():
    """glibc, or None where there is none (macOS, musl)."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        if hasattr(libc, "mallinfo2"):  # since glibc 2.33
            layout = {"_fields_": [("fields", ctypes.c_size_t * 10)]}
            libc.mallinfo2.restype = type("mallinfo2", (ctypes.Structure,), layout)
        return libc if libc.mallopt and libc.malloc_trim else None
    return None


def _lines(path):
    """The lines of a text file; [] if it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        return Path(path).read_text(encoding="utf-8").splitlines()
    return []
