"""Several processes for one training, started by torchrun: losses of one process, one that writes, clear refusals."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import tiny
import yaml
from conftest import ROOT

from common import batches, bookkeeping, machine, processes
from common.console import InputError
from common.runs import checks, folders

ROWS = 17  # two steps of 8 rows and one of a single row: the other process has none to learn from
SHORT = ("--demo", "--precision", "float32", "--no_before", "--max_test_samples", "2", "--max_document_tokens", "64")
TOGETHER = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
CAUSAL = ("--max_new_tokens", "4", "--learning_rate", "0.01", "--lora_r", "4", "--dropout")


def start(count, script, folder, *words, **keywords):
    """The started process of a script, with `count` processes for its training."""
    launcher = TOGETHER if count > 1 else ()
    command = [sys.executable, *launcher, str(ROOT / script), *SHORT, *map(str, words), "--output_dir", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **keywords
    )


def record(count, script, folder, *words):
    process = start(count, script, folder, *words)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out[-2000:] + err[-4000:]
    assert out.count("record: ") == out.count("training: ") == 1, "more than one process prints"
    return json.loads((folder / "record.json").read_text())


def model_of(name, folder):
    """A tiny model of the folder's true class, without dropout."""
    facts = folders.experiment(str(ROOT / name / f"{name}_classification.py")).facts
    shape = facts.VARIANTS[0].shape
    if name == "distilbert":
        quiet = {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0}
        return tiny.write_encoder(folder, {**shape, **quiet})
    return tiny.write(folder, tiny.shrunk(shape))


SCRIPTS = {
    "mistral": ("mistral/mistral_summarization.py", (*CAUSAL, 0)),
    "mpt": ("mpt/mpt_summarization.py", (*CAUSAL, 0)),
    "distilbert": ("distilbert/distilbert_sentiment.py", ("--learning_rate", "0.001", "--batch_size", 8)),
}


@pytest.mark.parametrize(
    "name", ["mistral", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mpt", "distilbert"))]
)
def test_two_processes_have_the_losses_of_one(name, tmp_path):
    script, words = SCRIPTS[name]
    words = (
        "--pretrained_ckpt",
        model_of(name, tmp_path / "model"),
        *words,
        "--epochs",
        7,
        "--max_train_samples",
        ROWS,
    )
    one, two = (record(count, script, tmp_path / str(count), *words) for count in (1, 2))
    losses = [of["training"]["losses"] for of in (one, two)]
    assert len(losses[0]) == 21
    assert losses[1] == pytest.approx(losses[0], abs=2e-4)  # they are rounded to 1e-4 in a record
    assert losses[0][-1] < losses[0][0] - 0.02, "the losses do not move: equal ones would say nothing"
    assert (two["environment"]["processes"], one["environment"].get("processes")) == (2, None)
    assert one["id"] == two["id"]


@pytest.mark.slow
def test_a_kill_of_one_process_ends_all_and_resume_gives_the_same(tiny_folder, tmp_path):
    words = ("--pretrained_ckpt", tiny_folder, *CAUSAL, 0.1, "--epochs", 30, "--max_train_samples", ROWS)
    script, folder = SCRIPTS["mistral"][0], tmp_path / "killed"
    whole = record(2, script, tmp_path / "whole", *words)
    process = start(2, script, folder, *words)
    while len(bookkeeping.written(folder / "checkpoints")) < 2:
        time.sleep(0.05)
        assert process.poll() is None, process.communicate()
    second = max(children(process.pid))
    os.kill(second, signal.SIGKILL)
    process.communicate(timeout=100)
    assert process.returncode
    assert not (folder / "record.json").exists()
    again = record(2, script, folder, *words, "--resume")
    assert again["training"]["losses"] == whole["training"]["losses"]
    assert again["metrics"] == whole["metrics"]


def children(pid):
    listed = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=True)
    return [int(line) for line in listed.stdout.split()]


def test_a_short_last_step_is_filled_up_with_a_row_that_has_nothing_to_learn():
    lengths = [5, 3, 9, 4, 7]
    plain, filled = batches.by_length(lengths, 4, 1), batches.by_length(lengths, 4, 1, 4)
    assert list(filled) == [*plain, 5, 5, 5]
    assert len(filled) == len(list(filled)) == 8
    assert len(batches.by_length(lengths, 5, 1, 5)) == 5
    assert batches.nothing_to_learn({"input_ids": [7, 8], "labels": [-100, 8]}) == {"input_ids": [7], "labels": [-100]}
    assert batches.nothing_to_learn({"input_ids": [7, 8], "labels": 3}) == {"input_ids": [7], "labels": -100}


@pytest.mark.parametrize(
    ("script", "words", "mention"),
    [
        ("distilbert/distilbert_sentiment_loop.py", (), "this script has none"),
        ("mistral/mistral_baseline_inference.py", ("--prompt_type", "zero-shot"), "this script has none"),
        ("mistral/mistral_summarization.py", ("--batch_size", "7"), "--batch_size 7 does not divide among 2"),
        ("mistral/mistral_summarization.py", ("--score_after_epochs", "1", "2"), "give one number of --epochs"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(script, words, mention, monkeypatch):
    for variable, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(variable, value)
    experiment = folders.experiment(str(ROOT / script))
    with pytest.raises(InputError, match=mention):
        checks.check_processes(experiment.resolve_all([*words, "--demo"])[-1])


def test_cards_that_no_process_would_use_are_told(monkeypatch):
    """transformers would train on all of them in one process, each step slower than on one card."""
    cards = type("cuda", (), {"device_count": staticmethod(lambda: 4)})
    monkeypatch.setattr(machine, "cuda", lambda: cards)
    experiment = folders.experiment(str(ROOT / "mistral/mistral_summarization.py"))
    with pytest.raises(InputError, match=r"accelerate launch --num_processes 4.*CUDA_VISIBLE_DEVICES=0"):
        checks.check_processes(experiment.resolve(["--demo"]))
    monkeypatch.setattr(cards, "device_count", lambda: 1)
    checks.check_processes(experiment.resolve(["--demo"]))


def test_a_cluster_that_counts_its_nodes_is_no_launcher(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert (processes.count(), processes.rank()) == (1, 0)


def test_the_configs_are_accelerates(monkeypatch):
    from accelerate.commands.config.config_args import load_config_from_file

    files = sorted((ROOT / "common" / "accelerate").glob("*.yaml"))
    assert len(files) == 4
    kinds = {file.stem: load_config_from_file(str(file)).distributed_type.value for file in files}
    assert kinds == {"cpu": "MULTI_CPU", "ddp": "MULTI_GPU", "deepspeed_zero3": "DEEPSPEED", "fsdp_qlora": "FSDP"}
    for file in files:
        untested = "UNTESTED" in file.read_text()
        assert untested == (file.stem in ("deepspeed_zero3", "fsdp_qlora"))
        assert yaml.safe_load(file.read_text())["mixed_precision"] == "no"
