"""Grids: the shell scripts' cells, and a small real script run cell by cell."""

import itertools
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from common import sweep
from common.console import InputError

ROOT = Path(__file__).parent.parent
MISTRAL = ROOT / "mistral"


def call(command, cwd):
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def listed(done):
    """The cells that a dry run lists, each as {flag: value}."""
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(("  to run ", "  finished "))]
    assert f": {len(lines)} cells," in done.stdout
    return [
        {flag: "".join(values) for flag, values in sweep.parse(shlex.split(line.split(".py ")[1])).items()}
        for line in lines
    ]


def test_the_last_mention_of_a_flag_counts_and_values_follow_their_flag():
    words = ["--a", "1", "2", "--b", "--c=3", "--a", "4"]
    assert sweep.parse(words) == {"--b": [], "--c": ["3"], "--a": ["4"]}
    assert sweep.parse([]) == {}
    with pytest.raises(InputError, match="'1' stands before any flag"):
        sweep.parse(["1", "--a"])


def test_the_grid_is_every_combination_the_last_axis_fastest():
    cells = sweep.grid({"--a": ["1", "2"], "--b": [], "--c": ["x", "y"]})
    assert cells == [["--a", a, "--b", "--c", c] for a in "12" for c in "xy"]
    assert sweep.grid({}) == [[]]


def test_run_lora_is_four_ranks_by_six_epochs_by_three_dropouts():
    cells = listed(call(["bash", "mistral/run_lora.sh", "--demo", "--dry_run"], ROOT))
    expected = itertools.product(("2", "5", "10", "20", "30", "50"), ("2", "4", "8", "16"), ("0.1", "0.2", "0.5"))
    assert len(cells) == 72
    assert {(cell["--epochs"], cell["--lora_r"], cell["--dropout"]) for cell in cells} == set(expected)


FOLDERS = sorted(path.parent for path in ROOT.glob("*/model.py"))
PLACES = [(folder, folder, "") for folder in FOLDERS] + [(folder, ROOT, f"{folder.name}/") for folder in FOLDERS]
PLACES += [(MISTRAL, Path("/tmp"), f"{MISTRAL}/")]


@pytest.mark.parametrize(("folder", "cwd", "prefix"), PLACES, ids=lambda value: str(value).replace(str(ROOT), "root"))
def test_the_shell_scripts_work_from_anywhere(folder, cwd, prefix):
    cells = listed(call(["bash", f"{prefix}sample_ablate.sh", "--demo", "--dry_run"], cwd))
    assert [cell["--train_sample_fraction"] for cell in cells] == ["0.025", "0.05", "0.1", "0.25", "0.5", "1.0"]
    cells = listed(call(["bash", f"{prefix}baseline_inference.sh", "--demo", "--dry_run"], cwd))
    tasks, axis, kinds = ("classification", "summarization"), "--prompt_type", ("zero-shot", "one-shot", "few-shot")
    if folder.name == "distilbert":
        axis, kinds = "--baseline", ("dummy", "frozen-features")
    assert [(cell["--task_type"], cell[axis]) for cell in cells] == list(itertools.product(tasks, kinds))
    few = ["--epochs", "2", "--dropout", "0.1"]
    cells = listed(call(["bash", f"{prefix}run_lora.sh", "--demo", "--dry_run", *few], cwd))
    assert [cell["--lora_r"] for cell in cells] == ["2", "4", "8", "16"]
    assert all(cell["--epochs"] == "2" and cell["--dropout"] == "0.1" for cell in cells)


def test_zephyrs_neftune_grids_are_its_plain_ones_with_noise():
    for name in ("sample_ablate", "run_lora"):
        plain, noisy = (
            listed(call(["bash", f"zephyr/{script}.sh", "--demo", "--dry_run", "--epochs", "2"], ROOT))
            for script in (name, f"{name}_neftune")
        )
        assert noisy == [{**cell, "--neftune": "5"} for cell in plain]


def test_a_wrong_flag_ends_the_shell_script_in_one_line():
    for words in (["--train_sample_fraction", "0"], ["--lorar", "4"]):
        done = call(["bash", "mistral/sample_ablate.sh", "--demo", *words], ROOT)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith("error: ")
        assert words[0] in done.stderr


SCRIPT = """
import argparse
import pathlib
import sys

parser = argparse.ArgumentParser()
parser.add_argument("--rank", type=int)
parser.add_argument("--tag", choices=["a", "b"], default="a")
parser.add_argument("--fails", help="RANK:CODE")
parser.add_argument("--resume", action="store_true")
parser.add_argument("--dry_run", nargs="?", const=True)
args = parser.parse_args()
here = pathlib.Path(__file__).parent
record = here / f"record-{args.rank}-{args.tag}"
if args.dry_run:
    print("record", record, "(finished)" if record.exists() else "")
    sys.exit()
with open(here / "ran", "a") as stream:
    stream.write(f"{args.rank}{args.tag} ")
rank, _, code = (args.fails or "").partition(":")
if rank == str(args.rank):
    sys.exit(int(code))
record.touch()
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def run(script, *words):
    return call([sys.executable, "-m", "common.sweep", str(script), *words], script.parent)


def ran(script):
    path = script.with_name("ran")
    return path.read_text().split() if path.exists() else []


def test_every_cell_runs_once_and_a_second_call_has_nothing_to_do(script):
    first = run(script, "--rank", "2", "4", "--tag", "a", "b")
    assert first.returncode == 0
    assert "4 cells, 0 finished, 4 to run" in first.stdout
    assert ran(script) == ["2a", "2b", "4a", "4b"]
    second = run(script, "--rank", "2", "4", "--tag", "a", "b")
    assert second.returncode == 0
    assert "nothing to do" in second.stdout
    assert len(ran(script)) == 4


def test_only_the_cells_without_a_record_run(script):
    run(script, "--rank", "4")
    more = run(script, "--rank", "2", "4", "8")
    assert "3 cells, 1 finished, 2 to run" in more.stdout
    assert ran(script) == ["4a", "2a", "8a"]


def test_a_dry_run_lists_the_cells_and_runs_none(script):
    run(script, "--rank", "4")
    done = run(script, "--rank", "2", "4", "--dry_run")
    assert listed(done) == [{"--rank": "2"}, {"--rank": "4"}]
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["to", "finished"]
    assert ran(script) == ["4a"]


def test_a_failing_cell_does_not_stop_the_others_and_is_named_at_the_end(script):
    done = run(script, "--rank", "2", "4", "8", "--fails", "4:1")
    assert done.returncode == 1
    assert ran(script) == ["2a", "4a", "8a"]
    assert done.stdout.splitlines()[-1] == f"failed: {script} --rank 4 --fails 4:1"
    assert not script.with_name("record-4-a").exists()


@pytest.mark.parametrize("code", [2, 130])
def test_bad_input_and_an_interruption_end_the_sweep_with_their_own_code(code, script):
    done = run(script, "--rank", "2", "4", "8", "--fails", f"4:{code}")
    assert done.returncode == code
    assert ran(script) == ["2a", "4a"]


def test_a_wrong_value_of_the_last_cell_is_reported_before_the_first_one_runs(script):
    done = run(script, "--rank", "2", "4", "many")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: --rank many: ")
    assert ran(script) == []


@pytest.mark.parametrize("words", [["nothere.py", "--rank", "2"], ["script.py", "2", "--rank"]])
def test_a_wrong_command_is_refused_in_one_line(words, script):
    done = call([sys.executable, "-m", "common.sweep", *words], script.parent)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ")
    assert ran(script) == []
