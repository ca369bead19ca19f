"""The scripts as a user starts them: on a tiny random model of the true class, with the sample, offline."""

import itertools
import json
import os
import shutil
import subprocess
import sys

import inprocess
import pytest
from conftest import ROOT, record_of

from common import files
from common.runs import records


@pytest.fixture(scope="module")
def no_network(tmp_path_factory):
    """An environment in which every attempt to reach another machine is written down and fails."""
    folder = tmp_path_factory.mktemp("site")
    log = folder / "attempts"
    (folder / "sitecustomize.py").write_text(
        "import socket\n"
        "def refuse(self, address):\n"
        "    if self.family != socket.AF_UNIX:\n"
        f"        open({str(log)!r}, 'a').write(f'{{address}}\\n')\n"
        "    raise OSError('no network in this test')\n"
        "socket.socket.connect = refuse\n"
        "def lookup(*a, **k):\n"
        f"    open({str(log)!r}, 'a').write(f'{{a}}\\n')\n"
        "    raise OSError('no network in this test')\n"
        "socket.getaddrinfo = lookup\n"
    )
    # unset, so that the script itself has to know that nothing is needed from the hub
    env = {"PYTHONPATH": str(folder), "HF_HUB_OFFLINE": ""}
    return env, log


@pytest.fixture(scope="module", params=["classification", "summarization"])
def trained(request, tiny_folder, tmp_path_factory, no_network):
    """One tiny training run of a task: (task, its folder, its record)."""
    task, folder = request.param, tmp_path_factory.mktemp(request.param)
    env, log = no_network
    command = [
        sys.executable,
        str(ROOT / f"mistral/mistral_{task}.py"),
        "--pretrained_ckpt",
        str(tiny_folder),
        "--demo",
    ]
    done = subprocess.run(
        [*command, "--epochs", "1", "--lora_r", "8", "--output_dir", str(folder), "--price_per_hour", "1.212"],
        cwd=ROOT / "mistral",
        env={**{k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}, **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert not log.exists(), log.read_text()
    return task, folder, record_of(done, cwd=ROOT / "mistral")


def test_the_network_guard_guards(no_network):
    env, log = no_network
    done = subprocess.run(
        [sys.executable, "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 1)"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no network in this test" in done.stderr
    log.unlink()


def test_training_writes_a_valid_record(trained):
    task, folder, record = trained
    records.validate(record)
    made = record["identity"]
    assert record["status"] == "done"
    assert (record["model"], made["task"], made["kind"]) == ("Mistral-7B", task, "training")
    assert made["settings"]["quantization"] == "nf4, double"
    assert made["settings"]["lora_r"] == 8
    assert made["data"]["name"] == "sample" == record["data"]["kind"]
    assert record["metrics"].keys() == record["metrics_before"].keys()
    seconds = record["training"]["seconds"] + sum(record["inference"]["stages"].values())
    assert record["cost"]["usd"] == pytest.approx(1.212 * seconds / 3600, abs=1e-5)
    assert record["inference"]["stages"].keys() >= {"base", "tuned"}
    assert record["training"]["tokens"] > 1000
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert records.run_of(folder)["id"] == record["id"]


def test_trained_adapter_scores_the_same_in_a_fresh_process(trained, script, tmp_path):
    task, folder, record = trained
    done = script(
        f"mistral/mistral_{task}_inference.py",
        *["--experiment_dir", str(folder), "--demo", "--output_dir", str(tmp_path)],
        cwd=tmp_path,
        tiny=False,
    )
    again = record_of(done, cwd=tmp_path)
    assert again["metrics"] == record["metrics"]
    assert again["identity"]["data"] == record["identity"]["data"]
    assert again["training"] is None
    assert again["identity"]["trained"]["id"] == record["id"]
    assert again["identity"]["settings"] == record["identity"]["settings"]


def test_how_many_rows_an_inference_scores_is_part_of_what_it_is(trained, script, tmp_path):
    task, folder, _ = trained
    words = [f"mistral/mistral_{task}_inference.py", "--experiment_dir", str(folder), "--demo", "--dry_run", "plan"]
    plans = [script(*words, *more, tiny=False).stdout for more in ([], ["--max_test_samples", "3"])]
    places = [next(line.split()[1] for line in plan.splitlines() if line.split()[0] == "record") for plan in plans]
    assert places[0] != places[1]


def test_trained_adapter_answers_one_text(trained, script, tmp_path):
    task, folder, _ = trained
    words = ["--experiment_dir", str(folder), "--text", "Ann: the goalie was great! Bob: yes {document}"]
    done = script(f"mistral/mistral_{task}_inference.py", *words, "--output_dir", str(tmp_path / "none"), tiny=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "record:" not in done.stdout.splitlines()[-1]
    if task == "classification":
        assert [line.split()[0].count(".") >= 1 for line in done.stdout.strip().splitlines()[-3:]] == [True] * 3
    assert not (tmp_path / "none").exists()


def test_adapter_of_another_task_is_refused(trained, script):
    task, folder, _ = trained
    other = {"classification": "summarization", "summarization": "classification"}[task]
    done = script(f"mistral/mistral_{other}_inference.py", "--experiment_dir", str(folder), tiny=False)
    assert done.returncode == 2
    assert f"trained for {task}" in done.stderr


def test_finished_run_resumed_does_nothing_but_say_so(trained, script):
    task, folder, record = trained
    before = (folder / "record.json").stat().st_mtime_ns
    words = ["--epochs", "1", "--lora_r", "8", "--output_dir", str(folder), "--price_per_hour", "1.212", "--resume"]
    done = script(f"mistral/mistral_{task}.py", *words)
    assert record_of(done) == record
    assert "nothing to do" in done.stdout
    assert (folder / "record.json").stat().st_mtime_ns == before


def test_another_run_in_the_same_folder_is_refused_and_nothing_is_lost(trained, script):
    task, folder, _ = trained
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for more in ([], ["--resume"]):
        words = ["--epochs", "2", "--lora_r", "8", "--output_dir", str(folder), *more]
        done = script(f"mistral/mistral_{task}.py", *words)
        assert done.returncode == 2
        assert "holds another run (epochs 1 there, 2 here)" in done.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["../../elsewhere", "qlora/../../x", ""])
def test_a_run_json_that_was_changed_is_refused(trained, script, name, tmp_path):
    task, folder, _ = trained
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    told = files.read_json(copy / "run.json")
    for broken in ({"id": name}, {"identity": {**told["identity"], "task": name}}, {"identity": [name]}):
        (copy / "run.json").write_text(json.dumps(told | broken))
        done = script(f"mistral/mistral_{task}_inference.py", "--experiment_dir", str(copy), tiny=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "run.json" in done.stderr


BASELINE = ROOT / "mistral" / "mistral_baseline_inference.py"


@pytest.mark.parametrize("prompt", ["zero-shot", "one-shot", "few-shot"])
@pytest.mark.parametrize("task", ["classification", "summarization"])
def test_baseline_scores_every_prompt_type(tiny_folder, tmp_path, task, prompt):
    words = ["--pretrained_ckpt", tiny_folder, "--demo", "--task_type", task, "--prompt_type", prompt]
    words += ["--max_test_samples", "4", "--output_dir", tmp_path, "--max_document_tokens", "64"]
    record = inprocess.done(BASELINE, *words).record
    assert record["identity"]["settings"]["prompt_type"] == prompt
    assert record["training"] is record["metrics_before"] is None
    assert record["metrics"]["accuracy" if task == "classification" else "rouge1"]["n"] == 4


def test_a_zero_shot_record_is_not_taken_for_a_few_shot_one(tiny_folder, tmp_path):
    words = ["--pretrained_ckpt", tiny_folder, "--demo", "--task_type", "summarization", "--max_test_samples", "2"]
    words += ["--output_dir", tmp_path, "--resume"]
    first = inprocess.done(BASELINE, *words, "--prompt_type", "zero-shot")
    assert first.record["identity"]["settings"]["shots"] == 0
    inprocess.refused(inprocess.start(BASELINE, *words, "--prompt_type", "few-shot"), "holds another run")


@pytest.mark.parametrize("task", ["classification", "summarization"])
def test_prompted_and_tuned_models_have_one_budget_quantisation_and_document_length(script, task):
    plans = [script(f"mistral/mistral_{task}.py", "--dry_run", "plan").stdout]
    for prompt in ("zero-shot", "few-shot"):
        words = ["--task_type", task, "--prompt_type", prompt, "--dry_run"]
        plans.append(script("mistral/mistral_baseline_inference.py", *words).stdout)
    for name in ("max_new_tokens", "quantization", "max_document_tokens", "format"):
        values = {
            next(line for line in plan.splitlines() if line.split()[:1] == [name]).split(None, 1)[1] for plan in plans
        }
        assert len(values) == 1, (name, values)


def test_interrupted_scoring_resumed_equals_the_uninterrupted_one(script, tmp_path):
    words = ["--task_type", "summarization", "--inference_batch_size", "3", "--output_dir", str(tmp_path)]
    whole = record_of(script("mistral/mistral_baseline_inference.py", *words))
    predictions = tmp_path / "predictions-base-answers.jsonl"
    lines = predictions.read_text().splitlines(keepends=True)
    assert len(lines) == 6
    predictions.write_text("".join(lines[:2]) + lines[2][:40])  # a kill in the middle of the third batch
    (tmp_path / "record.json").unlink()
    resumed = record_of(script("mistral/mistral_baseline_inference.py", *words, "--resume"))
    assert resumed["metrics"] == whole["metrics"]
    rows = [json.loads(line)["rows"] for line in predictions.read_text().splitlines()]
    assert sorted(itertools.chain(*rows)) == list(range(16))


def test_output_into_head_does_not_end_the_run(tiny_folder, tmp_path):
    out = tmp_path / "out"
    words = f"--pretrained_ckpt {tiny_folder} --demo --max_test_samples 2 --output_dir {out}"
    command = f"set -o pipefail; {sys.executable} mistral/mistral_baseline_inference.py {words} | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert records.checked(out / "record.json")["status"] == "done"


def test_a_terminal_that_is_not_utf_8_gets_question_marks(script, tmp_path):
    text = "Ann: caf\u00e9 \u2603?"
    words = ["--demo", "--max_test_samples", "2", "--output_dir", str(tmp_path / "out")]
    done = script("mistral/mistral_baseline_inference.py", *words, env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert record_of(done)["status"] == "done", text


@pytest.mark.parametrize("flag", ["--use_flash_attention", "--use_liger_kernel"])
def test_kernels_of_a_gpu_without_one_are_one_line(flag, script):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = script("mistral/mistral_summarization.py", flag)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {flag} needs an NVIDIA GPU")


def test_compiling_without_a_compiler_is_one_line(script):
    done = script("mistral/mistral_summarization.py", "--torch_compile", env={"PATH": "", "CXX": "c++-of-nobody"})
    assert done.returncode == 2
    assert done.stderr.startswith("error: --torch_compile needs a C++ compiler")


def test_an_adapter_that_is_not_there_is_one_line(script, tmp_path):
    done = script("mistral/mistral_summarization_inference.py", "--experiment_dir", str(tmp_path), tiny=False)
    assert done.returncode == 2
    assert "train one first" in done.stderr
