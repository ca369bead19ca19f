"""What moved the numbers: each factor scores the same rows twice, ours as the scripts do."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from common import factors, files
from common.console import InputError
from common.factors import causal, stored
from common.reports import effects, front, speed, statistics
from common.runs import folders, records


@pytest.fixture(scope="module")
def home(tiny_folder, tmp_path_factory):
    """A folder with one tiny trained run of each task, as a study's folder holds them."""
    home = tmp_path_factory.mktemp("home")
    for name in ("mistral_classification", "mistral_summarization", "smollm2_instructions"):
        model, task = name.split("_")
        command = [sys.executable, str(ROOT / model / f"{name}.py"), "--pretrained_ckpt", str(tiny_folder)]
        command += ["--demo", "--epochs", "1", "--lora_r", "8", "--max_test_samples", "8", "--precision", "float32"]
        command += ["--max_document_tokens", "32"]
        folder = home / "experiments" / f"{task}_tiny"
        done = subprocess.run([*command, "--output_dir", str(folder)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    return home


@pytest.fixture
def measure(home, tmp_path, monkeypatch):
    """measure(name, …) -> the figures of these factors."""
    monkeypatch.setattr(causal, "HOME", home)
    monkeypatch.setattr(causal.precision, "chosen", lambda *_: ("float32", "for a test"))
    causal.plain.cache_clear()
    causal.as_here.cache_clear()

    def measured(*names, rows=8):
        path = tmp_path / "factors.json"
        assert factors.main([*names, "--rows", str(rows), "--dialogues", str(rows), "--output", str(path)]) is None
        return json.loads(path.read_text())

    return measured


def test_our_side_of_every_factor_is_what_the_script_recorded(measure, home):
    names = ["four-bit-type", "cut-on-the-right", "loss-on-everything", "sampled", "no-end", "training-rows"]
    names.append("nearly-greedy")
    found = measure(*names)
    assert set(found) == set(names)
    recorded = {
        task: records.checked(home / "experiments" / f"{task}_tiny" / "record.json")["metrics"]
        for task in ("classification", "summarization")
    }
    for name, each in found.items():
        task, metric = ("summarization", "rouge1") if each["metric"] == "ROUGE-1" else ("classification", "accuracy")
        assert each["here"] == pytest.approx(recorded[task][metric]["value"], abs=1e-3), name
        assert each["n"] == 8
        assert each["value"] == pytest.approx(each["here"] - each["study"])
        assert each["low"] <= each["value"] <= each["high"]
        assert 0 <= each["p"] <= 1


def test_a_prompt_that_was_cut_on_the_right_lost_its_question(measure, monkeypatch):
    seen = []
    true = causal.right
    monkeypatch.setattr(causal, "right", lambda *told: seen.append(told[2]) or true(*told))
    measure("cut-on-the-right")
    cut, whole = seen
    longest = max(map(len, whole))
    assert max(map(len, cut)) == longest
    lost = [i for i, prompt in enumerate(cut) if prompt != whole[i]]
    assert lost
    assert all(cut[i][-3:] != whole[i][-3:] for i in lost)


def test_an_echo_is_scored_with_its_prompt(measure, home):
    found = measure("prompt-in-answer")["prompt-in-answer"]
    recorded = records.checked(home / "experiments" / "instructions_tiny" / "record.json")["metrics"]["rouge1"]
    assert found["here"] == pytest.approx(recorded["value"], abs=1e-3)
    assert found["study"] != found["here"]


def test_what_is_missing_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(causal, "HOME", tmp_path)
    causal.plain.cache_clear()
    causal.as_here.cache_clear()
    with pytest.raises(InputError, match="trains one"):
        factors.main(["sampled", "--output", str(tmp_path / "out.json")])
    with pytest.raises(InputError, match="no factor smapled; there are: training-rows"):
        factors.main(["smapled"])
    os.mkfifo(tmp_path / "pipe")  # a rename would put a file in its place
    with pytest.raises(InputError, match=r"cannot write .*pipe: it is no file"):
        factors.main(["random-head", "--output", str(tmp_path / "pipe")])
    monkeypatch.setattr(folders, "read", lambda _: type("Folder", (), {"records": [], "checkpoints": []}))
    with pytest.raises(InputError, match="makes it"):
        stored.free_text(None)


def test_the_page_adjusts_for_the_number_of_factors(monkeypatch, tmp_path):
    figures = {"metric": "accuracy", "study": 40.0, "here": 42.0, "n": 9, "published": "some", "what": "A, against b."}
    figures |= {"value": 2.0, "low": 0.1, "high": 3.9}
    monkeypatch.setattr(speed, "ASSETS", tmp_path)
    assert "Not measured yet" in effects.table(None)
    files.write_json(tmp_path / "factors.json", {name: figures | {"p": 0.03} for name in ("one", "two")})
    assert effects.table(None).count("no difference seen") == 2
    files.write_json(tmp_path / "factors.json", {"one": figures | {"p": 0.03}, "ten": figures | {"p": None}})
    assert effects.table(None).count("| better") == 1
    assert "95 % of draws" in effects.table(None)
    assert effects.content() == [["one", 2.0, 0.1, 3.9], ["ten", 2.0, 0.1, 3.9]]
    assert front.figure("factor ten", []) == "40.0 → 42.0 (+2.0 [+0.1, +3.9])"
    assert front.figure("factor nine", []) == "not measured yet"


def test_rows_that_are_not_the_same_are_compared_by_welch():
    difference = statistics.groups_differ([0.0, 100.0, 0.0, 0.0], [100.0, 100.0, 0.0, 100.0, 100.0])
    assert difference.value == pytest.approx(55.0)
    assert difference.low < 0 < difference.high
