"""The process' memory: glibc told how to handle a CPU training step's gigabytes, and the peak that was reached."""

import contextlib
import ctypes
import functools
import os
import resource
import sys
from pathlib import Path


@functools.cache
def _libc():
    """glibc, or None where there is none (macOS, musl)."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt, libc.malloc_trim  # noqa: B018
        return libc
    return None


def keep_freed():
    """Keep freed blocks for the next request instead of handing each back to the kernel: a step frees and
    asks for the same gigabytes many times, and page by page that took a third of its time."""
    if _libc():
        _libc().mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD, bytes
        _libc().mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD, bytes


def hand_back(limit=None):
    """Between steps: hand back what is free once this process holds more than `limit` bytes, or half of
    the machine's memory. Batches differ in length, and holes that none of the next blocks fits into add up: to two and
    three times what a step needs."""
    if _libc() and resident() > min(limit or total(), total() / 2):
        give_back()


def give_back():
    """Hand back what this process keeps and does not use."""
    import torch

    if _libc():
        _libc().malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def attempt(work, *given, **named):
    """What work(…) returns, or None if memory ran out; then everything that it held is given back."""
    import gc

    try:
        return work(*given, **named)
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
    # Only here, behind the handler, are the frames gone that held what was computed.
    gc.collect()
    give_back()
    return None


def ran_out(error):
    """Whether an exception says that memory ran out: Python's, torch's, C++'s or oneDNN's, which names no reason."""
    import torch

    said = ("can't allocate memory", "out of memory", "bad_alloc", "could not create a", "could not execute a")
    known = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, known) or any(words in str(error) for words in said)


def resident():
    """Bytes of this process in memory now (Linux)."""
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def free():
    """Bytes this process may still ask for: of the GPU, or of the machine within its limits (ulimit -v, cgroup)."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    found = [int(line.split()[1]) * 1024 for line in lines("/proc/meminfo") if line.startswith("MemAvailable")]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        found.append(limit - int(lines("/proc/self/statm")[0].split()[0]) * os.sysconf("SC_PAGE_SIZE"))
    group = cgroup()
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or "max"
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(found, default=total() // 2) + kept()


def kept():
    """Bytes that were freed and that glibc keeps for the next request."""
    if not _libc() or not hasattr(_libc(), "mallinfo2"):
        return 0
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    found = type("mallinfo2", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in names.split()]})
    _libc().mallinfo2.restype = found
    return _libc().mallinfo2().fordblks


def cgroup():
    """The folder of this process' control group (version 2)."""
    own = [line.split("::")[1] for line in lines("/proc/self/cgroup") if line.startswith("0::")]
    return Path("/sys/fs/cgroup" + (own[0] if own else ""))


def lines(path):
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="ascii").splitlines()
    return []


def total():
    """Bytes of memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak():
    """Bytes: the GPU allocator's peak since it was reset, or this process' highest resident set so far."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024
