"""The bench: its sums, and that the ways it times give the same answers on the same task."""

import json
import random
import subprocess
import sys

import pytest
import torch

from common import files
from common.bench import cpu, gpu, shared, trainings
from common.bench.competitors import ours
from common.console import InputError

TINY = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def command(*words):
    done = subprocess.run(
        [sys.executable, "-m", "common", "bench", *words],
        capture_output=True,
        text=True,
        cwd=files.ROOT,
        check=False,
    )
    return done.returncode, done.stderr.strip().splitlines()


def test_a_line_has_medians_and_the_spread_of_ratios_taken_side_by_side():
    found = shared.line("x", [10.0, 30.0, 20.0], [5.0, 6.0, 8.0])
    assert (found["plain"], found["here"], found["ratio"]) == (20.0, 6.0, 2.5)
    assert found["ratios"] == [2.0, 5.0]
    assert shared.line("x", [10.0], [25.0], "tokens/s")["ratio"] == 2.5


def test_runs_share_the_rows_and_take_turns():
    seen = []

    class Args:
        runs = 3
        without = ("c",)

    one = cpu.Bench.__new__(cpu.Bench)
    one.args = Args

    def way(name):
        return lambda share: seen.append((name, list(share))) or {"seconds": 1.0, "results": list(share)}

    found = one.alternating({"a": way("a"), "b": way("b"), "c": way("c")}, range(8))
    assert seen == [(name, rows) for rows in ([0, 1], [2, 3, 4], [5, 6, 7]) for name in "ab"]
    assert shared.all_rows(found["b"]) == list(range(8))


@pytest.mark.parametrize("name", ["nope", "here"])
def test_only_a_competitor_can_be_left_out(name):
    class Args:
        runs, without = 1, (name,)

    one = cpu.Bench.__new__(cpu.Bench)
    one.args = Args
    with pytest.raises(InputError, match="--without"):
        one.alternating({"competitor": print, "here": print})


def test_scores_are_compared_but_for_what_is_one_number_for_all_labels():
    """lm-evaluation-harness scores white space at the prompt's end with every label."""
    ours, theirs = [[-1.0, -2.5], [-3.0, -1.0]], [[-1.04, -2.54], [-3.0, -1.0]]
    assert shared.largest_difference(ours, theirs) == pytest.approx(0, abs=1e-9)
    assert shared.largest_difference(ours, [[-1.0, -2.7], [-3.0, -1.0]]) == pytest.approx(0.1)


WRONG = [
    ["nope"],
    ["--nope"],
    ["--runs", "0"],
    ["--posts", "2"],
    ["--dtype", "int4"],
    ["gpu", "--nope"],
    ["features", "--output", "/"],
    ["--experiment_dir", "nowhere"],
    ["labels", "--experiment_dir", "nowhere"],
]


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_flag_is_one_line(words):
    code, lines = command(*words)
    assert code == 2
    assert len(lines) == 1


@pytest.fixture(scope="module")
def random_folder(tmp_path_factory):
    torch.manual_seed(0)
    return str(gpu.random_weights(TINY, tmp_path_factory.mktemp("random")))


@pytest.fixture(scope="module")
def task(random_folder):
    chance = random.Random(1)
    prompts = [[chance.randrange(3, 500) for _ in range(n)] for n in (9, 30, 17)]
    answers = [[7, 8, 9], [7, 8, 10, 11], [12]]
    more = {"answers": answers, "stop": [1], "max_new_tokens": 6, "batch_size": 2, "dtype": "float32"}
    return {"folder": random_folder, "prompts": prompts, **more}


@pytest.fixture(scope="module")
def loaded(random_folder):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(random_folder)
    tokenizer.pad_token = tokenizer.eos_token
    return transformers.AutoModelForCausalLM.from_pretrained(random_folder, dtype=torch.float32).eval(), tokenizer


def test_labels_score_the_same_both_ways(loaded, task):
    as_tree, full = ours.shared(*loaded, task), ours.full_sequences(*loaded, task)
    assert torch.allclose(torch.tensor(as_tree), torch.tensor(full), atol=1e-4)
    assert shared.process(sys.executable, "ours", {**task, "way": "shared"})["results"] == [
        pytest.approx(row, abs=1e-4) for row in full
    ]


def test_texts_are_the_same_all_ways(loaded, task):
    plain = ours.without_cache(*loaded, task)
    assert all(plain)
    assert ours.one_at_a_time(*loaded, task) == plain
    assert ours.together(*loaded, task) == plain


@pytest.mark.parametrize("quantised", [True, False])
def test_all_training_scripts_begin_at_the_same_loss_and_count_the_same_tokens(random_folder, quantised):
    """An adapter starts as nothing, and all rows are alike: the first losses are the base model's."""
    rows = gpu.rows(64, 1, 512) * 8
    task = {"folder": random_folder, "rows": rows, "batch_size": 2, "steps": 4, "lora_r": 8, "learning_rate": 1e-2}
    task |= {"quantised": quantised, "defaults": True}
    theirs, here = (shared.process(sys.executable, script, task) for script in gpu.SIDES.values())
    assert here["tokens"] == theirs["tokens"] == 2 * 2 * 64
    assert here["trained"] == theirs["trained"] > 0
    assert here["unpacked"] == theirs["unpacked"] == (not quantised)  # like is compared with like (A.11)
    assert here["losses"][0] == pytest.approx(theirs["losses"][0], rel=0.01)
    assert here["losses"][-1] < here["losses"][0]
    assert len(here["losses"]) == len(theirs["losses"]) == 4
    if quantised:
        plain = shared.process(sys.executable, "hf_trainer", task)
        assert (plain["tokens"], plain["trained"]) == (here["tokens"], here["trained"])
        assert plain["losses"][0] == pytest.approx(here["losses"][0], rel=0.01)


def test_a_steps_time_is_named_by_part(tmp_path):
    wider = TINY | {"hidden_size": 256, "intermediate_size": 1024}  # casts of a few numbers take as long as of many
    rows = [{"input_ids": list(range(3, 203)), "completion_mask": [0] * 160 + [1] * 40}] * 80
    task = {
        "folder": str(gpu.random_weights(wider, tmp_path)),
        "rows": rows,
        "precision": "float32",
        "lora_r": 8,
        "learning_rate": 1e-3,
    }
    task |= {"batch_size": 8, "steps": 10, "quantised": True, "unpacked": True}
    parts = shared.process(sys.executable, "ours_step", task)["parts"]
    for name in ("adapter", "products of the frozen weights", "attention", "norms", "dropout", "logits and loss"):
        assert parts[name] > 0
    assert sum(parts.values()) > 20 * parts["casts, copies and others"]  # 95 % have a name


def test_the_processes_that_keep_cores_busy_end(monkeypatch):
    seen, started = [], []
    true = subprocess.Popen
    monkeypatch.setattr(trainings.subprocess, "Popen", lambda *words: started.append(true(*words)) or started[-1])

    def script(home, count, tested):
        running = sum(child.poll() is None for child in started)
        seen.append(running)
        return {"seconds": 1.0 + running, "tokens": 6}

    class Bench:
        home = None

        def alternating(self, ways):
            return {name: [way(())] for name, way in ways.items()}

    monkeypatch.setattr(trainings, "script", script)
    lines = trainings.busy(Bench())["lines"]
    assert seen == [0, 1, 2]
    assert [line["ratio"] for line in lines] == pytest.approx([1 / 2, 1 / 3])
    assert all(child.poll() is not None for child in started)


def test_other_tools_keep_their_own_threads(monkeypatch, tmp_path):
    import common

    for name, value in common.OPENMP.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_SCHEDULE", "static")
    (tmp_path / "tell.py").write_text("import json, os; print(json.dumps(dict(os.environ)))")
    monkeypatch.setattr(shared, "COMPETITORS", tmp_path)
    told = shared.process(sys.executable, "tell", {})
    assert not set(common.OPENMP) & set(told)
    assert told["OMP_SCHEDULE"] == "static"


def test_rows_of_the_gpu_bench_are_long_as_asked_an_eighth_of_them_the_answer():
    for row in gpu.rows(512, 3, 1000):
        assert len(row["input_ids"]) == len(row["completion_mask"]) == 512
        assert sum(row["completion_mask"]) == 64
        assert all(3 <= token < 1000 for token in row["input_ids"])


def test_random_weights_have_the_shape_asked_and_unit_norms(random_folder):
    from safetensors.torch import load_file

    weights = load_file(f"{random_folder}/model.safetensors")
    assert weights["model.layers.1.mlp.up_proj.weight"].shape == (128, 64)
    assert weights["model.layers.1.mlp.up_proj.weight"].float().std().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(weights["model.norm.weight"].float(), torch.ones(64))
    assert shared.linear_weights(random_folder) == 2 * (4 * 64 * 64 + 3 * 64 * 128)


def test_the_shapes_are_the_folders_own():
    shapes = gpu.shapes()
    assert set(shapes) == {"Mistral-7B", "Llama2-13B"}
    assert shapes["Mistral-7B"]["num_key_value_heads"] == 8
    assert shapes["Llama2-13B"]["num_hidden_layers"] == 40


def test_a_tuned_model_is_scored_with_its_adapter_merged(random_folder, tmp_path):
    """A.23: at chance, choices that agree show little."""
    import peft
    import transformers

    auto, keywords = transformers.AutoModelForCausalLM, {"dtype": torch.float32}
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    tuned = peft.get_peft_model(auto.from_pretrained(random_folder, **keywords), config).eval()
    tuned.save_pretrained(tmp_path / "run" / "adapter")
    identity = {"task": "classification", "checkpoint": random_folder}
    cpu.merge(identity, tmp_path / "run", tmp_path / "merged")
    ids = torch.arange(3, 40)[None]
    plain, merged = (auto.from_pretrained(folder, **keywords).eval() for folder in (random_folder, tmp_path / "merged"))
    with torch.inference_mode():
        expected, found, untuned = (model(ids).logits for model in (tuned, merged, plain))
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(untuned, expected, atol=1e-2)
    for wrong in (identity | {"task": "summarization"}, identity):
        with pytest.raises(InputError, match="holds no adapter of a classification"):
            cpu.merge(wrong, tmp_path / "run" if wrong != identity else tmp_path, tmp_path / "other")


def test_medians_of_a_cell_count_linear_products_alone():
    same = {"tokens": 100, "trained": 10, "peak_bytes": 5, "unpacked": False}
    seen = [{"seconds": s, **same} for s in (1.0, 4.0, 2.0)]
    assert gpu.medians(seen, 1000, 1e6) == {
        "tokens_per_second": 50.0,
        "mfu": pytest.approx(50 * 4060 / 1e6),
        "peak_bytes": 5,
        "unpacked": False,
    }
    assert gpu.medians([{"error": "out of memory"}], 1000, 1e6) == {"error": "out of memory"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so_in_one_line():
    code, lines = command("gpu")
    assert code == 2
    assert len(lines) == 1
    assert "CUDA" in lines[0]


def test_a_record_of_the_bench_is_plain_json():
    kept = json.loads(cpu.RESULT.read_text())
    assert list(kept) == [part["command"] for part in kept.values()]
    assert {command.split()[0] for command in kept} <= set(cpu.PARTS)
