"""The IMDB study: one split for all, the Trainer and the loop, prompts, sampled executions, the random head."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy
import pytest
from conftest import ROOT, record_of
from sklearn import metrics as reference

from common import data, flags, folders, metrics, records

LABELS = ["negative", "positive"]
FACTS = folders.load_module(ROOT / "distilbert" / "model.py")


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory):
    import tiny

    still = dict.fromkeys(("dropout", "attention_dropout", "seq_classif_dropout"), 0.0)
    return tiny.write_encoder(tmp_path_factory.mktemp("encoder"), FACTS.VARIANTS[0].shape | still)


def reviews(folder, n=200):
    """A folder with IMDB's files: a tenth of the texts stands twice, once in each file."""
    rows = [{"text": f"review {i} was {LABELS[i % 2]}", "label": LABELS[i % 2]} for i in range(n)]
    (folder / "imdb").mkdir()
    for name, part in (("train", rows[: n // 2]), ("test", rows[n // 2 :] + rows[: n // 10])):
        (folder / "imdb" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    return folder


def read(folder, monkeypatch, *words, limits=None):
    monkeypatch.setenv("DATA_DIR", str(folder))
    args = flags.sentiment(flags.training("")).parse_args([str(word) for word in words])
    return data.load(data.IMDB, args, labelled=True, limits=limits)


def test_reviews_are_split_70_10_20_balanced_and_no_review_stands_in_two_splits(tmp_path, monkeypatch):
    found = read(reviews(tmp_path), monkeypatch)
    splits = (found.train, found.validation, found.test)
    assert [len(rows) for rows in splits] == [140, 20, 40]
    assert found.dropped == {"duplicate": 20}
    keys = [data.key(row) for rows in splits for row in rows]
    assert len(set(keys)) == len(keys) == 200
    for rows in splits:
        assert abs(sum(row["target"] == "positive" for row in rows) - len(rows) / 2) <= 1
    assert found.summary()["n_validation"] == 20


def test_limits_hold_where_no_flag_names_a_number_and_subsets_are_nested(tmp_path, monkeypatch):
    reviews(tmp_path)
    limits = {"train": 90, "validation": 10, "test": 25}
    found = read(tmp_path, monkeypatch, limits=limits)
    assert [len(rows) for rows in (found.train, found.validation, found.test)] == [90, 10, 25]
    fewer = read(tmp_path, monkeypatch, "--max_train_samples", 30, "--max_test_samples", 8, limits=limits)
    assert (fewer.train, fewer.test) == (found.train[:30], found.test[:8])


@pytest.mark.skipif(not os.environ.get("DATA_DIR"), reason="DATA_DIR is not set")
def test_no_real_review_stands_in_two_splits():
    args = flags.sentiment(flags.training("")).parse_args([])
    found = data.load(data.IMDB, args, labelled=True)
    keys = [{data.key(row) for row in rows} for rows in (found.train, found.validation, found.test)]
    assert sum(map(len, keys)) == len(set.union(*keys)) == len(found.train + found.validation + found.test)
    assert found.labels == LABELS


def test_own_test_rows_are_never_trained_on(tmp_path, monkeypatch):
    folder = reviews(tmp_path) / "imdb"
    found = read(tmp_path, monkeypatch, "--data", folder)
    assert {data.key(row) for row in found.test} & {data.key(row) for row in found.train} == set()
    assert len(found.test) == 120


def test_two_classes_have_their_own_accuracies_and_sklearns_precision_and_recall():
    chance = numpy.random.default_rng(0)
    truth = [LABELS[i] for i in chance.integers(0, 2, 60)]
    guessed = [LABELS[i] for i in chance.integers(0, 2, 60)]
    found = metrics.classification(guessed, truth, LABELS)
    for name, function in (("precision", reference.precision_score), ("recall", reference.recall_score)):
        assert found[name]["value"] == pytest.approx(100 * function(truth, guessed, average="macro"), abs=1e-3)
    by_class = reference.recall_score(truth, guessed, average=None, labels=LABELS)
    for label, value in zip(LABELS, by_class, strict=True):
        assert found[f"accuracy_{label}"]["value"] == pytest.approx(100 * value, abs=1e-3)
    counts = metrics.confusion(guessed, truth, LABELS)["counts"]
    assert counts == reference.confusion_matrix(truth, guessed, labels=LABELS).tolist()


def test_an_answer_that_names_no_class_is_wrong_and_not_negative():
    found = metrics.generated(
        ["positive.", "I like it", "Negative", ""], ["positive", "negative", "negative", "positive"], LABELS
    )
    assert found["generated_accuracy"]["value"] == 50
    assert found["generated_recall"]["value"] == 50
    assert found["generated_precision"]["value"] == 100


def start(tiny_encoder, script, folder, *words):
    command = [sys.executable, str(ROOT / "distilbert" / f"{script}.py"), "--pretrained_ckpt", str(tiny_encoder)]
    return subprocess.Popen(
        [*command, "--demo", "--output_dir", str(folder), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def ended(child):
    out, err = child.communicate(timeout=300)
    return record_of(subprocess.CompletedProcess([], child.returncode, out, err))


@pytest.fixture(scope="module")
def looped(tiny_encoder, tmp_path_factory):
    return ended(start(tiny_encoder, "distilbert_sentiment_loop", tmp_path_factory.mktemp("loop"), "--epochs", "4"))


@pytest.fixture(scope="module")
def trained(tiny_encoder, tmp_path_factory):
    return ended(start(tiny_encoder, "distilbert_sentiment", tmp_path_factory.mktemp("trainer"), "--epochs", "4"))


def test_trainer_and_loop_see_the_same_rows_and_keep_the_curves_of_every_step(looped, trained):
    for record in (looped, trained):
        records.validate(record)
        assert record["task"] == "sentiment"
        assert len(record["training"]["validation"]) == 4
        assert record["training"]["steps"] == len(record["training"]["losses"]) == 4 * 2
        for name in ("loss", "grad_norm", "learning_rate"):
            assert len(record["training"]["curves"][name]) == 8
        rates = record["training"]["curves"]["learning_rate"]
        assert rates[-1] < max(rates) / 2
        assert sum(map(sum, record["confusion"]["tuned"]["counts"])) == record["data"]["n_test"] == 8
    assert looped["data"]["sha256"] == trained["data"]["sha256"]
    assert {looped["method"], trained["method"]} == {"full-finetune+loop", "full-finetune"}
    # The same head, batches, optimizer and schedule: without dropout the two are one training.
    assert looped["training"]["losses"] == pytest.approx(trained["training"]["losses"], abs=1e-3)
    assert looped["metrics"] == trained["metrics"]
    assert looped["training"]["tokens"] == trained["training"]["tokens"]


def test_the_epoch_is_chosen_on_the_validation_rows(tiny_encoder, tmp_path, trained):
    """What is saved is the best epoch's: a run that ends there has the same scores."""
    found = trained["training"]["validation"]
    best = max(range(4), key=lambda i: (found[i]["accuracy"], -found[i]["loss"], -i))
    assert found[best]["accuracy"] >= found[-1]["accuracy"]
    assert [each["epoch"] for each in found] == [1, 2, 3, 4]


def test_a_killed_loop_goes_on_after_its_last_epoch_and_ends_the_same(tiny_encoder, tmp_path, looped):
    child = start(tiny_encoder, "distilbert_sentiment_loop", tmp_path, "--epochs", "4")
    while not (tmp_path / "checkpoints" / "progress.json").is_file():
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    again = start(tiny_encoder, "distilbert_sentiment_loop", tmp_path, "--epochs", "4", "--resume")
    out, err = again.communicate(timeout=300)
    resumed = record_of(subprocess.CompletedProcess([], again.returncode, out, err))
    assert "resuming after epoch" in out
    assert resumed["training"]["losses"] == looped["training"]["losses"]
    assert resumed["training"]["validation"] == looped["training"]["validation"]
    assert resumed["metrics"] == looped["metrics"]


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory):
    """A tiny Gemma with a chat template, called like the variant that it stands for."""
    import tiny

    shape = folders.load_module(ROOT / "gemma" / "model.py").VARIANTS[2].shape
    return tiny.write(tmp_path_factory.mktemp("models") / "gemma-2b-it", tiny.shrunk(shape), chat="gemma")


@pytest.fixture
def ask(chat_folder, script, tmp_path):
    def asked(*words, output="run"):
        words = [*words, "--pretrained_ckpt", str(chat_folder), "--demo", "--max_document_tokens", "48"]
        return record_of(script("gemma/gemma_sentiment.py", *words, "--output_dir", str(tmp_path / output), tiny=False))

    return asked


def test_executions_differ_by_seed_and_label_scored_figures_do_not(ask):
    found = [ask("--prompt_type", "zero-shot", "--temperature", "3", "--seed", seed, output=seed) for seed in "12"]
    assert [record["setting"] for record in found] == ["temperature=3 seed=1", "temperature=3 seed=2"]
    for name in ("accuracy", "precision", "recall"):
        assert found[0]["metrics"][name] == found[1]["metrics"][name]
        assert f"generated_{name}" in found[0]["metrics"]
    assert found[0]["settings"]["decoding"]["seed"] != found[1]["settings"]["decoding"]["seed"]


def test_the_random_head_is_chance_that_depends_on_the_seed(ask):
    found = [ask("--random_head", "--seed", seed, output=seed) for seed in "1234"]
    assert {record["method"] for record in found} == {"random-head"}
    assert len({json.dumps(record["confusion"]) for record in found}) > 1
    assert found[0]["metrics"] == ask("--random_head", "--seed", "1", output="again")["metrics"]


@pytest.mark.parametrize("prompt", ["one-shot", "few-shot"])
def test_examples_are_of_both_classes(ask, prompt):
    record = ask("--prompt_type", prompt)
    assert record["method"] == prompt
    assert record["training"] is None


def test_fine_tuning_keeps_training_and_validation_loss_an_epoch(ask):
    record = ask("--epochs", "2", "--lora_r", "4")
    records.validate(record)
    assert [each["epoch"] for each in record["training"]["validation"]] == [1, 2]
    assert all(each["loss"] > 0 for each in record["training"]["validation"])
    assert record["metrics"].keys() == record["metrics_before"].keys()
    assert record["confusion"].keys() == {"base", "tuned"}
