"""The machine at hand: what it computes on and in, how much memory there is and is free, and what it cannot run."""

import contextlib
import ctypes
import functools
import gc
import json
import os
import platform
import resource
import sys
import time
from pathlib import Path

MIXED = "float32, products in bfloat16"  # how whole fine-tuning computes where bfloat16 is fast
CPU_LIMIT = 2e9  # parameters: a larger model is too slow to train or score on a CPU
FASTER = 0.9  # bfloat16 is taken for less than this share of float32's time: a tie goes to the more exact one
RAN_OUT = ("can't allocate memory", "out of memory", "bad_alloc", "STATUS_ALLOC_FAILED")  # torch, CUDA, C++
VAGUE = ("could not create a memory", "could not create a primitive", "could not execute a primitive")  # oneDNN
PAGE = os.sysconf("SC_PAGE_SIZE")


def cuda():
    """torch.cuda where there is a GPU, else None."""
    import torch

    return torch.cuda if torch.cuda.is_available() else None


def device():
    """{"": place} for `device_map`: this process' own GPU, or the CPU."""
    return {"": int(os.environ.get("LOCAL_RANK", "0")) if cuda() else "cpu"}


@functools.cache
def device_name():
    """The GPU's name, or the processor's."""
    if gpu := cuda():
        return gpu.get_device_name()
    names = [line.split(": ")[1] for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return f"CPU {names[0] if names else platform.machine()}"


def threads():
    """Threads that torch computes with on a CPU."""
    import torch

    return torch.get_num_threads()


def precision(wanted="bfloat16"):
    """The dtype to compute in, as torch names it: `wanted`, or float32 on a CPU where bfloat16 is not faster."""
    if gpu := cuda():
        return "float16" if wanted == "bfloat16" and not gpu.is_bf16_supported() else wanted
    return "bfloat16" if wanted == "bfloat16" and bfloat16_is_faster() else "float32"


def run_precision(wanted, whole, gpu=None):
    """The precision of a run that asks for `wanted`; `whole`: every weight is trained, which keeps float32 and
    multiplies in bfloat16 where that is fast. gpu: False or True for a CPU or a GPU, None for what is here."""
    here = gpu is None or gpu == bool(cuda())
    fast = (precision() if here else "bfloat16" if gpu else "float32") == "bfloat16"
    return MIXED if whole and fast else precision(wanted) if here else wanted


@functools.cache
def bfloat16_is_faster():
    """Whether this CPU multiplies matrices faster in bfloat16 than in float32. The processor's flags do not tell: some
    with avx512_bf16 are twice as slow in it. Measured once (under a second) and kept in the cache folder."""
    import torch

    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return False  # emulated: many times slower
    file, known = cache() / "matrix_products.json", {}
    key = f"{device_name()}, {threads()} threads, torch {torch.__version__}"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        known = dict(json.loads(file.read_text(encoding="utf-8")))
        return known[key]["bfloat16"] < FASTER * known[key]["float32"]
    known[key] = {}
    for name in ("float32", "bfloat16"):
        matrix, seconds = torch.ones((1024, 1024), dtype=getattr(torch, name)), []
        for _ in range(6):
            began = time.perf_counter()
            matrix @ matrix
            seconds.append(time.perf_counter() - began)
        known[key][name] = min(seconds)  # whatever else runs here makes single ones slower
    with contextlib.suppress(OSError):  # a cache that cannot be written costs a second a run
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(known), encoding="utf-8")
        os.replace(scratch, file)
    return known[key]["bfloat16"] < FASTER * known[key]["float32"]


def cache():
    """Folder of what is made once for a machine: $FINETUNING_HUB_CACHE, or finetuning-hub in the user's caches."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FINETUNING_HUB_CACHE") or Path(base) / "finetuning-hub")


def attempt(work, *given, **named):
    """What work(…) returns, or None if memory ran out; then everything that it held is given back."""
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
    """Whether an exception says that memory ran out. oneDNN gives no reason, so it is believed only where little memory
    is left, and never about a "primitive descriptor": that is a kernel it does not have."""
    import torch

    text, known = str(error), isinstance(error, MemoryError | torch.OutOfMemoryError)
    vague = any(words in text for words in VAGUE) and "descriptor" not in text
    return known or any(words in text for words in RAN_OUT) or (vague and free() < max(1e9, total() / 10))


def total():
    """Bytes of memory that this process may come to use: the machine's, within its limits (ulimit -v, cgroups)."""
    return min(allowed for allowed, _ in limits())


def free():
    """Bytes this process may still ask for: of the GPU, or of the machine within its limits."""
    if gpu := cuda():
        return gpu.mem_get_info()[0] + gpu.memory_reserved() - gpu.memory_allocated()
    kept = _libc().mallinfo2().fields[8] if hasattr(_libc(), "mallinfo2") else 0  # freed, kept for the next request
    return max(0, min(allowed - used for allowed, used in limits())) + kept


def limits(groups="/sys/fs/cgroup", own="/proc/self/cgroup"):
    """[(bytes allowed, bytes used)]: of the machine, of the address space, of every control group around this process.
    Page cache that the kernel drops when memory is wanted does not count as used."""
    machine = PAGE * os.sysconf("SC_PHYS_PAGES")
    left = [int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable")]
    known = [(machine, machine - left[0] if left else machine // 2)]
    if (allowed := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
        known.append((allowed, PAGE * int(_lines("/proc/self/statm")[0].split()[0])))
    for _, kinds, path in (line.split(":", 2) for line in _lines(own)):
        if kinds and "memory" not in kinds.split(","):
            continue
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if kinds else ("memory.max", "memory.current")
        base = Path(groups, "memory" if kinds else "")  # version 1 or 2
        for folder in (base / path.lstrip("/") / "_").parents:
            if folder.is_relative_to(base):
                with contextlib.suppress(OSError, ValueError):  # not mounted here, or "max"
                    allowed, used = (int((folder / name).read_text()) for name in names)
                    stat = dict(line.split() for line in _lines(folder / "memory.stat"))
                    known.append(
                        (allowed, used - int(stat.get("total_inactive_file" if kinds else "inactive_file", 0)))
                    )
    return known


def resident():
    """Bytes of this process in memory now (Linux)."""
    return PAGE * int(_lines("/proc/self/statm")[0].split()[1])


def peak():
    """Bytes: the GPU allocator's peak since it was reset, or this process' highest resident set so far."""
    if gpu := cuda():
        return gpu.max_memory_allocated()
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


def keep_freed():
    """Tell glibc to keep freed blocks for the next request instead of handing each back to the kernel: a training step
    frees and asks for the same gigabytes many times, and page by page that took a third of its time."""
    if _libc():
        _libc().mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD, bytes
        _libc().mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD, bytes


def hand_back(limit=None):
    """Between steps: give back what is free once this process holds more than `limit` bytes, or half of the memory.
    Batches differ in length; holes that no later block fits into add up to two and three times what a step needs."""
    if _libc() and resident() > min(limit or total(), total() / 2):
        give_back()


def give_back():
    """Give back what this process keeps and does not use."""
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
            numbers = {"_fields_": [("fields", ctypes.c_size_t * 10)]}
            libc.mallinfo2.restype = type("mallinfo2", (ctypes.Structure,), numbers)
        return libc if libc.mallopt and libc.malloc_trim else None
    return None


def _lines(path):
    with contextlib.suppress(OSError, ValueError):
        return Path(path).read_text(encoding="utf-8").splitlines()
    return []
