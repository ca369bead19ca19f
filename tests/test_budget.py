"""What a training takes: counted bytes against real tensors, advice, the price file, a dry run, a record's block."""

import contextlib
import datetime
import json
import re
from dataclasses import replace

import pytest
import tiny
import torch
from conftest import ROOT
from test_models import CASES, read, write_case
from test_records import record

from common import budget, encoders, experiment, flags, folders, loading, machine, records

ROWS = [{"input_ids": list(range(3, 43)), "labels": [-100] * 30 + list(range(33, 43))} for _ in range(6)]


@pytest.fixture(scope="module", params=list(CASES))
def case(request, tmp_path_factory):
    return write_case(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def encoder_run(tmp_path):
    """encoder_run(**flags) -> a Run of the encoder folder's classification on a tiny model."""
    facts, wording = read("distilbert", "model"), read("distilbert", "prompts")
    home = tiny.write_encoder(tmp_path / "encoder", facts.VARIANTS[0].shape)

    def make(*words):
        words = ["--pretrained_ckpt", str(home), "--demo", "--output_dir", str(tmp_path / "run"), *words]
        args = flags.classification(flags.training("test")).parse_args(words)
        run = experiment.resolve(args, facts, wording, "training")
        run.settings["precision"] = machine.run_precision(facts.PRECISION, not run.settings["lora_r"])
        return run

    return make


def bytes_of(model, wanted):
    return sum(p.nbytes for p in {id(p): p for p in model.parameters() if wanted(p)}.values())


def quantised_bytes(model):
    """Of the 4-bit layers: weights, scales, the scales' scales, code tables."""
    total = 0
    for layer in loading.linear4bit(model):
        state = layer.weight.quant_state
        parts = [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
        total += layer.weight.nbytes + sum(part.nbytes for part in parts)
    return total


def test_weights_adapter_optimizer_and_gradients_are_those_of_the_real_model(case, tmp_path, packed):
    run = case.run(tmp_path)
    job = budget.of_run(run, ROWS)
    parts = budget.memory_of(job, 0)
    base = case.load(run.settings["precision"])
    rest = base.get_memory_footprint() - sum(b.nbytes for b in base.buffers())
    rest -= sum(layer.weight.nbytes for layer in loading.linear4bit(base))
    assert parts["weights"] == pytest.approx(rest + quantised_bytes(base), rel=1e-3)
    model = loading.new_adapter(base, run.settings)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW(trained)
    optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.dim()]
    assert parts["adapter"] == bytes_of(model, lambda parameter: parameter.requires_grad)
    assert parts["gradients"] == sum(parameter.grad.nbytes for parameter in trained)
    assert parts["optimizer"] == sum(value.nbytes for value in moments)


def test_unpacked_weights_are_counted_where_they_are_kept(make_run, load):
    run = make_run()
    job = budget.of_run(run, ROWS)
    kept = load(run.settings["precision"])
    assert budget.memory_of(job, 1e12)["weights"] == bytes_of(kept, lambda parameter: True)
    assert budget.memory_of(job, 0)["weights"] < budget.memory_of(job, 1e12)["weights"]


def test_a_whole_encoder_is_weights_gradients_and_two_moments(encoder_run):
    run = encoder_run()
    job = budget.of_run(run, [{"input_ids": list(range(20)), "labels": 1}] * 4)
    parts = budget.memory_of(job, 1e12)
    weights = bytes_of(budget.skeleton(job, job.layers)[0], lambda parameter: True)
    assert [parts[name] for name in ("weights", "adapter", "gradients")] == [weights, 0, weights]
    assert parts["optimizer"] == 2 * weights
    real = encoders.network(run, [f"class {i}" for i in range(20)])
    assert weights == bytes_of(real, lambda parameter: True)


def test_an_encoders_adapter_has_its_head(encoder_run):
    run = encoder_run("--lora_r", "4")
    job = budget.of_run(run, [{"input_ids": list(range(20)), "labels": 1}] * 4)
    real = encoders.adapted(run, encoders.network(run, [f"class {i}" for i in range(20)]))
    assert budget.memory_of(job, 1e12)["adapter"] == bytes_of(real, lambda parameter: parameter.requires_grad)


def saved_bytes(model, step):
    """Bytes that autograd keeps for the backward pass of step(), weights left out."""
    weights = {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage  # held, so that no other gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), contextlib.suppress(StopIteration):
        step()
    return sum(storage.nbytes() for storage in kept.values())


def test_a_steps_saved_tensors_are_as_many_bytes_as_a_real_steps(case, tmp_path):
    from torch._subclasses.fake_tensor import FakeTensorMode

    job = budget.of_run(case.run(tmp_path), ROWS)
    found = []
    for fake in (False, True):
        model, _ = budget.skeleton(job, job.layers)
        with FakeTensorMode() if fake else contextlib.nullcontext():
            budget.filled(model, lambda old: budget.noise(old, "cpu"))
            found.append(saved_bytes(model, lambda model=model: budget.step(job, model, job.largest)))
    assert found[0] > 1e5
    assert found[1] == pytest.approx(found[0], rel=0.02)
    assert budget.counted(job, job.layers, job.largest).step > 0.9 * found[0]


def test_layers_are_extrapolated_to_what_they_are(make_run):
    job = budget.of_run(make_run(), ROWS)
    job.config.num_hidden_layers = 4
    whole, direct = budget.count(job, job.largest), budget.counted(job, 4, job.largest)
    assert vars(whole) == pytest.approx(vars(direct), rel=0.01)


def test_steps_and_batches_are_the_trainers(make_run):
    run = make_run(batch_size=8, epochs=3)
    rows = [{"input_ids": list(range(10 + i)), "labels": [-100] * (5 + i) + [1] * 5} for i in range(21)]
    job = budget.of_run(run, rows)
    assert sum(n for n, _, _ in job.batches) == 21
    assert (budget.at_once(job.settings), len(job.batches)) == (4, 6)
    assert job.steps == 9  # 3 an epoch
    assert max(length for _, length, _ in job.batches) == 30
    assert all(6 <= columns <= length for _, length, columns in job.batches)


def big(**changes):
    """A Job of a folder's own 7B checkpoint on a GPU."""
    facts, wording = read("llama2", "model"), read("llama2", "prompts")
    args = flags.summarization(flags.training("test")).parse_args([])
    run = experiment.resolve(args, facts, wording, "training")
    job = budget.of_run(run, *budget.typical(run), gpu=True)
    return replace(job, **changes, counts={}) if changes else job


def test_a_7b_model_fits_24_gb_and_not_8_where_fewer_rows_or_tokens_would():
    job = big()
    peak = budget.memory_of(job, budget.CARD)["peak"]
    assert 5e9 < peak < 12e9
    told = budget.advice(job, peak - 1e8)
    assert re.search(r"--batch_size [12] \(a peak of \d", told)
    assert "--max_document_tokens" in told
    assert "smaller model" in budget.advice(job, 3e9)
    small = {"name": "small", "memory_bytes": 6e9, "flops": 1e13, "usd_per_hour": 1.0}
    assert budget.on_instance(job, small)[1] is False
    assert budget.on_instance(job, small | {"memory_bytes": 24e9})[1] is True


def test_time_and_cost_are_products_over_speed():
    job = big()
    instance = {"name": "x", "memory_bytes": 24e9, "flops": 1e14, "usd_per_hour": 2.0}
    _, _, seconds, usd = budget.on_instance(job, instance)
    forward = 2 * 6.5e9 * job.tokens  # forward, again for the backward pass, and back to the inputs
    assert seconds == pytest.approx(3 * forward / (1e14 * budget.UTILISATION), rel=0.1)
    assert usd == pytest.approx(seconds / 1800)


def test_recomputation_is_for_large_models_on_a_gpu():
    large = big()
    one = budget.counted(large, 1, large.largest).step
    two = budget.counted(large, 2, large.largest).step
    rows, length, _ = large.largest
    assert two - one < 3 * rows * length * 4096 * 4  # little more than a layer's input


def test_the_price_file():
    file = budget.prices()
    datetime.date.fromisoformat(file["as_of"])
    assert set(file) == {"as_of", "currency", "source", "instances"}
    assert file["currency"] == "USD"
    named = {each["name"]: each for each in file["instances"]}
    assert named["g5.2xlarge"]["usd_per_hour"] == 1.212
    assert len(named) == len(file["instances"]) >= 5
    for each in named.values():
        assert set(each) == {"name", "accelerator", "memory_bytes", "flops", "usd_per_hour"}
        assert 1e10 < each["memory_bytes"] < 1e12
        assert 1e13 < each["flops"] < 1e16
        assert 0.1 < each["usd_per_hour"] < 100


def test_a_dry_run_says_what_the_training_takes(script, tmp_path):
    done = script("mistral/mistral_summarization.py", "--dry_run", "--output_dir", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ steps, [\d,]+ tokens", done.stdout)
    assert re.search(r"weights 0.00, adapter .* activations .* peak \d", done.stdout)
    assert re.search(r"g5.2xlarge \(A10G\) .* yes .* USD", done.stdout)
    assert re.search(r"this machine .* yes +\d", done.stdout)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_a_7b_model_needs_no_weights_and_no_network(script, tmp_path):
    words = ["--dry_run", "--batch_size", "64", "--output_dir", str(tmp_path / "out")]
    done = script("llama2/llama2_summarization.py", *words, tiny=False, env={"HF_HUB_OFFLINE": "1", "DATA_DIR": ""})
    assert done.returncode == 0, done.stderr
    assert "typical of the data set" in done.stdout
    assert "g5.2xlarge" in done.stdout
    assert not list(tmp_path.iterdir())


def test_the_plan_alone_has_no_budget(script):
    done = script("mistral/mistral_summarization.py", "--dry_run", "plan")
    assert done.returncode == 0
    assert "steps" not in done.stdout


def test_a_short_training_is_not_estimated_and_a_long_one_is(make_run, monkeypatch, capsys):
    run = make_run()
    assert budget.before(run, ROWS) is None
    assert run.estimate is None
    monkeypatch.setattr(budget, "WORTH", 0)
    state = torch.random.get_rng_state()
    assert 0 < budget.before(run, ROWS) < run.estimate["peak_memory_bytes"]
    assert run.estimate["seconds"] > 0
    assert torch.equal(torch.random.get_rng_state(), state)
    assert "expected: about" in capsys.readouterr().out


def test_a_record_has_the_estimate_and_its_error():
    training = {"peak_memory_bytes": 2_000_000_000, "seconds": 50.0}
    block = budget.compared({"peak_memory_bytes": 2_200_000_000, "seconds": 40.0}, training)
    assert block["peak_error"] == pytest.approx(0.1)
    assert block["seconds_error"] == pytest.approx(-0.2)
    records.validate(record(estimate=block))
    records.validate(record(estimate=None))
    records.validate(record())
    assert budget.compared(None, training) is None
    unknown = budget.compared({"peak_memory_bytes": 1, "seconds": None}, {"peak_memory_bytes": None, "seconds": 1.0})
    assert (unknown["peak_error"], unknown["seconds_error"]) == (None, None)
    records.validate(record(estimate=unknown))


def test_the_front_pages_figures_are_what_the_models_take():
    kept = json.loads(budget.DEFAULTS.read_text())
    everyone = [path.parent for path in sorted(ROOT.glob("*/model.py"))]
    assert set(kept) == {v.checkpoint for home in everyone for v in folders.load_module(home / "model.py").VARIANTS}
    found = budget.defaults(ROOT / "phi2") | budget.defaults(ROOT / "distilbert")
    for name, figures in found.items():  # a first count in a process has some hundred bytes more than later ones
        assert kept[name] == pytest.approx(figures, rel=1e-6)
    assert all(figures["peak"] + budget.CONTEXT <= budget.CARD for figures in kept.values() if figures["fits"])
