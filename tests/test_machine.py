"""The machine: limits of memory and cores, what running out of memory looks like, what cannot be run."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from common import machine
from common.checkpoints import Variant
from common.console import InputError
from common.runs import checks
from common.settings import Execution

ON_CPU = pytest.mark.skipif(torch.cuda.is_available(), reason="asks what a CPU does")
SEVEN = Variant("owner/seven", "Seven", None, 7_241_732_096, 6_979_321_856, 4096, {})


def python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def group(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("line", "folder", "files", "expected"),
    [
        ("0::/job", "job", {"cpu.max": "100000 100000"}, 1),
        ("0::/job/step", "job", {"cpu.max": "50000 100000"}, 1),  # of a group above
        ("0::/job", "job", {"cpu.max": "max 100000"}, None),
        ("4:cpu,cpuacct:/job", "cpu/job", {"cpu.cfs_quota_us": "100000", "cpu.cfs_period_us": "100000"}, 1),
        ("4:cpu,cpuacct:/job", "cpu/job", {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"}, None),
        ("4:memory:/job", "cpu/job", {"cpu.cfs_quota_us": "100000", "cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_cores_are_those_that_the_process_may_use(line, folder, files, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 3, 5})
    group(tmp_path / folder, files)
    (tmp_path / "own").write_text(f"{line}\n")
    assert machine.cores(tmp_path, tmp_path / "own") == (expected or 3)


def test_waiting_threads_sleep_and_are_as_many_as_the_cores():
    """In a process bound to one core, before torch is loaded; what the user sets stays."""
    code = "import os; [os.environ.pop(n) for n in ('OMP_WAIT_POLICY', 'OMP_NUM_THREADS')]; "
    code += "os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1]); import common, torch; "
    code += "print(os.environ['OMP_WAIT_POLICY'], torch.get_num_threads())"
    assert python(code, OMP_WAIT_POLICY="active", OMP_NUM_THREADS="9").split() == ["PASSIVE", "1"]
    kept = python("import common, os; print(os.environ['OMP_NUM_THREADS'])", OMP_NUM_THREADS="7")
    assert kept.strip() == "7"


@pytest.fixture
def limits(tmp_path):
    """limits(line of /proc/self/cgroup) -> the control groups' (allowed, used), below tmp_path."""

    def ask(line):
        own = tmp_path / "cgroup"
        own.write_text(f"9:pids:/\n{line}\n")
        return [each for each in machine.limits(tmp_path, own) if each[0] < 1e9]

    return ask


def test_a_control_group_of_version_2_limits_memory_and_its_page_cache_is_free(limits, tmp_path):
    files = {"memory.max": "800", "memory.current": "700", "memory.stat": "anon 100\ninactive_file 500\nfile 550\n"}
    group(tmp_path / "a" / "b", files)
    group(tmp_path / "a", files | {"memory.max": "600"})
    group(tmp_path, files | {"memory.max": "max"})
    assert limits("0::/a/b") == [(800, 200), (600, 200)]
    assert limits("0::/a/b/../..") != []


def test_a_control_group_of_version_1_limits_memory_and_its_page_cache_is_free(limits, tmp_path):
    stat = "total_inactive_file 50\ninactive_file 7\n"
    files = {"memory.limit_in_bytes": "400", "memory.usage_in_bytes": "100", "memory.stat": stat}
    group(tmp_path / "memory", files)  # in a container the group of that name is mounted as the root
    assert limits("4:cpu,memory:/docker/abc") == [(400, 50)]
    group(tmp_path / "memory", files | {"memory.limit_in_bytes": "9223372036854771712"})  # no limit
    assert limits("4:memory:/docker/abc") == []


def test_total_and_free_are_of_the_tightest_limit(monkeypatch):
    monkeypatch.setattr(machine, "limits", lambda: [(1000, 100), (500, 450), (2000, 1900)])
    monkeypatch.setattr(machine, "_libc", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (machine.total(), machine.free()) == (500, 50)


@pytest.mark.skipif(sys.platform != "linux", reason="needs ulimit -v")
def test_memory_ends_at_the_limit_of_the_process():
    code = """
import resource, torch
from common import machine
page = resource.getpagesize()
before = machine.free()
used = int(open("/proc/self/statm").read().split()[0]) * page
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20,) * 2)
assert before > 300 * 2**20 > machine.free() > 100 * 2**20, (before, machine.free())
assert machine.total() == used + 200 * 2**20
"""
    python(code, CUDA_VISIBLE_DEVICES="")


@pytest.mark.parametrize(
    ("text", "short_of_memory", "expected"),
    [
        ("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory", False, True),
        ("CUDA out of memory. Tried to allocate 2 GiB", False, True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", False, True),
        ("std::bad_alloc", False, True),
        ("could not create a primitive", True, True),
        ("could not create a primitive", False, False),
        ("could not execute a primitive", True, True),
        ("could not create a memory object", True, True),
        ("could not create a primitive descriptor for a matmul primitive", True, False),
        ("shapes cannot be multiplied", True, False),
    ],
)
def test_onednns_errors_are_a_lack_of_memory_only_where_little_is_left(text, short_of_memory, expected, monkeypatch):
    monkeypatch.setattr(machine, "free", lambda: 1e8 if short_of_memory else 8e9)
    monkeypatch.setattr(machine, "total", lambda: 16e9)
    assert machine.ran_out(RuntimeError(text)) == expected


def test_what_ran_out_is_given_back_and_other_errors_are_not_hidden():
    freed = []

    class Block:
        def __del__(self):
            freed.append("block")

    def work(kind, text=""):
        block = Block()  # noqa: F841
        raise kind(text)

    assert machine.attempt(work, MemoryError) is None
    assert freed == ["block"]
    assert machine.attempt(lambda one, two: one + two, 1, two=2) == 3
    with pytest.raises(RuntimeError, match="shapes"):
        machine.attempt(work, RuntimeError, text="shapes")


@pytest.mark.parametrize(
    ("held", "limit", "returns"),
    [
        (5e9, 3e9, False),
        (7e9, 3e9, True),
        (7e9, 8e9, False),
        (13e9, 20e9, True),
        (11e9, None, False),
        (13e9, None, True),
    ],
)
def test_freed_memory_is_returned_above_the_limit_and_a_quarter_of_the_machines(held, limit, returns, monkeypatch):
    calls = []
    monkeypatch.setattr(machine, "total", lambda: 24e9)
    monkeypatch.setattr(machine, "resident", lambda: held)
    monkeypatch.setattr(machine, "give_back", lambda: calls.append("back"))
    machine.hand_back(limit)
    assert bool(calls) == returns


@pytest.mark.parametrize(("gigabytes", "lacks"), [(0, True), (3, True), (6, False), (24, False)])
def test_a_machine_is_refused_only_where_the_4_bit_weights_do_not_fit(gigabytes, lacks, monkeypatch):
    class Card:
        total_memory = gigabytes * 1e9

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gigabytes > 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: Card)
    said = checks.shortage(SEVEN)
    assert bool(said) == lacks
    assert not lacks or ("Seven takes an NVIDIA GPU" in said and "4.1 GB in 4-bit" in said)
    if not gigabytes:
        assert checks.shortage(replace(SEVEN, parameters=2_000_000_000, linear_parameters=1_900_000_000)) is None


@ON_CPU
@pytest.mark.parametrize("flag", ["use_flash_attention", "use_liger_kernel"])
def test_kernels_of_a_gpu_are_refused_without_one(flag):
    execution = Execution(folder=Path("nowhere"))
    checks.check_kernels(execution)
    with pytest.raises(InputError, match=f"--{flag} needs an NVIDIA GPU .* drop the flag"):
        checks.check_kernels(replace(execution, **{flag: True}))


def test_compiling_is_refused_without_a_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="needs a C\\+\\+ compiler"):
        checks.check_kernels(Execution(folder=Path("nowhere"), torch_compile=True))


@pytest.mark.parametrize("name", ["unheard-of", "wandb", "mlflow"])
def test_a_tracker_that_is_not_there_is_one_line(name):
    checks.check_tracker("none")
    if name != "unheard-of":
        import importlib.util

        if importlib.util.find_spec(name):
            pytest.skip("installed here")
    with pytest.raises(InputError, match=f"--report_to {name}"):
        checks.check_tracker(name)
