"""The demos of every folder on real pretrained weights: minutes each. `make slow`."""

import pytest
from conftest import record_of
from test_folders import FOLDERS, WRITERS

from common.runs import records

pytestmark = pytest.mark.slow


@pytest.fixture
def all_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize(("task", "metric"), [("summarization", "rouge1"), ("classification", "accuracy")])
@pytest.mark.parametrize("folder", FOLDERS)
def test_the_demo_teaches_the_real_model(script, tmp_path, all_cores, folder, task, metric):
    done = script(f"{folder}/{folder}_{task}.py", "--demo", "--output_dir", str(tmp_path / "run"), tiny=False)
    record = record_of(done)
    records.validate(record)
    writes = folder in WRITERS
    assert record["identity"]["checkpoint"] == ("smollm2" if writes else "minilm")
    assert record["data"]["kind"] == "sample"
    assert record["training"]["losses"][-1] < record["training"]["losses"][0]
    # an encoder's base is a logistic regression that has learned the same rows
    before, gain = record["metrics_before"][metric]["value"], 5 if writes else -5
    assert record["metrics"][metric]["value"] > before + gain
