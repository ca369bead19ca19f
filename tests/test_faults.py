"""Sweeps and trainings under faults: real processes, real kills. `make faults` runs it, the fast suite does not.

The grid is the demo of Mistral's summarization (ranks 2 4 8 16, dropouts 0.1 0.2 0.5) on a tiny model of the true class
or, with FAULTS_CHECKPOINT=smollm2, on the embedded one.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import copied

from common import bookkeeping

pytestmark = pytest.mark.faults
SCRIPT = "mistral/mistral_summarization.py"
AXES = ("--lora_r", "2", "4", "8", "16", "--dropout", "0.1", "0.2", "0.5")
SAME = ("--demo", "--no_before", "--precision", "float32", "--threads", "1", "--max_test_samples", "8")
SAME += ("--max_new_tokens", "8", "--epochs", "3")
CELLS, KILLS = 12, 20


@pytest.fixture(scope="session")
def checkpoint(tiny_folder):
    return ["--pretrained_ckpt", os.environ.get("FAULTS_CHECKPOINT") or str(tiny_folder)]


@pytest.fixture
def home(tmp_path):
    return copied(tmp_path / "home", "common", "mistral")


def start(home, *words, log=None, env=None):
    """The started `python -m common …` or script of a copy of the repository, the leader of a process group."""
    command = [sys.executable, *(["-m", "common"] if words[0] == "sweep" else []), *words]
    environment = os.environ | {"PYTHONPATH": str(home)} | (env or {})
    output = open(log, "a", encoding="utf-8") if log else subprocess.PIPE  # noqa: SIM115
    return subprocess.Popen(
        command, cwd=home, env=environment, stdout=output, stderr=output, text=True, start_new_session=True
    )


def sweep(home, *words, **keywords):
    return start(home, "sweep", SCRIPT, *AXES, *SAME, *words, **keywords)


def ended(process, code=0, timeout=1200):
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == code, f"{process.returncode}: {(out or '')[-2000:]}{(err or '')[-3000:]}"
    return out, err


def scores(home):
    """{id of a cell: (its scores, its losses)}; fails if a cell is not done or something is left over."""
    records = [json.loads(path.read_text()) for path in (home / "mistral" / "experiments").glob("*/record.json")]
    assert {record["status"] for record in records} == {"done"}
    left = [path for path in (home / "mistral").rglob("*") if path.name.startswith(".") or "checkpoint-" in path.name]
    assert not left, left
    assert len({record["id"] for record in records}) == len(records)
    return {record["id"]: (record["metrics"], record["training"]["losses"]) for record in records}


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, checkpoint):
    home = copied(tmp_path_factory.mktemp("undisturbed"), "common", "mistral")
    ended(sweep(home, *checkpoint))
    assert len(scores(home)) == CELLS
    return scores(home)


def children(pid):
    listed = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# Sweeps


def test_twenty_kills_of_cells_and_of_the_runner(home, checkpoint, undisturbed, tmp_path):
    chance, kills, log = random.Random(1), {"runner": 0, "cell": 0}, tmp_path / "log"
    while True:
        runner = sweep(home, *checkpoint, log=log)
        while runner.poll() is None and sum(kills.values()) < KILLS:
            time.sleep(chance.uniform(2, 9))
            cells = children(runner.pid)
            whom = "runner" if chance.random() < 0.3 or not cells else "cell"
            if runner.poll() is None:
                kill(runner.pid if whom == "runner" else cells[0])
                kills[whom] += 1
        if runner.wait(timeout=1200) == 0:
            break
    print(f"\nkilled: {kills}")
    assert scores(home) == undisturbed
    before = log.read_text().count("training: ")
    began = time.monotonic()
    out, _ = ended(sweep(home, *checkpoint))
    seconds = time.monotonic() - began
    assert "nothing to do" in out
    assert log.read_text().count("training: ") == before
    print(f"the finished sweep, called again: {seconds:.1f} s")
    assert seconds < 2 + 2  # two of them on a free machine


def test_two_runners_on_one_folder_train_every_cell_once(home, checkpoint, undisturbed, tmp_path):
    runners = [sweep(home, *checkpoint, log=tmp_path / f"log{number}") for number in (1, 2)]
    assert [runner.wait(timeout=1200) for runner in runners] == [0, 0]
    assert scores(home) == undisturbed
    said = "".join((tmp_path / f"log{number}").read_text() for number in (1, 2))
    assert sum("rows, " in line and line.startswith("training: ") for line in said.splitlines()) == CELLS


def test_two_shards_in_two_checkouts_are_merged(home, checkpoint, undisturbed, tmp_path):
    other = copied(tmp_path / "other", "common", "mistral")
    for place, part in ((home, "1/2"), (other, "2/2")):
        ended(sweep(place, *checkpoint, "--shard", part))
    ended(start(home, "sweep", "merge", str(other)))
    assert scores(home) == undisturbed
    assert "nothing to do" in ended(sweep(home, *checkpoint))[0]


def test_submitits_own_processes(home, checkpoint, undisturbed):
    pytest.importorskip("submitit")
    ended(sweep(home, *checkpoint, "--engine", "slurm", "--slots", "2"))
    assert scores(home) == undisturbed


def test_a_whole_ray_node_and_a_worker_are_killed(home, checkpoint, undisturbed, tmp_path):
    pytest.importorskip("ray")
    ray = str(Path(sys.executable).with_name("ray"))
    # Ray's default lets a second node in by a token only, which has to be generated first.
    environment = os.environ | {"PYTHONPATH": str(home), "RAY_AUTH_MODE": "disabled"}
    common = ["--num-cpus", "1", "--disable-usage-stats", "--include-dashboard", "false"]
    places = [["--head", "--port", "7379", "--node-ip-address", "127.0.0.1"], ["--address", "127.0.0.1:7379"]]
    places[1] += ["--node-ip-address", "127.0.0.2"]

    def run(*words):
        subprocess.run([ray, *words], env=environment, check=True, capture_output=True, timeout=120)

    try:
        for place in places:
            run("start", *place, *[word for word in common if place is places[0] or word not in common[3:]])
        words = (*checkpoint, "--engine", "ray", "--ray_address", "127.0.0.1:7379")
        runner = sweep(home, *words, log=tmp_path / "log", env={"RAY_AUTH_MODE": "disabled"})
        records = home / "mistral" / "experiments"
        wait(lambda: len(list(records.glob("*/record.json"))) >= 2, runner)
        worker = next(pid for pid in processes_with("ray::") if children(pid))
        kill(worker)
        wait(lambda: len(list(records.glob("*/record.json"))) >= 4, runner)
        (raylet,) = processes_with("raylet/raylet", "--node_ip_address=127.0.0.2")
        for pid in (raylet, *children(raylet)):
            kill(pid)
        assert runner.wait(timeout=1200) == 0, (tmp_path / "log").read_text()[-3000:]
    finally:
        subprocess.run([ray, "stop", "--force"], env=environment, check=False, capture_output=True)
    assert scores(home) == undisturbed


def processes_with(*parts):
    """Process ids whose command has all of the parts."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 1) for line in listed.splitlines()]
    return [int(pid) for pid, command in lines if all(part in command for part in parts) and int(pid) != os.getpid()]


def wait(condition, process, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"it ended first, with {process.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.1)


# One training


@pytest.fixture
def one(checkpoint):
    return (SCRIPT, *SAME, *checkpoint, "--lora_r", "4", "--dropout", "0.1", "--epochs", "30")


@pytest.fixture(scope="session")
def whole(tmp_path_factory, checkpoint):
    """Metrics and losses of the training without a fault."""
    home = copied(tmp_path_factory.mktemp("whole"), "common", "mistral")
    ended(start(home, SCRIPT, *SAME, *checkpoint, "--lora_r", "4", "--dropout", "0.1", "--epochs", "30"))
    return scores(home)


def folder_of(home):
    (folder,) = [path for path in (home / "mistral" / "experiments").iterdir() if path.is_dir()]
    return folder


def begun(home, one, checkpoints=3):
    """The process of the training once it has written that many checkpoints, and the folder of the run."""
    process = start(home, *one)
    place = home / "mistral" / "experiments"

    wait(lambda: place.is_dir() and any(place.iterdir()), process)
    wait(lambda: len(sealed(folder_of(home))) >= 2 and step(sealed(folder_of(home))[-1]) >= 9 * checkpoints, process)
    return process, folder_of(home)


def sealed(folder):
    """The checkpoints that are complete; a kill may leave another one."""
    return [path for path in bookkeeping.written(folder / "checkpoints") if (path / bookkeeping.SEAL).is_file()]


def step(checkpoint):
    return bookkeeping.step_of(checkpoint)


def test_sigterm_saves_the_step_and_ends_within_its_time(home, one, whole):
    process, folder = begun(home, one)
    began = time.monotonic()
    process.terminate()
    _, err = ended(process, 143, timeout=20)
    print(f"\nended {time.monotonic() - began:.1f} s after SIGTERM")
    assert err.strip().endswith("--resume")
    saved = bookkeeping.written(folder / "checkpoints")[-1]
    assert bookkeeping.last_whole(folder / "checkpoints") == saved
    out, _ = ended(start(home, *one, "--resume"))
    assert f"resuming at step {bookkeeping.step_of(saved)}" in out
    assert scores(home) == whole


def missing(file, other):
    file.unlink()


def truncated(file, other):
    os.truncate(file, file.stat().st_size // 2)


def exchanged(file, other):
    shutil.copy(other, file)


def test_every_file_of_a_checkpoint_missing_truncated_or_exchanged(home, one, whole, tmp_path):
    process, folder = begun(home, one)
    kill(process.pid)
    process.communicate()
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept)
    before, last = [path.name for path in sealed(kept)][-2:]
    files = sorted(path.name for path in (kept / "checkpoints" / last).iterdir())
    assert len(files) >= 6
    damages = 0
    for name in files:
        for damage in (missing, truncated, exchanged):
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)
            file, other = (folder / "checkpoints" / each / name for each in (last, before))
            if damage is exchanged and file.read_bytes() == other.read_bytes():
                continue
            damage(file, other)
            out, err = ended(start(home, *one, "--resume"))
            assert f"{last} is not as it was written" in err, (name, damage.__name__)
            assert f"resuming at step {before.rpartition('-')[2]}" in out
            assert scores(home) == whole, (name, damage.__name__)
            damages += 1
    print(f"\n{damages} damages of {len(files)} files")


def test_a_clock_that_was_set_back(home, one, whole):
    process, folder = begun(home, one)
    kill(process.pid)
    process.communicate()
    future = time.time() + 10 * 86_400
    for number, path in enumerate(sorted(folder.rglob("*"), reverse=True)):
        os.utime(path, (future, future + number))
    ended(start(home, *one, "--resume"))
    assert scores(home) == whole


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
def test_a_full_disk(home, one, whole):
    place = home / "mistral" / "experiments"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place], check=False)
    if mounted.returncode:
        pytest.skip("this machine mounts nothing")
    try:
        _, err = ended(start(home, *one), 2)
        last = err.strip().splitlines()[-1]
        assert last.startswith("error: cannot write"), err
        assert "make room, then add --resume" in last
        subprocess.run(["mount", "-o", "remount,size=500m", place], check=True)
        ended(start(home, *one, "--resume"))
        assert scores(home) == whole
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_half_written_record_and_a_corrupt_cache(home, one, whole, tmp_path):
    cache = {"FINETUNING_HUB_CACHE": str(tmp_path / "cache")}
    ended(start(home, *one, env=cache))
    record = folder_of(home) / "record.json"
    for content in (record.read_bytes()[:200], b"", b"\xff\xfe"):
        record.write_bytes(content)
        (tmp_path / "cache").mkdir(exist_ok=True)
        (tmp_path / "cache" / "matrix_products.json").write_bytes(content)
        ended(start(home, *one, "--resume", env=cache))
        assert scores(home) == whole
