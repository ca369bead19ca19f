"""Grids: what is planned and how, the shell scripts' cells, a small experiment run cell by cell."""

import contextlib
import dataclasses
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT, copied, tool
from test_folders import FOLDERS

from common import files, machine, sweeps
from common.console import InputError
from common.runs import folders, records
from common.sweeps import engines, planning

MISTRAL = ROOT / "mistral"
ENCODERS = ("distilbert", "minilm")
RANKS, DROPOUTS, EPOCHS = ("2", "4", "8", "16"), ("0.1", "0.2", "0.5"), ("2", "5", "10", "20", "30", "50")
FRACTIONS = ("0.025", "0.05", "0.1", "0.25", "0.5", "1.0")


def test_the_last_mention_of_a_flag_counts_and_values_follow_their_flag():
    words = ["--a", "1", "2", "--b", "--c=3", "--a", "4"]
    assert sweeps.parse(words) == {"--b": [], "--c": ["3"], "--a": ["4"]}
    assert sweeps.parse([]) == {}
    with pytest.raises(InputError, match="'1' stands before any flag"):
        sweeps.parse(["1", "--a"])


def test_the_grid_is_every_combination_the_last_axis_fastest():
    cells = sweeps.grid({"--a": ["1", "2"], "--b": [], "--c": ["x", "y"]})
    assert cells == [["--a", a, "--b", "--c", c] for a in "12" for c in "xy"]
    assert sweeps.grid({}) == [[]]


# Planning, in this process


@pytest.fixture
def listed(capsys, monkeypatch):
    """listed(words of a sweep) -> the cells that its dry run lists, each {flag: value}; no process may be started."""

    def never(*_, **__):
        raise AssertionError("a process was started")

    def dry(*words):
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", never)
            sweeps.main([*map(str, words), "--dry_run"])
        return cells_of(capsys.readouterr().out)

    return dry


def cells_of(out):
    lines = [line for line in out.splitlines() if line.startswith(("  to run ", "  done "))]
    assert f": {len(lines)} cells," in out
    flags = [sweeps.parse(shlex.split(line.split(".py ")[1])) for line in lines]
    return [{flag: " ".join(values) for flag, values in cell.items()} for cell in flags]


def test_a_grid_is_planned_in_one_process_and_in_a_moment(listed):
    """72 cells took 72 starts of Python."""
    listed(MISTRAL / "mistral_summarization.py", "--demo")  # reads the rows
    began = time.monotonic()
    axes = ("--epochs", *EPOCHS, "--lora_r", *RANKS, "--dropout", *DROPOUTS)
    cells = listed(MISTRAL / "mistral_summarization.py", "--demo", *axes)
    assert time.monotonic() - began < 5
    assert len(cells) == 72
    assert {(c["--epochs"], c["--lora_r"], c["--dropout"]) for c in cells} == {
        *itertools.product(EPOCHS, RANKS, DROPOUTS)
    }


@pytest.mark.parametrize(
    ("axis", "values", "planned"),
    [
        ("--lora_r", ("8", "8"), ["8"]),
        ("--lora_r", ("8", "4", "08"), ["8", "4"]),
        ("--dropout", ("0.1", ".1"), ["0.1"]),
        ("--epochs", ("2", "2.0", "3"), ["2", "3"]),
        ("--learning_rate", ("2e-4", "0.0002", "0.00021"), ["2e-4", "0.00021"]),
        ("--precision", ("auto", "float32"), ["auto", "float32"]),
        ("--inference_batch_size", ("2", "4"), ["2"]),  # cannot change a number
    ],
)
def test_what_is_one_run_is_planned_once(axis, values, planned, listed):
    """Review B.8."""
    cells = listed(MISTRAL / "mistral_summarization.py", "--demo", axis, *values)
    assert [cell[axis] for cell in cells] == planned


def test_rows_that_are_not_at_hand_do_not_make_cells_one(listed, monkeypatch):
    monkeypatch.delenv("DATA_DIR", raising=False)
    cells = listed(MISTRAL / "mistral_classification.py", "--train_sample_fraction", "0.1", "0.10", "0.5")
    assert [cell["--train_sample_fraction"] for cell in cells] == ["0.1", "0.5"]


@pytest.mark.parametrize(
    ("words", "mention"),
    [
        (["--lora_r", "2", "4", "many"], "many"),
        (["--lorar", "4"], "--lorar"),
        (["--lora_r", "4", "--data", "no_such.csv"], "no_such.csv"),
        (["--lora_r", "4", "8", "--output_dir", "out"], "--output_dir"),
    ],
)
def test_a_wrong_cell_is_told_before_the_first_one_runs(words, mention, tmp_path):
    done = tool(ROOT, "sweep", str(MISTRAL / "mistral_summarization.py"), "--demo", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert mention in done.stderr
    assert "to run" not in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "mention"),
    [("no_such.py", "no script"), ("README.md", "not a script"), ("mistral/model.py", "EXPERIMENT")],
)
def test_what_is_no_experiment_is_refused(name, mention):
    with pytest.raises(InputError, match=mention):
        sweeps.main([str(ROOT / name), "--lora_r", "2"])


# The shell scripts


@pytest.fixture(scope="module")
def recorder(tmp_path_factory):
    """In place of Python: a program that writes down the words that it is called with."""
    folder = tmp_path_factory.mktemp("recorder")
    (folder / "python").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" --- >> "{folder}/words"\n')
    (folder / "python").chmod(0o755)
    return folder


def called(recorder, script, *words, cwd=ROOT):
    """The sweeps that a shell script starts, each as [script, {flag: values}]."""
    (recorder / "words").unlink(missing_ok=True)
    environment = os.environ | {"PYTHON": str(recorder / "python")}
    command = ["bash", str(script), *words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    calls = [call.split("\n") for call in (recorder / "words").read_text().removesuffix("\n---\n").split("\n---\n")]
    assert all(call[:3] == ["-m", "common", "sweep"] for call in calls)
    return [[Path(call[3]), sweeps.parse(call[4:])] for call in calls]


def scripts_of(folder):
    names = sorted(path.name for path in (ROOT / folder).glob("*.sh"))
    return [name for name in names if name != "evidence.sh"]


def wanted(folder, name):
    """(script's end, axes and switches) of the sweeps that a folder's shell script should start."""
    axis, kinds = "prompt_type", ["zero-shot", "one-shot", "few-shot"]
    if folder in ENCODERS:
        axis, kinds = "baseline", ["dummy", "tfidf", "frozen-features"]
    epochs = "--epochs" if folder in (*ENCODERS, "smollm2") else "--score_after_epochs"  # these decay the rate
    grid = {epochs: [*EPOCHS], "--lora_r": [*RANKS], "--dropout": [*DROPOUTS], "--no_before": []}
    ablation = {"--train_sample_fraction": [*FRACTIONS], "--no_before": []}
    tasks = {"--task_type": ["classification", "summarization"]}
    decodings = {
        "temperature": ["0.001", "0.25", "0.5", "0.75"],
        "num_beams": [*"1248"],
        "top_k": ["2", "4", "8", "16"],
    }
    return {
        "baseline_inference.sh": [("baseline_inference", {**tasks, f"--{axis}": kinds})],
        "run_lora.sh": [("summarization", grid)],
        "run_lora_neftune.sh": [("summarization", {**grid, "--neftune": ["5"]})],
        "sample_ablate.sh": [("classification", ablation)],
        "sample_ablate_neftune.sh": [("classification", {**ablation, "--neftune": ["5"]})],
        "decoding_sweep.sh": [("instructions_inference", {f"--{name}": values}) for name, values in decodings.items()],
        "sentiment_executions.sh": [
            ("sentiment", {"--prompt_type": ["zero-shot"], "--temperature": ["1"], "--seed": [*"123"]})
        ],
    }[name]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_shell_script_starts_its_grid_from_anywhere_and_passes_flags_on(folder, recorder):
    for name in scripts_of(folder):
        expected = [
            [ROOT / folder / f"{folder}_{script}.py", {**axes, "--demo": [], "--batch_size": ["2"]}]
            for script, axes in wanted(folder, name)
        ]
        for script, cwd in ((f"{folder}/{name}", ROOT), (name, ROOT / folder), (ROOT / folder / name, Path("/tmp"))):
            calls = called(recorder, script, "--demo", "--batch_size", "2", cwd=cwd)
            assert [[path.resolve(), flags] for path, flags in calls] == expected


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_grid_of_a_shell_script_can_be_planned(folder, recorder, listed):
    sizes = {}
    for name in scripts_of(folder):
        for script, flags in called(recorder, f"{folder}/{name}", "--demo"):
            if "inference" in script.stem and "baseline" not in script.stem:
                continue  # needs a trained run: test_instructions.py
            words = itertools.chain(*([flag, *values] for flag, values in flags.items()))
            sizes[name] = len(listed(script, *words))
    trainings = 72 if folder in (*ENCODERS, "smollm2") else 12
    expected = {"baseline_inference.sh": 6, "run_lora.sh": trainings, "sample_ablate.sh": 6}
    more = {"run_lora_neftune.sh": trainings, "sample_ablate_neftune.sh": 6, "sentiment_executions.sh": 3}
    assert sizes == expected | {name: size for name, size in more.items() if name in sizes}


@pytest.mark.parametrize("folder", ["minilm", "smollm2"])
def test_the_evidence_is_a_list_of_sweeps_whose_flags_their_scripts_know(folder, recorder):
    calls = called(recorder, f"{folder}/evidence.sh", "--threads", "2")
    assert len(calls) > 8
    for script, flags in calls:
        assert flags.pop("--threads") == ["2"]
        experiment = folders.experiment(script)
        for cell in sweeps.grid(flags):
            experiment.arguments(cell)


@pytest.mark.parametrize(("script", "cwd"), [("mistral/sample_ablate.sh", ROOT), ("sample_ablate.sh", MISTRAL)])
def test_a_shell_script_runs_with_python_itself(script, cwd):
    def call(*words):
        environment = os.environ | {"PYTHON": sys.executable}
        command = ["bash", script, "--demo", "--dry_run", *words]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)

    done = call("--train_sample_fraction", "0.5", "1")
    assert done.returncode == 0, done.stderr
    assert [cell["--train_sample_fraction"] for cell in cells_of(done.stdout)] == ["0.5", "1"]
    done = call("--train_sample_fraction", "0")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: ")


# A grid that runs. The experiment is a true one; what it would do is replaced by a line.

SCRIPT = '''"""A training that takes no time."""

import os
import re
import sys
import time

import model
import prompts

from common import console
from common.runs import experiment
from common.settings import Settings

SETTINGS = Settings(lora_r=8, lora_alpha=16, dropout=0.1, epochs=1, learning_rate=1e-3, batch_size=4,
                    micro_batch_size=4, targets=model.ATTENTION_TARGETS)
EXPERIMENT = experiment.Experiment(__file__, __doc__, "classification", "training", SETTINGS, model, prompts)
METRIC = {"value": 50.0, "ci95": [40.0, 60.0], "n": 40}
PACKAGES = dict.fromkeys(("torch", "transformers"))
HERE = {"python": "3", "packages": PACKAGES, "device": "CPU", "cpu_count": 1, "git_commit": None, "git_dirty": None}


def main():
    """What experiment.perform does, without its seconds for libraries."""
    run = EXPERIMENT.resolve()
    if run.args.resume and run.finished():
        return None
    with open(os.environ["RAN"], "a") as stream:
        stream.write(f"{run.settings.lora_r} ")
    how = os.environ.get("ENDS", "").split(":")
    if how[0] == str(run.settings.lora_r):
        if how[1] == "wait":
            time.sleep(60)
        if how[1] == "meet":  # the other cell that has to run at the same time
            deadline = time.monotonic() + 30
            while len(open(os.environ["RAN"]).read().split()) < 2:
                if time.monotonic() > deadline:
                    return 1
                time.sleep(0.05)
            how = ["", "OOM"]
        if how[1] not in ("OOM", "failed"):
            return int(how[1])
    run.environment = HERE | {"precision": "float32", "threads": 1}
    record = run.record(run.data) | {"metrics": {"accuracy": METRIC}}
    if how[0] == str(run.settings.lora_r):
        record |= {"metrics": None, "status": how[1], "reason": "as asked"}
    run.write(record)
    if record["reason"]:
        raise console.Failed(record["status"], record["reason"])
    return None


if __name__ == "__main__":
    sys.exit(console.exit_code(main))
'''


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "quick"
    folder.mkdir()
    for name in ("model.py", "prompts.py"):
        (folder / name).write_text((ROOT / "smollm2" / name).read_text())
    (folder / "quick_classification.py").write_text(SCRIPT)
    return folder


class Quick:
    """The experiment's folder, with what ran in it."""

    def __init__(self, folder):
        self.folder, self.script = folder, folder / "quick_classification.py"
        self.ran_file = folder / "ran"
        self.environment = os.environ | {"RAN": str(self.ran_file)}

    def start(self, *words, ends=""):
        command = [sys.executable, "-m", "common", "sweep", str(self.script), "--demo", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=self.environment | {"ENDS": ends}, **pipes)

    def sweep(self, *words, ends=""):
        child = self.start(*words, ends=ends)
        out, err = child.communicate(timeout=120)
        return subprocess.CompletedProcess([], child.returncode, out, err)

    def ran(self):
        """The ranks that ran, in their order."""
        return self.ran_file.read_text().split() if self.ran_file.exists() else []

    def record(self, rank):
        """The record of the run of this rank."""
        planned = folders.experiment(self.script).resolve(["--demo", "--lora_r", str(rank)])
        return records.checked(planned.record_path)


@pytest.fixture
def quick(model_folder):
    shutil.rmtree(model_folder / "experiments", ignore_errors=True)
    (model_folder / "ran").unlink(missing_ok=True)
    return Quick(model_folder)


def test_every_cell_runs_once_and_only_those_without_a_record_run_again(quick):
    first = quick.sweep("--lora_r", "2", "4", "4")
    assert first.returncode == 0, first.stderr
    assert "2 cells, 0 done, 2 to run" in first.stdout
    assert quick.ran() == ["2", "4"]
    second = quick.sweep("--lora_r", "2", "4")
    assert (second.returncode, "nothing to do" in second.stdout) == (0, True)
    third = quick.sweep("--lora_r", "8", "4")
    assert "2 cells, 1 done, 1 to run" in third.stdout
    assert quick.ran() == ["2", "4", "8"]


@pytest.mark.parametrize("status", ["OOM", "failed"])
def test_a_cell_that_fails_is_recorded_and_the_others_go_on(status, quick):
    """Review A.12: out of memory ended a whole grid."""
    done = quick.sweep("--lora_r", "2", "4", "8", ends=f"4:{status}")
    assert done.returncode == 1
    assert quick.ran() == ["2", "4", "8"]
    assert done.stdout.splitlines()[-1] == f"failed: {quick.script} --demo --lora_r 4"
    assert f"{status}: as asked" in done.stderr
    assert [quick.record(rank)["status"] for rank in (2, 4, 8)] == ["done", status, "done"]
    again = quick.sweep("--lora_r", "2", "4", "8")
    assert (again.returncode, quick.ran()[3:]) == (0, [])
    assert f"{status}: --demo --lora_r 4: as asked (--retry_failed" in again.stdout
    assert "3 cells, 2 done, 1 failed, 0 to run" in again.stdout
    again = quick.sweep("--lora_r", "2", "4", "8", "--retry_failed")
    assert (again.returncode, quick.ran()[3:]) == (0, ["4"])
    assert quick.record(4)["status"] == "done"


def test_several_cells_run_at_once_and_share_the_cores(quick):
    done = quick.sweep("--lora_r", "2", "4", "--slots", "2", ends="2:meet")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(quick.ran()) == ["2", "4"]
    assert sorted(line for line in done.stdout.splitlines() if line.startswith("done: ")) == [
        f"done: --demo --lora_r {rank}" for rank in (2, 4)
    ]
    (log, *_) = (quick.folder / "experiments").glob("*.log")
    assert log.with_suffix("").is_dir()


def test_a_killed_sweep_leaves_no_cell_behind(quick):
    child = quick.start("--lora_r", "2", ends="2:wait")
    while not quick.ran():
        assert child.poll() is None, child.communicate()
        time.sleep(0.05)
    cell = int(subprocess.run(["pgrep", "-P", str(child.pid)], capture_output=True, check=True).stdout)
    child.kill()
    child.communicate()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{cell}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("engine", [["ray", "--ray_address", "local"], ["slurm"]], ids=["ray", "slurm"])
def test_engines_run_every_cell_once_and_say_which_failed(engine, quick):
    """Ray on this machine; without sbatch submitit runs jobs in processes of its own."""
    done = quick.sweep("--lora_r", "2", "4", "--slots", "2", "--engine", *engine, ends="4:failed")
    assert done.returncode == 1, done.stdout + done.stderr
    assert sorted(quick.ran()) == ["2", "4"]
    assert [quick.record(rank)["status"] for rank in (2, 4)] == ["done", "failed"]
    assert "as asked" in done.stdout
    assert done.stdout.splitlines()[-1] == f"failed: {quick.script} --demo --lora_r 4"
    again = quick.sweep("--lora_r", "2", "4", "--engine", *engine)
    assert (again.returncode, sorted(quick.ran())) == (0, ["2", "4"])


def test_a_record_that_comes_back_is_written_where_there_is_none(quick):
    """As from a node that shares no folder with this machine."""
    experiment = folders.experiment(quick.script)
    (cell,) = planning.plan(experiment, [["--demo", "--lora_r", "2"]])
    texts = {}
    for status in ("failed", "done", "OOM"):
        record = {"status": status, "id": cell.run.identity.id, **dict.fromkeys(("reason", "training", "inference"))}
        texts[status] = json.dumps(record)
        assert engines.received(cell, engines.Ended(0, [texts[status]], "")) == 0
        expected = "failed" if status == "failed" else "done"  # a done record is not replaced
        assert cell.run.record_path.read_text() == texts[expected]


@pytest.mark.parametrize(  # a Ray cluster of one's own takes two minutes; stubs run on one in the fast suite
    "engine",
    [
        pytest.param(["ray", "--ray_address", "local"], id="ray", marks=pytest.mark.slow),
        pytest.param(["slurm"], id="slurm"),
    ],
)
def test_engines_run_true_scripts(engine, tmp_path):
    """Their output's file must not lie in the run's own folder, which a run claims only if it is empty."""
    home = copied(tmp_path, "common", "minilm")
    words = ("--task_type", "summarization", "--baseline", "dummy", "--demo", "--engine", *engine)
    done = tool(home, "sweep", "minilm/minilm_baseline_inference.py", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (home / "minilm" / "experiments").glob("*/record.json")
    assert records.checked(path)["status"] == "done"


# Which cells, and how long


@dataclasses.dataclass
class Planned:
    """In place of planning.Cell."""

    work: float
    state: str = "to run"
    seconds: float | None = None
    run: object = dataclasses.field(default_factory=lambda: SimpleNamespace(trains=True, data=True))


def test_expected_time_is_by_finished_cells_else_by_the_budget():
    never = lambda cell: pytest.fail("the budget was asked")  # noqa: E731
    cells = [Planned(2, "done", 20), Planned(4, "done", 44), Planned(1, "done", 300), Planned(5), Planned(10)]
    assert planning.expected(cells, never).seconds(cells[3:]) == 15 * 11
    assert planning.expected(cells[3:], lambda cell: 50.0).seconds(cells[3:]) == 150
    assert planning.expected(cells[3:], lambda cell: None).seconds(cells[3:]) is None
    untrained = SimpleNamespace(trains=False, data=True)
    assert planning.expected([Planned(1, run=untrained)], never).rate is None


def test_a_limit_takes_the_first_cells_that_end_within_it():
    cells = [Planned(work) for work in (1, 2, 3, 1)]
    known = planning.Expected(10, "")
    assert planning.within(cells, known, 30) == cells[:2]
    assert planning.within(cells, known, 29) == cells[:1]
    assert planning.within(cells, known, 1000) == cells
    assert planning.within(cells, known, 9) == []
    assert "about 35 s, 0.01 USD" in planning.outlook(cells, known, 2, 1.0)
    assert "about 70 s (" in planning.outlook(cells, known, 1, None)


def test_finished_cells_say_how_many_fit_into_the_hours(quick):
    for rank in ("2", "4"):
        assert quick.sweep("--lora_r", rank).returncode == 0
        path = folders.experiment(quick.script).resolve(["--demo", "--lora_r", rank]).record_path
        record = files.read_json(path)
        record["inference"] = {**dict.fromkeys(("batch_size", "seconds_per_row")), "stages": {"base": 3600}}
        files.write_json(path, record)
    ranks = ("--lora_r", "2", "4", "8", "16", "--price_per_hour", "2")
    assert "0 of them within" in quick.sweep(*ranks, "--max_hours", "0.9").stdout
    done = quick.sweep(*ranks, "--max_cost", "2.5")
    assert "4 cells, 2 done, 2 to run\n1 of them within the limit\nexpected: about 60 min, 2.00 USD" in done.stdout
    assert quick.ran() == ["2", "4", "8"]
    lacking = quick.sweep("--lora_r", "16", "--max_cost", "2")
    assert (lacking.returncode, "--price_per_hour" in lacking.stderr) == (2, True)


def test_seeds_are_an_axis_from_the_default_upwards(listed):
    cells = listed(MISTRAL / "mistral_summarization.py", "--demo", "--lora_r", "2", "4", "--seeds", "3")
    assert [(cell["--lora_r"], cell["--seed"]) for cell in cells] == [(r, s) for r in "24" for s in ("42", "43", "44")]
    with pytest.raises(InputError, match="either --seed or --seeds"):
        listed(MISTRAL / "mistral_summarization.py", "--demo", "--seed", "1", "--seeds", "3")


def test_shards_part_the_cells_and_a_scheduler_names_them(listed, monkeypatch):
    def ranks(shard):
        return [c["--lora_r"] for c in listed(MISTRAL / "mistral_summarization.py", *words, "--shard", shard)]

    words = ("--demo", "--lora_r", *RANKS, "32")
    assert [ranks(f"{i}/3") for i in (1, 2, 3)] == [["2", "16"], ["4", "32"], ["8"]]
    slurm = {"ID": "7", "MIN": "5", "MAX": "7"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    assert ranks("auto") == ["8"]
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    monkeypatch.setenv("SKYPILOT_NODE_RANK", "1")
    monkeypatch.setenv("SKYPILOT_NUM_NODES", "3")
    assert ranks("auto") == ["4", "32"]
    monkeypatch.delenv("SKYPILOT_NODE_RANK")
    for wrong in ("auto", "0/3", "4/3", "3", "x/y", "1/0"):
        with pytest.raises(SystemExit):
            ranks(wrong)


@pytest.mark.parametrize(
    "words",
    [["--slots", "0"], ["--engine", "cloud"], ["--seeds", "two"], ["--max_hours", "-1"], ["--slurm", "partition"]],
)
def test_a_wrong_flag_of_the_sweep_is_one_line(words):
    done = tool(ROOT, "sweep", str(MISTRAL / "mistral_summarization.py"), "--demo", *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert words[0] in done.stderr


def test_ten_thousand_cells_are_planned_in_seconds(listed):
    listed(MISTRAL / "mistral_summarization.py", "--demo")  # reads the rows
    rates = [f"{number}e-6" for number in range(1, 2501)]
    before, began = machine.resident(), time.process_time()
    assert (
        len(listed(MISTRAL / "mistral_summarization.py", "--demo", "--lora_r", *RANKS, "--learning_rate", *rates))
        == 10_000
    )
    assert time.process_time() - began < 10
    assert machine.resident() - before < 300e6


@pytest.mark.slow
def test_a_sweep_of_five_hundred_cells_does_not_grow(quick):
    child = quick.start("--lora_r", "2", "--learning_rate", *(f"{number}e-6" for number in range(1, 501)))
    reader = threading.Thread(target=child.communicate)  # 500 lines fill a pipe that nobody reads
    reader.start()
    resident, opened = {}, {}
    while child.poll() is None:
        with contextlib.suppress(OSError, AttributeError):  # it has just ended
            status = Path(f"/proc/{child.pid}/status").read_text()
            done = len(quick.ran())
            resident[done] = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1000
            opened[done] = len(os.listdir(f"/proc/{child.pid}/fd"))
        time.sleep(0.5)
    reader.join()
    assert (child.returncode, len(quick.ran())) == (0, 500)
    early = max(size for done, size in resident.items() if 20 <= done <= 120)
    late = max(size for done, size in resident.items() if done >= 400)
    fds = [max(n for done, n in opened.items() if low <= done <= high) for low, high in ((20, 120), (400, 500))]
    print(f"resident: {early:.0f} MB by cell 120, {late:.0f} MB from cell 400 on; open files: {fds[0]}, {fds[1]}")
    assert late < early + 20
    assert fds[1] <= fds[0]


def test_values_of_numbers_of_epochs_are_one_cell(listed):
    words = ("--demo", "--score_after_epochs", "2", "5", "--lora_r", "2", "4")
    cells = listed(MISTRAL / "mistral_summarization.py", *words)
    assert [(cell["--score_after_epochs"], cell["--lora_r"]) for cell in cells] == [("2 5", "2"), ("2 5", "4")]


def test_a_torn_record_is_passed_over_and_written_anew(quick):
    assert quick.sweep("--lora_r", "2").returncode == 0
    path = folders.experiment(quick.script).resolve(["--demo", "--lora_r", "2"]).record_path
    whole = path.read_text()
    for torn in (whole[:100], "", "[]", "{}"):
        path.write_text(torn)
        done = quick.sweep("--lora_r", "2")
        assert (done.returncode, done.stderr.count("is not a whole record")) == (0, 2), done.stderr
        assert quick.record(2)["status"] == "done"


# Records from elsewhere


def test_shards_of_other_checkouts_are_merged(quick, tmp_path, monkeypatch, capsys):
    for rank in ("2", "4"):
        assert quick.sweep("--lora_r", rank, ends="4:failed").returncode == int(rank == "4")
    checkout = quick.folder.parent
    monkeypatch.setattr(files, "ROOT", tmp_path)
    sweeps.main(["merge", str(checkout)])
    assert "2 records copied, 0 were here" in capsys.readouterr().out
    copies = sorted((tmp_path / "quick" / "experiments").glob("*/record.json"))
    originals = sorted((quick.folder / "experiments").glob("*/record.json"))
    assert [path.read_bytes() for path in copies] == [path.read_bytes() for path in originals]
    # A done record replaces a failed one, never the other way round; torn and differing ones are named and left out.
    quick.sweep("--lora_r", "2", "4", "--retry_failed")
    better = {**files.read_json(originals[0]), "metrics": {"accuracy": {"value": 51.0, "ci95": [40.0, 60.0], "n": 40}}}
    files.write_json(originals[0], better)
    (quick.folder / "results").mkdir()
    (quick.folder / "results" / "torn.json").write_text("{")
    sweeps.main(["merge", str(quick.folder)])
    said = capsys.readouterr()
    assert "1 records copied, 1 were here" in said.out
    assert {records.checked(path)["status"] for path in copies} == {"done"}
    assert "torn.json" in said.err
    assert ("has other scores" in said.err) == (records.checked(copies[0])["metrics"] != better["metrics"])
    shutil.rmtree(quick.folder / "results")
    for wrong in ([], [str(tmp_path / "nowhere")]):
        with pytest.raises(InputError):
            sweeps.main(["merge", *wrong])


def test_a_cell_that_crashes_does_not_end_the_grid_either(quick):
    done = quick.sweep("--lora_r", "2", "4", ends="2:1")
    assert (done.returncode, quick.ran()) == (1, ["2", "4"])
    assert quick.record(4)["status"] == "done"


@pytest.mark.parametrize(("code", "ends_with"), [(2, 2), (130, 130), (143, 130)])
def test_bad_input_and_an_interruption_end_the_grid(code, ends_with, quick):
    done = quick.sweep("--lora_r", "2", "4", "8", ends=f"4:{code}")
    assert done.returncode == ends_with
    assert quick.ran() == ["2", "4"]


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_stops_the_cell_and_the_grid_and_the_same_command_goes_on(stop, code, quick):
    child = quick.start("--lora_r", "2", "4", ends="4:wait")
    deadline = time.monotonic() + 60
    while quick.ran() != ["2", "4"]:
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(stop)
    err = child.communicate(timeout=30)[1]
    assert child.returncode == code
    assert "Traceback" not in err, err
    assert "The same command goes on" in err
    assert "--resume" not in err.splitlines()[-1]
    assert quick.sweep("--lora_r", "2", "4").returncode == 0
    assert quick.ran() == ["2", "4", "4"]
