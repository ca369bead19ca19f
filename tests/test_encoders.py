"""Encoders: the true DistilBERT class, tiny, through the scripts and the code below them."""

import itertools
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
import transformers
from conftest import ROOT, record_of

from common import encoders, experiment, extraction, flags, folders, loading, machine, metrics, records, training
from common.console import InputError
from common.data import Data

FACTS = folders.load_module(ROOT / "distilbert" / "model.py")
WORDING = folders.load_module(ROOT / "distilbert" / "prompts.py")
POSTS = [{"text": f"{word} number {i} and more words", "target": word} for i in range(8) for word in ("cup", "car")]
TALK = "Ann: keys?\nBob: on the shelf\nAnn: thanks a lot\nBob: dinner at eight?\nAnn: yes, dinner at eight"


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """A random model of the folder's class with a WordPiece tokenizer, as a local folder."""
    import tiny

    return tiny.write_encoder(tmp_path_factory.mktemp("encoder"), FACTS.VARIANTS[0].shape)


@pytest.fixture
def make(tiny_encoder, tmp_path):
    """make(task, **flags) -> a Run of the folder's training script on the tiny encoder and the sample."""

    def made(task="classification", kind="training", **given):
        parser = getattr(flags, task)(flags.training("test")) if kind == "training" else flags.untrained("test")
        words = ["--pretrained_ckpt", str(tiny_encoder), "--demo", "--output_dir", str(tmp_path / "run")]
        words += ["--task_type", task] if kind == "baseline" else []
        for name, value in given.items():
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        run = experiment.resolve(parser.parse_args(words), FACTS, WORDING, kind)
        run.settings["precision"] = machine.precision(FACTS.PRECISION)
        return run

    return made


def toy(rows=POSTS):
    return Data("toy", "toy", rows, rows[:6], sorted({row["target"] for row in rows}), {})


def talks():
    rows = [{"text": TALK.replace("keys", f"keys {i}"), "target": "They have dinner at eight."} for i in range(8)]
    return Data("toy", "toy", rows, rows[:3], [], {})


def test_the_facts_are_those_of_the_architecture():
    variant = FACTS.VARIANTS[0]
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**variant.shape))
    linear = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)]
    assert sum(p.numel() for p in model.parameters()) == variant.parameters
    assert sum(layer.weight.numel() for _, layer in linear) == variant.linear_parameters
    assert {name.rpartition(".")[2] for name, _ in linear} == set(FACTS.ALL_TARGETS)
    assert set(FACTS.ATTENTION_TARGETS) < set(FACTS.ALL_TARGETS)


@pytest.mark.parametrize("given", [{}, {"lora_r": 8}, {"lora_r": 8, "full_tune": True}], ids=str)
def test_training_lowers_the_loss_and_what_is_saved_is_what_was_trained(make, given):
    run, data = make(epochs=30, learning_rate=3e-3, batch_size=8, **given), toy()
    model = encoders.tune(run, encoders.network(run, data.labels), data)
    assert run.training["losses"][-1] < run.training["losses"][0] / 2
    scores = encoders.labels(run, model, data)
    assert scores["tuned"]["accuracy"]["value"] == 100
    ids = torch.tensor([encoders.Reader(run).text("cup of the year")])
    with torch.no_grad():
        assert torch.equal(model(ids).logits, encoders.trained(run, data)(ids).logits)
    assert run.method == {0: "full-finetune", 1: "qlora", 2: "qlora+all-modules"}[len(given)]
    assert (run.folder / "model" / "model.safetensors").is_file() == (not given)
    assert (run.folder / "adapter" / "adapter_model.safetensors").is_file() == bool(given)


@pytest.mark.parametrize(("task", "labels"), [("classification", ["a", "b"]), ("summarization", [])])
def test_with_an_adapter_every_linear_layer_but_the_head_is_nf4(make, packed, task, labels):
    whole, model = encoders.network(make(task), labels), encoders.network(make(task, lora_r=8), labels)
    layers = loading.linear4bit(model)
    assert len(layers) == 2 * len(FACTS.ALL_TARGETS)
    assert {layer.weight.quant_state.quant_type for layer in layers} == {"nf4"}
    assert all(layer.weight.quant_state.nested for layer in layers)
    assert {name for name, layer in model.named_modules() if type(layer) is torch.nn.Linear} == {
        "classifier",
        *(["pre_classifier"] if labels else []),
    }
    saved = sum(layer.in_features * layer.out_features for layer in layers)
    assert model.get_memory_footprint() == pytest.approx(whole.get_memory_footprint() - 3.5 * saved, rel=0.02)


@pytest.mark.parametrize(("task", "labels"), [("classification", ["a", "b"]), ("summarization", [])])
def test_with_lora_every_new_module_is_trained_and_every_target_gets_gradients(make, task, labels):
    run = make(task, lora_r=8, dropout=0.0)
    plain = encoders.network(run, labels)
    _, info = type(plain).from_pretrained(run.checkpoint.name, num_labels=2, output_loading_info=True)
    fresh = {name.split(".")[0] for name in info["missing_keys"]}  # what the checkpoint has no weights for
    assert set(encoders.new_modules(plain)) == fresh == ({"pre_classifier", "classifier"} if labels else {"classifier"})

    model = encoders.adapted(run, plain).train()
    ids = torch.arange(5, 25).view(2, 10)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # starts at zero, which would hide the gradient of lora_A
            torch.nn.init.normal_(parameter, std=0.02)
    wanted = torch.tensor([0, 1]) if labels else torch.randint(0, 2, ids.shape)
    model(input_ids=ids, labels=wanted).loss.backward()
    learned = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(grad is not None and grad.abs().sum() > 0 for grad in learned.values())
    for module in (*FACTS.ATTENTION_TARGETS, *fresh):
        assert any(module in name for name in learned), module
    assert sum("lora_A" in name for name in learned) == 2 * len(FACTS.ATTENTION_TARGETS)
    assert not any("embeddings" in name for name in learned)


def test_a_batch_of_one_scores_the_same_as_a_batch_of_many(make):
    data = toy([*POSTS, {"text": "a much longer post about a cup " * 9, "target": "cup"}])
    found = []
    for size in (1, 16):
        run = make(inference_batch_size=size)
        model = encoders.network(run, data.labels)
        found.append(torch.tensor(encoders.outputs(run, model, data, encoders.evaluation.Timing())))
    assert torch.allclose(found[0], found[1], atol=1e-5)


def test_a_long_text_is_cut_behind_or_in_the_middle_and_counted(make):
    run, words = make(), [f"w{i}" for i in range(100)]
    run.settings["max_document_tokens"] = 16
    whole = run.tokenizer(" ".join(words))["input_ids"]
    reader = encoders.Reader(run)
    assert reader.text(" ".join(words)) == [*whole[:15], whole[-1]]
    run.settings["cut"] = "middle"
    assert reader.text(" ".join(words)) == whole[:4] + whole[-12:]
    assert reader.text("short") == run.tokenizer("short")["input_ids"]
    assert reader.truncated == 2


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_frozen_features_are_the_encoders_own_and_padding_has_no_part_in_them(make, pooling):
    run = make()
    run.settings["pooling"] = pooling
    rows = [{"text": "cup"}, {"text": "a much longer post about the cup " * 5}]
    encoder, reader = encoders.frozen(run), encoders.Reader(run)
    found = encoders.features(run, encoder, *encoders.inputs(reader, rows, ["cup"]), encoders.evaluation.Timing())
    for row, array in zip(rows, found, strict=True):
        with torch.no_grad():
            states = encoder(**run.tokenizer(row["text"], return_tensors="pt")).last_hidden_state[0]
        expected = states[0] if pooling == "cls" else states.mean(0)
        assert torch.allclose(torch.from_numpy(array[0]), expected, atol=1e-5)


def test_the_probe_is_sklearns_logistic_regression_on_those_features(make):
    import numpy
    from sklearn.linear_model import LogisticRegression

    run, data = make(kind="baseline"), toy()
    encoder, reader, timing = encoders.frozen(run), encoders.Reader(run), encoders.evaluation.Timing()
    train, test = (
        numpy.concatenate(encoders.features(run, encoder, *encoders.inputs(reader, rows, data.labels), timing))
        for rows in (data.train, data.test)
    )
    model = LogisticRegression(max_iter=2000).fit(train, [row["target"] for row in data.train])
    assert encoders.probe(run, data, timing) == model.predict(test).tolist()


def test_the_dummy_says_the_most_frequent_class_and_the_first_utterances(make):
    from sklearn.dummy import DummyClassifier

    data = toy([*POSTS, {"text": "one more car", "target": "car"}])
    truth = [row["target"] for row in data.test]
    dummy = DummyClassifier().fit([[0]] * len(data.train), [row["target"] for row in data.train])
    expected = metrics.classification(dummy.predict([[0]] * len(data.test)).tolist(), truth, data.labels)
    assert encoders.baseline(make(kind="baseline", baseline="dummy"), data)["base"] == expected
    found = encoders.baseline(make("summarization", kind="baseline", baseline="dummy"), talks())["base"]
    lead = [" ".join(row["text"].split("\n")[:3]) for row in talks().test]
    assert found == metrics.rouge(lead, [row["target"] for row in talks().test])


def test_the_oracle_adds_the_best_utterance_as_long_as_it_helps():
    from rouge_score import rouge_scorer

    said = TALK.split("\n")
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2"], use_stemmer=True)

    def score(numbers, wanted):
        found = scorer.score(wanted, " ".join(said[i] for i in sorted(numbers)))
        return found["rouge1"].fmeasure + found["rouge2"].fmeasure

    for wanted in ("The keys are on the shelf.", "Ann and Bob have dinner at eight.", "Bob: on the shelf"):
        picked = extraction.oracle(said, wanted)
        singles = {i: score({i}, wanted) for i in range(len(said))}
        assert max(singles, key=singles.get) in picked  # the first pick is the best single one
        assert 1 <= len(picked) <= extraction.PICKS
        more = [score(picked | {i}, wanted) for i in range(len(said)) if i not in picked]
        assert len(picked) == extraction.PICKS or max(more) <= score(picked, wanted)
        assert all(score(picked - {i}, wanted) < score(picked, wanted) for i in picked)
    assert extraction.oracle(said, "zzz") == set()


def test_every_utterance_has_a_mark_and_what_does_not_fit_is_counted(make):
    run = make("summarization")
    reader, said = encoders.Reader(run), extraction.utterances(TALK)
    ids, marks = reader.dialogue(said)
    assert len(marks) == len(said) == 5
    assert {ids[mark] for mark in marks} == {run.tokenizer.cls_token_id}
    assert reader.truncated == 0
    reader.longest = marks[3]
    assert reader.dialogue(said) == (ids[: marks[3]], marks[:3])
    assert reader.truncated == 1
    (row,) = encoders.Reader(run).rows([{"text": TALK, "target": said[1]}], [])
    assert [i for i, label in enumerate(row["labels"]) if label == 1] == list(range(marks[1], marks[2]))
    assert len(row["labels"]) == len(ids)
    logits = torch.zeros(len(ids), 2)
    logits[marks[3] + 1, 1] = 9.0  # one token of one utterance
    scores = encoders.picked(logits, marks, ids)
    assert max(scores) == scores[3]
    assert scores[0] == pytest.approx(-0.6931, abs=1e-4)


def test_a_summary_is_the_best_utterances_in_the_order_in_which_they_were_said():
    said = ["a", "b", "c", "d", "e"]
    assert extraction.summary(said, [0.1, 0.9, 0.2, 0.7, 0.8]) == "b d e"
    assert extraction.summary(said[:2], [0.1, 0.9]) == "a b"
    assert extraction.utterances("Ann: keys? Bob: on the shelf: help yourself") == [
        "Ann: keys?",
        "Bob: on the",
        "shelf: help yourself",
    ]


def test_the_extractor_learns_what_the_oracle_picks(make):
    run, data = make("summarization", epochs=40, learning_rate=3e-3, batch_size=8), talks()
    model = encoders.tune(run, encoders.network(run, []), data)
    scores = encoders.outputs(run, model, data, encoders.evaluation.Timing())
    picked = extraction.oracle(TALK.split("\n"), data.train[0]["target"])
    for row in scores:
        assert set(sorted(range(5), key=row.__getitem__)[-len(picked) :]) == picked


@pytest.mark.parametrize(
    ("folder", "words", "mention"),
    [
        ("distilbert", ["--pretrained_ckpt", "smollm2"], "minilm"),
        ("mistral", ["--pretrained_ckpt", "minilm"], "smollm2"),
        ("distilbert", ["--demo", "--dropout", "0.2"], "--lora_r"),
    ],
)
def test_a_checkpoint_or_flag_of_the_other_kind_is_refused_in_one_line(script, folder, words, mention):
    done = script(f"{folder}/{folder}_classification.py", *words, "--dry_run", tiny=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert mention in done.stderr


def test_a_target_that_the_encoder_does_not_have_is_one_clear_line(make):
    run = make(lora_r=8)
    run.settings["targets"] = ["q_lin", "query"]
    with pytest.raises(InputError, match="query"):
        encoders.adapted(run, encoders.network(run, ["a", "b"]))


def start(tiny_encoder, folder, task, *words):
    command = [sys.executable, str(ROOT / f"distilbert/distilbert_{task}.py"), "--pretrained_ckpt", str(tiny_encoder)]
    return subprocess.Popen(
        [*command, "--demo", "--epochs", "6", "--output_dir", str(folder), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT / "distilbert",
    )


def ended(child):
    out, err = child.communicate(timeout=300)
    return record_of(subprocess.CompletedProcess([], child.returncode, out, err))


@pytest.mark.parametrize(("task", "words"), [("classification", ["--lora_r", "8"]), ("summarization", [])])
def test_scripts_train_score_and_answer_as_users_start_them(tiny_encoder, script, tmp_path, task, words):
    record = ended(start(tiny_encoder, tmp_path / "run", task, *words))
    records.validate(record)
    assert record["model"] == "DistilBERT"
    assert record["method"] == ("qlora" if words else "full-finetune")
    assert record["metrics"].keys() == record["metrics_before"].keys()
    assert record["data"]["truncated"].keys() == {"train", "test"}
    use = [f"distilbert/distilbert_{task}_inference.py", "--experiment_dir", str(tmp_path / "run"), "--demo"]
    again = record_of(script(*use, "--output_dir", str(tmp_path / "again"), tiny=False))
    assert again["metrics"] == record["metrics"]
    done = script(*use, "--text", TALK, tiny=False)
    assert done.returncode == 0, done.stderr
    answer = done.stdout.strip().splitlines()
    if task == "summarization":
        said = TALK.split("\n")
        assert answer[-1] in {" ".join(turns) for turns in itertools.combinations(said, extraction.PICKS)}
    else:
        assert [line.endswith("%") for line in answer[-3:]] == [True] * 3


def test_a_killed_run_resumed_equals_the_uninterrupted_one(tiny_encoder, tmp_path):
    whole = ended(start(tiny_encoder, tmp_path / "whole", "classification", "--batch_size", "4"))
    child = start(tiny_encoder, tmp_path / "cut", "classification", "--batch_size", "4")
    while len(list((tmp_path / "cut" / "checkpoints").glob(f"*/{training.COMPLETE}"))) < 2:
        assert child.poll() is None, child.communicate()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    again = start(tiny_encoder, tmp_path / "cut", "classification", "--batch_size", "4", "--resume")
    out, err = again.communicate(timeout=300)
    assert "resuming at step" in out, err
    resumed = record_of(subprocess.CompletedProcess([], again.returncode, out, err))
    for name in ("losses", "tokens", "steps"):
        assert resumed["training"][name] == whole["training"][name]
    assert resumed["metrics"] == whole["metrics"]


def test_a_baseline_writes_a_record(tiny_encoder, tmp_path):
    for task, kind in (("classification", "dummy"), ("summarization", "frozen-features")):
        words = ["--task_type", task, "--baseline", kind, "--pretrained_ckpt", str(tiny_encoder), "--demo"]
        words += ["--max_train_samples", "30"]
        command = [sys.executable, "distilbert/distilbert_baseline_inference.py", *words]
        folder = tmp_path / f"{task}-{kind}"
        done = subprocess.run(
            [*command, "--output_dir", str(folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=os.environ,
            check=False,
        )
        record = record_of(done)
        records.validate(record)
        assert record["data"]["n_train"] == 30  # the rows that a fine-tuned encoder beside it learns from
        assert (record["method"], record["training"], record["metrics_before"]) == (kind, None, None)
        assert json.loads((folder / "settings.json").read_text())["task"] == task
