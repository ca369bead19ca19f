"""The precision to compute in: what was measured to be faster, as asked, and why."""

import json

import pytest
import torch

from common import machine, precision
from common.cpu import products

ON_CPU = pytest.mark.skipif(torch.cuda.is_available(), reason="asks what a CPU does")
LAYER = {"hidden_size": 64, "intermediate_size": 256}


def key(hidden=64, inner=256):
    return f"{machine.device_name()}, {machine.threads()} threads, torch {torch.__version__}, {hidden} x {inner}"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNING_HUB_CACHE", str(tmp_path / "new"))
    return tmp_path / "new" / "matrix_products.json"


@pytest.mark.parametrize(("bfloat16", "expected"), [(0.5, "bfloat16"), (0.99, "float32"), (2.0, "float32")])
@ON_CPU
def test_bfloat16_is_taken_where_it_was_measured_to_be_faster(bfloat16, expected, cache):
    cache.parent.mkdir()
    cache.write_text(json.dumps({key(): {"float32": 1.0, "bfloat16": bfloat16}}))
    used, why = precision.chosen("auto", "bfloat16", shape=LAYER)
    assert (used, f"{bfloat16:.2f} of float32's time" in why) == (expected, True)
    whole = precision.MIXED if expected == "bfloat16" else "float32"
    assert precision.chosen("auto", "float32", trains_all=True, shape=LAYER)[0] == whole
    assert precision.chosen("float32", "bfloat16", shape=LAYER) == ("float32", "asked for")


@ON_CPU
def test_what_was_published_in_another_precision_is_not_computed_in_bfloat16(cache):
    assert precision.chosen("auto", "float32")[0] == precision.chosen("auto", "float16")[0] == "float32"
    assert not cache.exists()  # nothing was measured


@pytest.mark.parametrize("kept", [None, "torn {", "[1]", '{"other machine": {}}', "zero"])
@ON_CPU
def test_the_measurement_is_made_once_and_kept(kept, cache, monkeypatch):
    if kept:
        cache.parent.mkdir()
        zero = json.dumps({key(): {"float32": 0.0, "bfloat16": 1.0}})
        cache.write_text(zero if kept == "zero" else kept)
    share = products.bfloat16_share((64, 256))
    seconds = json.loads(cache.read_text())[key()]
    assert share == seconds["bfloat16"] / seconds["float32"]
    assert list(cache.parent.iterdir()) == [cache]
    monkeypatch.setattr(products, "measured", None)  # would fail
    assert products.bfloat16_share((64, 256)) == share


@ON_CPU
def test_the_measurement_tells_a_slow_precision(monkeypatch):
    """Both ways round, with one precision's products made fifty times."""
    true = products.layer_products
    for slow, fast in (("float32", "bfloat16"), ("bfloat16", "float32")):

        def slower(hidden, inner, dtype, slow=slow):
            product = true(hidden, inner, dtype)
            return lambda: [product() for _ in range(50 if str(dtype).endswith(slow) else 1)]

        monkeypatch.setattr(products, "layer_products", slower)
        seconds = products.measured(64, 128)
        assert seconds[slow] > seconds[fast]


@ON_CPU
def test_a_cache_that_cannot_be_written_costs_no_run(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FINETUNING_HUB_CACHE", str(tmp_path / "file"))
    assert precision.chosen("auto", "bfloat16", shape=LAYER)[0] in ("float32", "bfloat16")


def test_sizes_are_found_by_the_names_that_configs_have():
    assert precision.sizes({"dim": 768, "hidden_dim": 3072}) == (768, 3072)  # DistilBERT
    assert precision.sizes({"d_model": 64}) == (64, 256)  # MPT
    assert precision.sizes({}) == (1024, 4096)
