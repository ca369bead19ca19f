"""The IMDB study with models that write: prompts, sampled executions, the random head, fine-tuning. The encoders' half
and the rows stand in test_encoder_sentiment.py."""

import json

import pytest
from conftest import ROOT
from inprocess import done, refused, start

from common import encoding, metrics
from common.runs import folders, records

LABELS = ["negative", "positive"]
QUICK = ("--demo", "--precision", "float32", "--max_document_tokens", "48", "--max_new_tokens", "4")
SCRIPTS = {name: ROOT / name / f"{name}_sentiment.py" for name in ("gemma", "mistral", "smollm2")}


def test_an_answer_that_names_no_class_is_wrong_and_not_negative():
    answers = ["positive.", "I like it", "Negative", ""]
    found = metrics.generated(answers, ["positive", "negative", "negative", "positive"], LABELS)
    assert found["generated_accuracy"]["value"] == 50
    assert found["generated_recall"]["value"] == 50
    assert found["generated_precision"]["value"] == 100


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory):
    """A tiny Gemma with a chat template, called like the variant that it stands for."""
    import tiny

    shape = folders.load_module(ROOT / "gemma" / "model.py").VARIANTS[2].shape
    return tiny.write(tmp_path_factory.mktemp("models") / "gemma-2b-it", tiny.shrunk(shape), chat="gemma")


@pytest.fixture
def ask(chat_folder, tmp_path):
    """ask("gemma", words) -> the record of the sentiment script on the sample's reviews."""

    def asked(name, *words, output="run"):
        words = (*QUICK, "--pretrained_ckpt", chat_folder, "--output_dir", tmp_path / output, *words)
        record = done(SCRIPTS[name], *words).record
        records.validate(record)
        assert record["identity"]["task"] == "sentiment"
        assert record["identity"]["format"] == "chat"
        return record

    return asked


def answers(folder):
    """What the model wrote, row by row."""
    lines = (folder / "predictions-base-answers.jsonl").read_text().splitlines()
    found = {}
    for batch in map(json.loads, lines):
        found.update(zip(batch["rows"], (row["text"] for row in batch["found"]), strict=True))
    return [found[row] for row in sorted(found)]


def test_executions_differ_by_seed_in_what_is_written_and_not_in_label_scores(ask, tmp_path):
    words = ("--prompt_type", "zero-shot", "--temperature", "3")
    found = [ask("gemma", *words, "--seed", seed, output=seed) for seed in "12"]
    for record, seed in zip(found, (1, 2), strict=True):
        settings = record["identity"]["settings"]
        assert (settings["temperature"], settings["seed"], settings["prompt_type"]) == (3, seed, "zero-shot")
        assert record["identity"]["kind"] == "baseline"
        assert settings["lora_r"] is settings["epochs"] is record["training"] is None
    for name in ("accuracy", "precision", "recall", "accuracy_negative", "accuracy_positive"):
        assert found[0]["metrics"][name] == found[1]["metrics"][name]
    assert {f"generated_{name}" for name in ("accuracy", "precision", "recall")} < found[0]["metrics"].keys()
    assert answers(tmp_path / "1") != answers(tmp_path / "2")


def test_greedy_answers_do_not_differ_by_seed(ask, tmp_path):
    found = [ask("smollm2", "--prompt_type", "zero-shot", "--seed", seed, output=seed) for seed in "12"]
    assert found[0]["metrics"] == found[1]["metrics"]
    assert answers(tmp_path / "1") == answers(tmp_path / "2")


def test_the_random_head_is_chance_that_depends_on_the_seed(ask):
    found = [ask("gemma", "--random_head", "--seed", seed, output=seed) for seed in "1234"]
    assert {record["identity"]["settings"]["head"] for record in found} == {"random"}
    assert len({json.dumps(record["confusion"]) for record in found}) > 1
    assert not any(name.startswith("generated") for name in found[0]["metrics"])
    assert found[0]["metrics"] == ask("gemma", "--random_head", "--seed", "1", output="again")["metrics"]


@pytest.mark.parametrize(("kind", "shots"), [("zero-shot", 0), ("one-shot", 1), ("few-shot", 4)])
@pytest.mark.parametrize("name", ["gemma", "smollm2"])
def test_examples_are_of_both_classes_in_turn_and_none_of_them_is_tested(name, kind, shots, chat_folder, tmp_path):
    seen = {}

    def main(run):
        seen["run"] = run
        rows = run.data
        seen["prompter"] = encoding.prompter(
            run.tokenizer, run.template, run.format, run.settings, rows.labels, rows.train
        )

    words = (*QUICK, "--pretrained_ckpt", chat_folder, "--output_dir", tmp_path / "run")
    done(SCRIPTS[name], *words, "--prompt_type", kind, main=main)
    run, prompter = seen["run"], seen["prompter"]
    assert (run.method, run.settings.shots) == (kind, shots)
    test = run.data.test[0]
    text = run.tokenizer.decode(prompter.prompt(test["text"]))
    shown = [row for row in encoding.shots(run.data.train, run.data.labels, shots) if f": {row['target']}" in text]
    assert len(shown) == shots == text.count("### Sentiment: ")
    targets = [row["target"] for row in shown]
    assert abs(targets.count("negative") - targets.count("positive")) <= 1
    assert not {row["text"] for row in shown} & {row["text"] for row in run.data.test}


@pytest.mark.parametrize("name", SCRIPTS)
def test_fine_tuning_keeps_training_and_validation_loss_an_epoch(name, ask):
    record = ask(name, "--epochs", "2", "--lora_r", "4")
    assert [each["epoch"] for each in record["training"]["validation"]] == [1, 2]
    assert all(each["loss"] > 0 for each in record["training"]["validation"])
    assert len(record["training"]["losses"]) == record["training"]["steps"]
    assert record["metrics"].keys() == record["metrics_before"].keys()
    assert record["confusion"].keys() == {"base", "tuned"}
    for matrix in record["confusion"].values():
        assert sum(map(sum, matrix["counts"])) == record["data"]["n"]["test"]
    assert record["data"]["truncated"].keys() == {"train", "validation", "test"}
    assert record["identity"]["settings"]["keep"] == "last"


def test_the_untrained_model_is_scored_as_before_its_training(ask):
    """By the same prompt: zero-shot wording is training wording."""
    trained = ask("gemma", "--epochs", "1", "--lora_r", "4", output="trained")
    assert ask("gemma", "--prompt_type", "zero-shot", output="asked")["metrics"] == trained["metrics_before"]


@pytest.mark.parametrize(
    ("words", "mention"),
    [
        (("--random_head", "--prompt_type", "few-shot"), "--prompt_type"),
        (("--prompt_type", "few-shot", "--epochs", "3"), "--epochs"),
        (("--random_head", "--lora_r", "3"), "--lora_r"),
        (("--prompt_type", "zero-shot", "--num_beams", "2", "--temperature", "1"), "--num_beams"),
    ],
)
def test_flags_that_would_be_passed_over_are_refused(words, mention, chat_folder, tmp_path):
    run = start(SCRIPTS["gemma"], *QUICK, "--pretrained_ckpt", chat_folder, "--output_dir", tmp_path / "run", *words)
    refused(run, mention)
    assert not (tmp_path / "run").exists()


def test_the_default_is_a_training_on_the_studys_rows(monkeypatch):
    monkeypatch.delenv("DATA_DIR", raising=False)
    for name, path in SCRIPTS.items():
        run = folders.experiment(path).resolve([])
        assert (run.kind, run.method) == ("training", "qlora"), name
        limits = (run.settings.max_train_samples, run.settings.max_validation_samples, run.settings.max_test_samples)
        assert limits == (900, 100, 2500)
