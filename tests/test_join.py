"""Which record fills which published line: by the fields of a run's identity and nothing else."""

import csv
import hashlib
import json
from types import SimpleNamespace

import pytest
from conftest import ROOT, copied

from common import files, metrics
from common.reports import join, published, runs
from common.runs import folders, identity, records

FOLDERS = sorted(path.parent.name for path in ROOT.glob("*/model.py"))
METRIC = {"value": 41.0, "ci95": [36.0, 46.0], "n": 300}
TRAINING = {
    "seconds": 600.0,
    "tokens": 1000,
    "tokens_per_second": 1.7,
    "steps": 4,
    "loss": 0.5,
    "losses": [0.9, 0.7, 0.5, 0.3],
    "peak_memory_bytes": 2_000_000_000,
    "trainable_parameters": 100,
    "validation": [{"epoch": 1, "loss": 0.6, "accuracy": 0.75}, {"epoch": 2, "loss": 0.4, "accuracy": 0.875}],
    "curves": {"step": [1, 2], "loss": [0.9, 0.5], "grad_norm": [3.0, 1.0], "learning_rate": [1e-3, 0.0]},
}
INFERENCE = dict(seconds=60.0, samples_per_second=5.0, tokens_per_second=20.0, latency_p50_s=1.0, latency_p90_s=2.0)
ENVIRONMENT = {"python": "3.11", "packages": {"torch": None}, "device": "CPU", "cpu_count": 2, "threads": 2}
ENVIRONMENT |= {"precision": "float32", "git_commit": None, "git_dirty": None}


@pytest.fixture
def home(tmp_path, monkeypatch):
    return bare(tmp_path, monkeypatch)


def bare(tmp_path, monkeypatch):
    """A copy of all folders and of common/, without records, which the reports of this process read."""
    monkeypatch.setattr(files, "ROOT", copied(tmp_path, *FOLDERS, "common"))
    monkeypatch.delenv("DATA_DIR", raising=False)
    return tmp_path


def scores(value=41.0, n=300):
    names = [name for task in runs.SHOWN.values() for name in task] + [f"generated_{each}" for each in metrics.OUTCOMES]
    names += [f"generated_{each}" for each in ("accuracy", "precision", "recall")]
    names += [f"echo_{name}" for name in runs.SHOWN["instructions"]]
    return {name: {"value": value, "ci95": [value - 5, value + 5], "n": n} for name in names}


def record(script, *words, n=(281, 10, 300), kind="study", **changes):
    """The record of a run that was started with these flags, as its script makes it, with made-up scores. script: of
    the copy in `files.ROOT`; n: training, validation and test rows."""
    run = folders.experiment(files.ROOT / script).resolve(list(words))
    rows = dict(zip(("train", "validation", "test"), n, strict=True))
    run.environment = dict(ENVIRONMENT)
    told = SimpleNamespace(source="made for a test", kind=kind, n=rows, dropped={})
    made = run.record(told, {"training": TRAINING if run.trains else None, "estimate": None})
    before = scores(20.0, n[2]) if run.trains else None
    return made | {"metrics": scores(n=n[2]), "metrics_before": before, "inference": INFERENCE, **changes}


def inferred(trained, script, **settings):
    """The record of an inference script that used the run of the record `trained`, decoded so."""
    fields = {**trained["identity"], "kind": "inference", "trained": {"id": trained["id"], "sha256": "0" * 64}}
    fields["settings"] = {**fields["settings"], **settings}
    made = {**trained, "identity": fields, "id": identity.digest(fields), "script": script, "training": None}
    return made | {"metrics_before": None}


def altered(made, **fields):
    """A record with other fields in its identity, and the id that belongs to them."""
    changed = {**made["identity"], **fields}
    return {**made, "identity": changed, "id": identity.digest(changed)}


def add(home, made, folder="mistral"):
    records.validate(made)
    files.write_json(home / folder / "results" / f"{made['id']}_{len(list(home.rglob('results/*')))}.json", made)


def filled(folder="mistral"):
    """{(table, row, column): what was measured for it} of a folder's published lines that have a record."""
    all_folders = folders.all_folders()
    lines = next(each for each in all_folders if each.name == folder).published
    shown = {(line["table"], line["row"], line["column"]): published.measured(line, all_folders) for line in lines}
    return {place: text for place, text in shown.items() if text != "-"}


def named(folder="mistral"):
    return join.labels(next(each for each in folders.all_folders() if each.name == folder).records)


CLASSIFICATION = "mistral/mistral_classification.py"
SUMMARIZATION = "mistral/mistral_summarization.py"
ROW = "2.5% (266)"


def test_a_script_at_its_defaults_deviates_in_nothing_and_a_flag_is_the_only_deviation(home):
    assert join.deviations(record(CLASSIFICATION)) == {}
    found = join.deviations(record(CLASSIFICATION, "--lora_r", "4", "--seed", "43", "--max_test_samples", "9"))
    assert found == {"lora_r": 4, "seed": 43}
    assert join.deviations(record(CLASSIFICATION, "--neftune", "5", "--full_tune")) == {}
    assert join.deviations(record(CLASSIFICATION, "--neftune", "15")) == {"neftune": 15.0}
    baseline = "mistral/mistral_baseline_inference.py"
    few = record(baseline, "--task_type", "summarization", "--prompt_type", "few-shot")
    assert (join.method(few), join.deviations(few)) == ("few-shot", {})
    head = record("gemma/gemma_sentiment.py", "--random_head", "--seed", "2")
    assert (join.method(head), join.deviations(head)) == ("random-head", {"seed": 2})
    encoder = record("distilbert/distilbert_classification.py", "--lora_r", "16")
    assert (join.method(encoder), join.deviations(encoder)) == ("qlora", {"lora_r": 16})
    dummy = record("distilbert/distilbert_features.py", "--baseline", "dummy")
    assert (join.method(dummy), join.deviations(dummy)) == ("dummy", {})


def test_a_record_fills_the_lines_of_its_experiment_and_no_others(home):
    add(home, record(CLASSIFICATION, "--train_sample_fraction", "0.025"))
    text = "41.0 [36.0, 46.0], n = 300, 281 rows"  # A.21: of how many rows the figure is
    columns = ("Mistral-7B, folder README", "Mistral-7B, hub README")
    assert filled() == {("mistral-1", ROW, column): text for column in columns}


def test_every_method_of_the_tables_is_found(home):
    add(home, record("zephyr/zephyr_classification.py", "--neftune", "5", "--full_tune"), "zephyr")
    assert list(filled("zephyr")) == [("zephyr-1", "100% (10,664)", "QLoRA + NEFTune + all modules")]
    small = ("--train_sample_fraction", "0.05", "--lora_r", "16")
    add(home, record("distilbert/distilbert_classification.py", *small), "distilbert")
    assert list(filled("distilbert")) == [("distilbert-1", "5% (533)", "DistilBERT, QLoRA")]
    add(home, record("distilbert/distilbert_sentiment_loop.py"), "distilbert")
    assert ("distilbert-5", "training loop", "accuracy") in filled("distilbert")
    sampled = ("--prompt_type", "zero-shot", "--temperature", "1", "--seed", "2")
    add(home, record("gemma/gemma_sentiment.py", "--pretrained_ckpt", "google/gemma-2b-it", *sampled), "gemma")
    assert {row for _, row, _ in filled("gemma")} == {"#2"}


def test_cited_figures_are_measured_in_their_home_folder(home):
    add(home, record("falcon/falcon_summarization.py"), "falcon")
    assert ("mistral-3", "Falcon-7B, fine-tuning + QLoRA", "ROUGE-1") in filled("mistral")


def test_an_adapter_fills_a_line_of_decoding_by_what_was_asked(home):
    trained = record("mistral/mistral_instructions.py")
    assert join.deviations(trained) == {}
    script = "mistral/mistral_instructions_inference.py"
    add(home, inferred(trained, script, temperature=0.25))
    assert {row for _, row, _ in filled()} == {"temperature 0.25"}
    add(home, inferred(trained, script))
    assert {row for _, row, _ in filled()} == {"temperature 0.25", "default", "beams 1", "an echo of the prompt"}


STRANGERS = {
    "own data": lambda: record(CLASSIFICATION, "--train_sample_fraction", "0.025", kind="own"),
    "the sample": lambda: record(CLASSIFICATION, "--train_sample_fraction", "0.025", kind="sample"),
    "another checkpoint": lambda: record(CLASSIFICATION, "--pretrained_ckpt", "smollm2", "--lora_r", "8"),
    "a rank": lambda: record(CLASSIFICATION, "--lora_r", "4", "--train_sample_fraction", "0.025"),
    "a seed": lambda: record(CLASSIFICATION, "--seed", "43", "--train_sample_fraction", "0.025"),
    "a length": lambda: record(CLASSIFICATION, "--max_document_tokens", "64", "--train_sample_fraction", "0.025"),
    "a precision": lambda: record(CLASSIFICATION, "--precision", "float32", "--train_sample_fraction", "0.025"),
    "a number of rows": lambda: record(CLASSIFICATION, "--max_train_samples", "281"),
    "a share": lambda: record(CLASSIFICATION, "--train_sample_fraction", "0.03"),
    "a column": lambda: record(CLASSIFICATION, "--label_column", "b", "--train_sample_fraction", "0.025"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_a_run_that_is_none_of_the_tables_fills_no_line(name, home):
    """A.2, A.3: own data, other seeds, alphas, lengths, columns and checkpoints used to fill published tables."""
    add(home, STRANGERS[name]())
    assert filled() == {}


@pytest.mark.parametrize("field", ["wording", "revision"])
def test_a_run_before_a_change_of_wording_or_pin_is_another_run(field, home):
    made = record(CLASSIFICATION, "--train_sample_fraction", "0.025")
    old = {"wording": {**made["identity"]["wording"], "text": "Which class? {document}"}, "revision": "0" * 40}
    add(home, altered(made, **{field: old[field]}))
    assert filled() == {}
    assert named() == [f"qlora, other {field}, train_sample_fraction 0.025"]


def test_a_neftune_of_another_alpha_is_not_the_tables(home):
    add(home, record("zephyr/zephyr_classification.py", "--neftune", "15"), "zephyr")
    assert filled("zephyr") == {}
    assert named("zephyr") == ["qlora+neftune, neftune 15.0"]


def test_rows_of_a_table_are_named_by_what_differs_and_never_alike(home):
    add(home, record(CLASSIFICATION, "--lora_r", "4", "--seed", "43"))
    for n in (100, 200):
        add(home, record(CLASSIFICATION, "--max_test_samples", str(n), n=(281, 0, n)))
    names = named()
    assert len(set(names)) == 3
    assert "qlora, lora_r 4, seed 43" in names
    assert all(len(name.rpartition(", ")[2]) == 6 for name in names if "lora_r" not in name)


def test_of_records_of_one_experiment_the_fullest_counts_and_never_the_best(home):
    share = ("--train_sample_fraction", "0.025")
    best = record(CLASSIFICATION, *share, "--max_test_samples", "50", n=(281, 0, 50), metrics=scores(99.0, 50))
    add(home, best)
    add(home, record(CLASSIFICATION, *share, metrics=scores(30.0)))
    assert set(filled().values()) == {"30.0 [25.0, 35.0], n = 300, 281 rows"}


def test_a_run_that_ran_out_of_memory_is_kept_until_one_ends_well(home):
    lost = {"status": "OOM", "reason": "memory does not hold one row", "metrics": None, "metrics_before": None}
    add(home, record(SUMMARIZATION, **lost))
    assert filled()["mistral-2", "fine-tuning + QLoRA", "ROUGE-1, hub README"] == "OOM"
    add(home, record(SUMMARIZATION, "--max_test_samples", "64", n=(281, 0, 64)))
    assert filled()["mistral-2", "fine-tuning + QLoRA", "ROUGE-1, hub README"] == "41.0 [36.0, 46.0], n = 64"


def test_the_untrained_model_and_the_losses_come_from_the_trainings_record(home):
    add(home, record("mistral/mistral_sentiment.py"))
    shown = filled()
    assert shown["mistral-6", "original", "accuracy"] == "20.0 [15.0, 25.0], n = 300"
    assert shown["mistral-6", "tuned", "accuracy"] == "41.0 [36.0, 46.0], n = 300"
    losses = {place[1:]: text for place, text in shown.items() if place[0] == "mistral-5"}
    assert losses == {
        ("1", "training loss"): "0.8000",
        ("1", "validation loss"): "0.6000",
        ("2", "training loss"): "0.4000",
        ("2", "validation loss"): "0.4000",
    }


def test_the_declared_run_has_the_scripts_settings_and_most_training_rows_not_the_best_score(home):
    """A.20: the front page showed a maximum over settings."""
    add(home, record(SUMMARIZATION, "--max_train_samples", "100", n=(100, 0, 300), metrics=scores(90.0)))
    add(home, record(SUMMARIZATION, "--max_train_samples", "200", n=(200, 0, 300), metrics=scores(30.0)))
    add(home, record(SUMMARIZATION, "--lora_r", "2", n=(900, 0, 300), metrics=scores(95.0)))
    add(home, record(SUMMARIZATION, "--neftune", "5", n=(900, 0, 300), metrics=scores(95.0)))
    folder = next(each for each in folders.all_folders() if each.name == "mistral")
    assert join.declared(folder, "summarization")["metrics"]["rouge1"]["value"] == 30.0
    assert join.declared(folder, "summarization", "qlora+neftune")["metrics"]["rouge1"]["value"] == 95.0
    assert join.declared(folder, "classification") is None


def test_a_record_whose_script_is_gone_is_a_row_and_fills_nothing(home):
    add(home, {**record(CLASSIFICATION), "script": "mistral/mistral_gone.py"})
    assert filled() == {}
    assert named() == ["qlora, by a script that is gone"]


def every_line():
    for folder in FOLDERS:
        with open(ROOT / folder / "published.csv", encoding="utf-8", newline="") as stream:
            yield from ((folder, line) for line in csv.DictReader(stream))


def test_every_figure_of_the_studies_is_still_there():
    """The digest is of the figures, marks and notes before the columns were renamed, with the one that was misprinted
    (mistral-5, epoch 4) as the study has it."""
    names = ("table", "column", "metric", "value", "suspect", "note", "home")
    kept = [(folder, *(line[name] for name in names)) for folder, line in every_line()]
    assert len(kept) == 519
    told = hashlib.sha256("\n".join(map(repr, kept)).encode()).hexdigest()
    assert told == "1afbe026576d00acd62b13fc3d61ed4ba0a2c251ad9740040b91c5449b5d95c7"
    (loss,) = [line for _, line in every_line() if (line["table"], line["row"], line["metric"]) == LAST_LOSS]
    assert loss["value"] == "1.8275"


LAST_LOSS = ("mistral-5", "4", "train_loss")


def test_every_published_figure_has_one_home():
    homes, cited = {}, {}
    for folder, line in every_line():
        if line["value"]:
            key = (
                *(line[n] for n in ("task", "model", "method", *join.NAMED, "epoch", "instance", "metric", "value")),
            )
            (homes if line["home"] == folder else cited).setdefault(key, set()).add(line["home"])
    assert all(len(places) == 1 for places in homes.values())
    assert all(homes[figure] == places for figure, places in cited.items())


def test_lines_name_tasks_and_settings_that_there_are():
    tasks = {line["task"] for _, line in every_line()}
    assert tasks == {*runs.SHOWN, "serving"}
    for _, line in every_line():
        assert all(isinstance(value, int | float) for value in join.named_by(line).values())
        assert bool(line["epoch"]) == (line["metric"] in ("train_loss", "validation_loss"))
    protocols = json.loads((ROOT / "common/reports/protocols.json").read_text())
    assert {line["source"] for _, line in every_line() if line["source"]} == set(protocols["documents"])


def test_the_alpaca_study_put_adapters_on_all_linear_layers():
    methods = {line["method"] for _, line in every_line() if line["task"] == "instructions"}
    assert methods == {"qlora+all-modules"}
