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
        _libc().malloc_trim(0)


def resident():
    """Bytes of this process in memory now (Linux)."""
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def free():
    """Bytes this process may still ask for: of the GPU, or of the machine within its limits (ulimit -v, cgroup)."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    found = [int(line.split()[1]) * 1024 for line in lines("/proc/meminfo") if line.startswith("MemAvailable")]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        found.append(limit - int(lines("/proc/self/statm")[0].split()[0]) * os.sysconf("SC_PAGE_SIZE"))
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or "max"
        found.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return min(found, default=total() // 2)


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
