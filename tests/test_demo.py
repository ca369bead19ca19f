"""The demos on real pretrained weights: minutes each. `make slow`."""

import pytest
from conftest import record_of

from common import records

pytestmark = pytest.mark.slow


@pytest.fixture
def all_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize(("task", "metric"), [("summarization", "rouge1"), ("classification", "accuracy")])
def test_the_demo_lifts_the_real_model_above_its_base(script, tmp_path, all_cores, task, metric):
    done = script(f"mistral/mistral_{task}.py", "--demo", "--output_dir", str(tmp_path), tiny=False)
    record = record_of(done)
    records.validate(record)
    assert record["checkpoint"] == "smollm2"
    assert record["metrics"][metric]["value"] > record["metrics_before"][metric]["value"] + 5
    assert record["training"]["losses"][-1] < record["training"]["losses"][0]
