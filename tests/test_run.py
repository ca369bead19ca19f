"""A run from its plan to its record: whose files it touches, where its record goes, what it says when it ends badly."""

import json
import os
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT
from inprocess import contents, done, folder_of, refused, start

from common import data, files
from common.console import Failed, InputError
from common.runs import checks, folders, identity, records
from common.runs.run import Run

QUICK = ("--precision", "float32", "--max_document_tokens", "32", "--max_new_tokens", "4")
TRAIN = (*QUICK, "--epochs", "1", "--no_before")
COLUMNS = {"classification": ("text", "label"), "summarization": ("dialogue", "summary")}
COLUMNS |= {"sentiment": ("text", "label"), "instructions": ("instruction", "output")}
LABELS = {"classification": ("bikes", "cars", "hockey"), "sentiment": ("negative", "positive")}


def rows_of(task, n=40, word="post"):
    """Rows of a task, as its data set names their columns."""
    text, target = COLUMNS[task]
    labels = LABELS.get(task)
    return [
        {text: f"{word} {i} says so", target: labels[i % len(labels)] if labels else f"it is {i}"} for i in range(n)
    ]


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """$DATA_DIR with a few rows of every data set."""
    folder = tmp_path_factory.mktemp("study")
    for task in COLUMNS:
        rows, name = rows_of(task), data.TASKS[task][0]["name"]
        write_rows(folder / name / "train.jsonl", rows[:30])
        write_rows(folder / name / "test.jsonl", rows[30:])
    return folder


@pytest.fixture(autouse=True)
def data_dir(study, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(study))


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_folder):
    """A model folder whose own checkpoint is the tiny model, so that its records may stand in tables."""
    return folder_of(tiny_folder, tmp_path_factory.mktemp("home") / "mistral")


@pytest.fixture(scope="module")
def trained(home, study):
    """{seed: run} of two trainings on the study's rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_DIR", str(study))
        words = (*TRAIN, "--max_test_samples", "4", "--price_per_hour", "3600", "--threads", "2")
        return {seed: done(home / "mistral_classification.py", *words, "--seed", seed) for seed in (1, 2)}


def never(run):
    raise AssertionError("it started")


# The user's files


@pytest.fixture
def theirs(tmp_path):
    """Files of the user's."""
    for name in ("elsewhere/checkpoint-3/weights.bin", "elsewhere/notes.txt", "out/checkpoints/checkpoint-1/mine.bin"):
        write_rows(tmp_path / name, [{"mine": name}])
    write_rows(tmp_path / "other" / "notes.txt", [])
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "checkpoints").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "file").write_text("mine")
    return tmp_path


@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=["anew", "resume"])
@pytest.mark.parametrize(
    "folder", ["out", "other", "linked", "elsewhere", "file", "file/below", "/proc/run", "x" * 300, "a/" + "x" * 300]
)
def test_a_folder_that_no_run_wrote_is_refused_and_stays_as_it_is(folder, resume, theirs, tiny_folder):
    """Review A.1 and B.1."""
    before = contents(theirs)
    words = (*QUICK, "--pretrained_ckpt", tiny_folder, "--demo", "--output_dir", theirs / folder, *resume)
    refused(start(ROOT / "mistral" / "mistral_summarization.py", *words, main=never), "--output_dir")
    assert contents(theirs) == before
    assert not (theirs / "a").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_refused(tmp_path, tiny_folder):
    (tmp_path / "locked").mkdir(mode=0o500)
    words = (*QUICK, "--pretrained_ckpt", tiny_folder, "--demo", "--output_dir", tmp_path / "locked" / "run")
    refused(start(ROOT / "mistral" / "mistral_summarization.py", *words, main=never), "--output_dir")


def test_a_run_removes_nothing_that_was_put_beside_its_files(tmp_path, tiny_folder):
    """Files that the user puts into a run's folder, and a link in place of its checkpoints, outlive the next start."""
    script = ROOT / "mistral" / "mistral_summarization.py"
    words = (*TRAIN, "--pretrained_ckpt", tiny_folder, "--demo", "--output_dir", tmp_path / "run")
    start(script, *words, main=lambda run: None)
    mine = {}
    for name in ("notes.txt", "checkpoints/best.txt", "checkpoints/checkpoint-best/weights.bin"):
        mine[name] = write_rows(tmp_path / "run" / name, [{"mine": name}]).read_bytes()
    link = tmp_path / "run" / "checkpoints" / "checkpoint-1"
    link.symlink_to(write_rows(tmp_path / "elsewhere" / "weights.bin", []).parent, target_is_directory=True)
    run = done(script, *words)
    assert run.record["status"] == "done"
    after = contents(tmp_path / "run")
    assert {name: after.get(name) for name in mine} == mine
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "weights.bin").is_file()


def test_the_folder_of_another_run_is_refused_and_the_difference_is_named(tmp_path, tiny_folder):
    """Review A.4: with --resume, another run's record was taken for this one's."""
    script, folder = ROOT / "mistral" / "mistral_baseline_inference.py", tmp_path / "run"
    words = (*QUICK, "--pretrained_ckpt", tiny_folder, "--demo", "--output_dir", folder, "--max_test_samples", "2")
    words = (*words, "--task_type", "summarization")
    first = done(script, *words, "--prompt_type", "zero-shot")
    before = contents(folder)
    for more in ([], ["--resume"]):
        other = start(script, *words, "--prompt_type", "few-shot", *more, main=never)
        refused(other, "prompt_type zero-shot there, few-shot here")
    assert contents(folder) == before
    again = start(script, *words, "--prompt_type", "zero-shot", "--resume", main=never)
    assert (again.code, again.record) == (0, first.record)
    assert "finished before" in again.out


def test_bad_input_that_shows_late_leaves_nothing_behind(tmp_path, tiny_folder):
    script = ROOT / "mistral" / "mistral_summarization.py"
    words = (*TRAIN, "--pretrained_ckpt", tiny_folder, "--demo", "--output_dir")
    run = start(script, *words, tmp_path / "a" / "b", "--report_to", "no_such_tracker")
    assert (run.code, run.err.splitlines()[-1].split(":")[0]) == (2, "error")
    assert "--report_to" in run.err
    assert not (tmp_path / "a").exists()
    (tmp_path / "empty").mkdir()

    def refuse(run):
        raise InputError("say something else")

    refused(start(script, *words, tmp_path / "empty", main=refuse), "something else")
    assert contents(tmp_path) == {}
    assert (tmp_path / "empty").is_dir()


# Where the record goes


def test_the_own_checkpoint_on_the_studys_rows_is_a_result(home, trained):
    run = trained[1]
    assert run.path.parent == home / "results"
    assert records.checked(run.path) == run.record
    assert run.record["data"]["kind"] == "study"
    assert run.record["script"] == "mistral/mistral_classification.py"
    environment = run.record["environment"]
    assert (environment["precision"], environment["precision_reason"]) == ("float32", "asked for")
    assert environment["threads"] == 2
    folder = records.folder(run.path)
    assert folder.parent == home / "experiments"
    assert records.run_of(folder)["id"] == run.record["id"]
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert trained[1].path != trained[2].path


def test_the_command_in_a_record_makes_the_same_run(home, trained):
    for run in trained.values():
        program, script, *words = shlex.split(run.record["command"])
        assert (program, script) == ("python", "mistral/mistral_classification.py")
        assert not {"--price_per_hour", "--output_dir", "--resume", "--threads"} & set(words)
        again = folders.experiment(home / "mistral_classification.py").resolve(words)
        assert again.identity.fields() == run.record["identity"]
        assert again.finished()


def test_cost_is_of_training_and_of_every_stage_of_scoring(trained):
    """Review A.17."""
    record = trained[1].record
    stages = record["inference"]["stages"]
    assert set(stages) == {"tuned", "tuned, free answers"}
    assert record["cost"]["usd"] == pytest.approx(record["training"]["seconds"] + sum(stages.values()), abs=1e-3)


@pytest.mark.parametrize("place", ["experiments", "output_dir"])
@pytest.mark.parametrize("task", COLUMNS)
def test_own_rows_never_reach_results(task, place, home, trained, tmp_path):
    """Review A.2: a CSV of 20 rows filled a published table."""
    before = contents(home / "results")
    assert before
    rows = [dict(zip(("words", "answer"), row.values(), strict=True)) for row in rows_of(task, 20, "mine")]
    write_rows(tmp_path / "newsgroup.jsonl", rows)  # the study's own name makes no difference
    target = {"summarization": "summary", "instructions": "answer"}.get(task, "label")
    words = ("--data", tmp_path / "newsgroup.jsonl", "--text_column", "words", f"--{target}_column", "answer")
    out = ("--output_dir", tmp_path / "out") if place == "output_dir" else ()
    run = start(home / f"mistral_{task}.py", *words, *out, main=score_nothing)
    assert run.code == 0, run.err
    assert run.record["data"]["kind"] == "own"
    assert run.record["identity"]["data"]["name"] == "newsgroup.jsonl"
    assert run.path.is_relative_to(tmp_path / "out" if out else home / "experiments")
    assert records.run_of(run.path.parent)["source"] == "own"
    assert contents(home / "results") == before


def score_nothing(run):
    """In place of a main that takes minutes."""
    metric = {"value": 99.0, "ci95": [98.0, 100.0], "n": len(run.data.test)}
    return run.finish(
        run.data,
        {},
        {"base": {"accuracy": metric}, "tuned": None, "inference": None, "confusion": None, "row_scores": {}},
    )


def test_own_rows_are_trained_on_from_start_to_end(tiny_folder, tmp_path):
    home = folder_of(tiny_folder, tmp_path / "mistral")
    rows = write_rows(tmp_path / "mine.jsonl", rows_of("classification", 20, "mine"))
    run = done(home / "mistral_classification.py", *TRAIN, "--data", rows)
    assert run.record["data"]["n"] == {"train": 14, "validation": 2, "test": 4}
    assert run.path.parent.parent == home / "experiments"
    assert not (home / "results").exists()


@pytest.mark.parametrize("what", ["demo", "stand-in", "output_dir"])
def test_demos_and_other_checkpoints_never_reach_results(what, home, trained, tmp_path):
    """Review A.2."""
    before = contents(home / "results")
    own = folders.load_module(home / "model.py").VARIANTS[0].checkpoint
    words = {
        "demo": ("--demo", "--pretrained_ckpt", own),
        "stand-in": ("--pretrained_ckpt", "smollm2"),
        "output_dir": ("--output_dir", tmp_path / "out"),
    }
    run = start(home / "mistral_classification.py", *words[what], main=score_nothing)
    assert run.code == 0, run.err
    assert run.record["data"]["kind"] == ("sample" if what == "demo" else "study")
    assert run.path.name == "record.json"
    assert contents(home / "results") == before


def test_two_files_of_one_name_are_two_runs(home, tmp_path):
    seen = set()
    for name in ("a", "b"):
        rows = write_rows(tmp_path / name / "rows.jsonl", rows_of("classification", 20, name))
        seen.add(start(home / "mistral_classification.py", "--data", rows, main=score_nothing).path)
    assert len(seen) == 2


# Using what was trained


@pytest.fixture(scope="module")
def used(home, study, trained):
    """{(seed, test rows): run} of the inference script on both trainings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_DIR", str(study))
        made = {}
        for seed, rows in ((1, None), (2, None), (1, 3)):
            words = ("--experiment_dir", records.folder(trained[seed].path), "--precision", "float32")
            words += ("--max_test_samples", rows) if rows else ()
            made[seed, rows] = done(home / "mistral_classification_inference.py", *words)
        return made


def test_records_of_two_trainings_and_of_two_sets_of_rows_do_not_collide(used, home, trained):
    """Review A.5."""
    assert len({run.path for run in used.values()}) == 3
    for (seed, rows), run in used.items():
        assert run.path.parent == home / "results"
        assert records.checked(run.path) == run.record
        assert run.record["data"]["n"]["test"] == (rows or 10)  # not the 4 that the training was scored on
        assert run.record["identity"]["settings"]["max_test_samples"] == rows
        assert run.record["identity"]["trained"]["id"] == trained[seed].record["id"]
        assert run.record["training"] is None
        assert run.record["id"] == run.path.stem[-10:]


def test_what_is_used_is_scored_as_after_its_training(used, trained, home, study):
    again = done(home / "mistral_classification_inference.py", "--precision", "float32", "--max_test_samples", "4")
    assert again.record["identity"]["trained"]["id"] == trained[2].record["id"]  # the newest
    assert again.record["metrics"] == trained[2].record["metrics"]


def test_other_weights_in_a_trained_folder_are_another_run(home, trained, tmp_path, monkeypatch):
    script = folders.experiment(home / "mistral_classification_inference.py")
    folder = records.folder(trained[1].path)
    words = ["--experiment_dir", str(folder)]
    before = script.resolve(words).identity
    file = folder / "adapter" / "adapter_model.safetensors"
    kept, times = file.read_bytes(), file.stat()
    try:
        file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        assert script.resolve(words).identity.id != before.id
    finally:
        file.write_bytes(kept)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert script.resolve(words).identity == before


def test_the_newest_training_is_a_finished_one_and_no_demo(home, trained, tmp_path):
    """Review A.19: a killed rerun and a demo were taken for the newest."""
    script = folders.experiment(home / "mistral_classification_inference.py")
    newest = records.folder(trained[2].path)
    assert script.resolve([]).trained == newest
    for name, change in (("demo", {"source": "sample"}), ("own", {"source": "own"}), ("killed", {})):
        folder = home / "experiments" / f"classification_later_{name}"
        for path in (newest / "adapter").iterdir():
            write_rows(folder / "adapter" / path.name, []).write_bytes(path.read_bytes())
        files.write_json(folder / "run.json", records.run_of(newest) | change)
        if name != "killed":
            (folder / "training.json").write_bytes((newest / "training.json").read_bytes())
    assert script.resolve([]).trained == newest
    assert script.resolve(["--demo"]).trained.name.endswith("demo")
    assert script.resolve(["--text", "a post"]).trained.name.endswith("own")
    named = ["--experiment_dir", str(home / "experiments" / "classification_later_demo")]
    assert script.resolve(named).trained.name.endswith("demo")
    with pytest.raises(InputError, match="no trained run"):
        script.resolve(["--experiment_dir", str(home / "experiments" / "classification_later_killed")])


def test_a_model_that_is_asked_in_other_words_than_it_was_trained_on_is_told(home, trained, tmp_path, capfd):
    folder = tmp_path / "run"
    for path in records.folder(trained[1].path).rglob("*"):
        if path.is_file():
            write_rows(folder / path.relative_to(records.folder(trained[1].path)), []).write_bytes(path.read_bytes())
    script = folders.experiment(home / "mistral_classification_inference.py")
    script.resolve(["--experiment_dir", str(folder)])
    assert "in other words" not in capfd.readouterr().err
    told = records.run_of(folder)
    told["identity"]["wording"]["cue"] = "Class?"
    files.write_json(folder / "run.json", told | {"id": identity.digest(told["identity"])})
    script.resolve(["--experiment_dir", str(folder)])
    assert "in other words" in capfd.readouterr().err


def test_a_run_json_that_was_changed_by_hand_is_refused(home, trained, tmp_path):
    """Review B.3: a method with ../ in it wrote records outside the folder."""
    folder = tmp_path / "run"
    for path in records.folder(trained[1].path).rglob("*"):
        if path.is_file():
            write_rows(folder / path.relative_to(records.folder(trained[1].path)), []).write_bytes(path.read_bytes())
    told = records.run_of(folder)
    script = home / "mistral_classification_inference.py"
    for change in (
        {"task": "../../x"},
        {"settings": {**told["identity"]["settings"], "lora_r": "8"}},
        {"checkpoint": 7},
    ):
        files.write_json(folder / "run.json", {**told, "identity": {**told["identity"], **change}})
        refused(start(script, "--experiment_dir", folder, main=never), "run.json")


# Runs that end badly


@pytest.mark.parametrize("status", ["OOM", "failed"])
def test_a_run_that_cannot_end_well_says_so_in_its_record(status, home, trained):
    """Review A.12: only "done" was ever written."""

    def main(run):
        raise Failed(status, "memory does not hold\none row")

    script, words = home / "mistral_classification.py", (*QUICK, "--seed", 7 if status == "OOM" else 8)
    run = start(script, *words, main=main)
    assert (run.code, run.err) == (1, f"{status}: memory does not hold one row\n")
    assert run.path.parent == home / "results"
    record = records.checked(run.path)
    assert (record["status"], record["reason"]) == (status, "memory does not hold one row")
    assert record["metrics"] is record["training"] is None
    again = start(script, *words, "--resume", main=score_nothing)  # it is tried again, and replaced
    assert (again.code, again.path, again.record["status"]) == (0, run.path, "done")
    third = start(script, *words, "--resume", main=never)
    assert (third.code, third.record) == (0, again.record)


def test_a_training_that_diverges_is_recorded_as_failed_and_leaves_no_adapter(home):
    """Review A.6."""
    run = start(home / "mistral_classification.py", *TRAIN, "--learning_rate", "1e30")
    assert run.code == 1, run.err
    assert run.err.splitlines()[-1].startswith("failed: ")
    assert "--learning_rate" in run.err
    record = records.checked(run.path)
    assert (record["status"], record["metrics"]) == ("failed", None)
    folder = records.folder(run.path)
    assert not (folder / "adapter" / "adapter_model.safetensors").exists()
    assert not (folder / "training.json").exists()
    words = ("--experiment_dir", folder)
    refused(start(home / "mistral_classification_inference.py", *words, main=never), "no trained run")


def test_an_interrupted_run_says_how_to_go_on_and_keeps_its_folder(tmp_path, tiny_folder):
    def main(run):
        raise KeyboardInterrupt

    script = ROOT / "mistral" / "mistral_summarization.py"
    words = (*QUICK, "--pretrained_ckpt", tiny_folder, "--demo", "--output_dir", tmp_path / "run")
    run = start(script, *words, main=main)
    assert run.code == 130
    suggested = shlex.split(run.err.strip().partition("Go on with: ")[2])
    assert suggested == ["python", str(script), *map(str, words), "--resume"]
    assert start(script, *words, "--resume", main=score_nothing).code == 0


def test_two_processes_do_not_work_in_one_folder(tmp_path, tiny_folder):
    """The second one would remove the checkpoints of the first. With --resume, as a sweep starts it, it waits."""
    script, folder = ROOT / "mistral" / "mistral_summarization.py", tmp_path / "run"
    words = (*QUICK, "--pretrained_ckpt", tiny_folder, "--demo", "--output_dir", folder)
    waiting = []

    def main(run):
        before = contents(folder)
        refused(start(script, *words, main=never), "another process works in")
        assert contents(folder) == before
        command = [sys.executable, str(script), *map(str, words), "--resume"]
        waiting.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        for line in waiting[0].stdout:
            if line.startswith("waiting for the other process"):
                break
        return score_nothing(run)

    assert start(script, *words, main=main).code == 0
    out, err = waiting[0].communicate(timeout=100)
    assert (waiting[0].returncode, err) == (0, "")
    assert out.startswith("finished meanwhile")
    assert start(script, *words, main=score_nothing).code == 0


def test_what_a_kill_left_half_written_is_removed_and_nothing_else(tmp_path, tiny_folder):
    script, folder = ROOT / "mistral" / "mistral_summarization.py", tmp_path / "run"
    words = (*QUICK, "--pretrained_ckpt", tiny_folder, "--demo", "--output_dir", folder)
    assert start(script, *words, main=score_nothing).code == 0
    ours, theirs = (".record.json.123", ".labels.json.7"), (".notes.1", ".bashrc", "x.json.1", ".a.json.b")
    for name in (*ours, *theirs):
        (folder / name).write_text("half")
    assert start(script, *words, main=score_nothing).code == 0
    assert {path.name for path in folder.iterdir()} & {*ours, *theirs} == {*theirs}


def test_a_defect_keeps_its_traceback(tmp_path, tiny_folder):
    words = (*QUICK, "--pretrained_ckpt", tiny_folder, "--demo", "--output_dir", tmp_path / "run")
    with pytest.raises(ZeroDivisionError):
        start(ROOT / "mistral" / "mistral_summarization.py", *words, main=lambda run: 1 / 0)


# --dry_run


@pytest.fixture
def executed(monkeypatch):
    """What would be executed in place of the process."""
    calls = []
    monkeypatch.setattr(os, "execv", lambda program, words: calls.append((program, words)))
    return calls


@pytest.mark.parametrize("dry", [["--dry_run"], ["--dry_run", "budget"], ["--dry_run=budget"]], ids=" ".join)
def test_the_dry_run_of_a_training_is_the_budgets(dry, executed):
    script = ROOT / "mistral" / "mistral_summarization.py"
    start(script, "--demo", *dry, "--instance", "budget", main=never)
    assert len(executed) == 1
    program, words = executed[0]
    assert words[:5] == [program, "-m", "common", "budget", str(script)]
    planned = folders.experiment(script).resolve(words[5:])  # what the budget does with the rest
    assert (planned.args.demo, planned.args.instance) == (True, "budget")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("mistral_baseline_inference.py", ()),
        ("mistral_summarization.py", ("--dry_run", "plan")),
        ("gemma_sentiment.py", ("--prompt_type", "zero-shot")),
        ("gemma_sentiment.py", ("--random_head",)),
    ],
)
def test_where_nothing_is_trained_it_is_the_plan(script, words, executed):
    words = words if "--dry_run" in words else (*words, "--dry_run")
    run = start(ROOT / script.partition("_")[0] / script, "--demo", *words, main=never)
    assert run.code == 0, run.err
    assert "\n  record " in run.out
    assert not executed


def test_the_budget_that_a_script_hands_over_to_writes_nothing(tiny_folder, tmp_path):
    command = [sys.executable, str(ROOT / "mistral" / "mistral_summarization.py"), "--demo", "--dry_run"]
    command += ["--pretrained_ckpt", str(tiny_folder), "--output_dir", "out"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("data: ") == 1
    assert "  lora_r " in run.stdout
    assert "on this machine: weights" in run.stdout
    assert not list(tmp_path.iterdir())


def test_a_machine_that_cannot_hold_the_model_is_told_before_anything_is_read(monkeypatch, tmp_path, home):
    monkeypatch.setattr(checks, "shortage", lambda variant: "It does not fit.")
    run = start(home / "mistral_classification.py", "--output_dir", tmp_path / "out", main=never)
    refused(run, "It does not fit. This works here: python", "--pretrained_ckpt smollm2")
    assert not list(tmp_path.iterdir())


def test_damaged_labels_of_a_trained_run_are_refused_in_one_line(tmp_path):
    (tmp_path / "labels.json").write_text('{"cars": 0}')
    with pytest.raises(InputError, match=r"labels\.json is no list of class names"):
        Run.labels.fget(SimpleNamespace(trained=tmp_path))


# One training that passes through several numbers of epochs


def weights(run):
    return (records.folder(run.path) / "adapter" / "adapter_model.safetensors").read_bytes()


LEARNED = ("losses", "loss", "steps", "tokens", "validation")


def test_a_training_scored_on_its_way_equals_the_separate_ones(tiny_folder, tmp_path):
    words = (*QUICK, "--no_before", "--lora_r", "4", "--neftune", "5", "--max_test_samples", "6", "--threads", "1")
    apart = {}
    for name in ("apart", "nested"):
        folder_of(tiny_folder, tmp_path / name / "mistral")
    for epochs in (1, 2, 4):
        script = tmp_path / "apart" / "mistral" / "mistral_summarization.py"
        apart[epochs] = done(script, *words, "--epochs", epochs)
    script = tmp_path / "nested" / "mistral" / "mistral_summarization.py"
    last = done(script, *words, "--score_after_epochs", "4", "1", "2")
    assert last.out.count("\ntraining: ") == 3
    assert "resuming at step" in last.out
    for run in apart.values():
        path = tmp_path / "nested" / "mistral" / "results" / run.path.name
        nested = SimpleNamespace(path=path, record=files.read_json(path))
        assert nested.record["id"] == run.record["id"]
        assert nested.record["metrics"] == run.record["metrics"]
        assert [nested.record["training"].get(name) for name in LEARNED] == [
            run.record["training"].get(name) for name in LEARNED
        ]
        assert nested.record["command"] == run.record["command"]
        assert weights(nested) == weights(run)
        assert not (records.folder(path) / "checkpoints").exists()
    assert len({weights(run) for run in apart.values()}) == 3


def test_a_training_scored_on_its_way_goes_on_where_it_was_stopped(tiny_folder, tmp_path, monkeypatch):
    folder_of(tiny_folder, tmp_path / "mistral")
    script = tmp_path / "mistral" / "mistral_summarization.py"
    words = (*QUICK, "--no_before", "--lora_r", "4", "--max_test_samples", "2", "--score_after_epochs", "1", "2")
    summaries, calls = folders.load_module(script).evaluation.summaries, []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return summaries(*arguments)

    monkeypatch.setattr(folders.load_module(script).evaluation, "summaries", stopped)
    assert start(script, *words).code == 130
    assert len(list((tmp_path / "mistral" / "results").iterdir())) == 1
    again = done(script, *words, "--resume")
    assert len(calls) == 3  # the first run is not scored again
    assert "training: finished before" in again.out
    assert len(list((tmp_path / "mistral" / "results").iterdir())) == 2
    assert "finished before, nothing to do" in done(script, *words, "--resume").out


def test_with_a_falling_learning_rate_every_number_of_epochs_is_a_training_of_its_own(tiny_folder, tmp_path):
    folder_of(tiny_folder, tmp_path / "mistral")
    script = tmp_path / "mistral" / "mistral_summarization.py"
    words = (*QUICK, "--no_before", "--lora_r", "4", "--max_test_samples", "2", "--lr_scheduler", "linear")
    run = done(script, *words, "--score_after_epochs", "1", "2")
    assert "resuming" not in run.out
    assert weights(run) == weights(done(script, *words, "--epochs", "2"))


@pytest.mark.parametrize(
    ("words", "mention"),
    [
        (["--epochs", "3"], "--epochs"),
        (["--output_dir", "out"], "--output_dir"),
        (["--prompt_type", "zero-shot"], "trainings"),
    ],
)
def test_numbers_of_epochs_that_contradict_other_flags_are_refused(words, mention, tiny_folder):
    script = ROOT / "smollm2" / "smollm2_sentiment.py"
    words = (*words, "--pretrained_ckpt", tiny_folder, "--demo", "--score_after_epochs", "1", "2")
    refused(start(script, *words, main=never), mention)
