"""Encoders: the true DistilBERT class, tiny, through the package and through the scripts."""

import contextlib
import dataclasses
import importlib.util
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import types

import pytest
import safetensors.torch
import torch
import transformers
from conftest import ROOT, record_of

from common import bookkeeping, checkpoints, encoders, evaluation, metrics, qlora, training
from common.console import InputError
from common.data import Data
from common.encoders import contrastive, extraction, heads, loops, probe, testing
from common.runs import checks, folders, records
from common.settings import Execution

HOMES = ("distilbert", "minilm")
FACTS = folders.load_module(ROOT / "distilbert" / "model.py")
WORDING = folders.load_module(ROOT / "distilbert" / "prompts.py")
POSTS = [{"text": f"{word} number {i} and more words", "target": word} for i in range(8) for word in ("cup", "car")]
TALK = "Ann: keys?\nBob: on the shelf\nAnn: thanks a lot\nBob: dinner at eight?\nAnn: yes, dinner at eight"
TURNS = TALK.split("\n")
PICKS = 3


def scripts(home):
    return sorted(path for path in (ROOT / home).glob(f"{home}_*.py"))


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """A random model of the folder's class with a WordPiece tokenizer, as a local folder."""
    import tiny

    return tiny.write_encoder(tmp_path_factory.mktemp("encoder"), FACTS.VARIANTS[0].shape)


@pytest.fixture
def make(tiny_encoder, tmp_path):
    """make(task, **settings) -> checkpoint, settings, execution and reader of the folder's script, on the tiny encoder.
    lora_r brings the script's ADAPTER along."""

    def made(task="classification", script=None, resume=False, size=64, **changes):
        experiment = folders.experiment(ROOT / "distilbert" / f"distilbert_{script or task}.py")
        settings = experiment.by_task[task]
        if changes.get("lora_r"):
            settings = settings.replaced(experiment.adapter)
        if changes.get("full_tune"):
            changes["targets"] = FACTS.ALL_TARGETS
        settings = settings.replaced(changes)
        checkpoint = checkpoints.find(str(tiny_encoder))
        stages = ("base",) if experiment.kind == "untrained" else ("base", "tuned")
        execution = Execution(folder=tmp_path / "run", resume=resume, inference_batch_size=size, stages=stages)
        reader = encoders.reader(qlora.tokenizer(checkpoint), getattr(WORDING, task.upper()), settings)
        return types.SimpleNamespace(checkpoint=checkpoint, settings=settings, execution=execution, reader=reader)

    return made


def data_of(train, test, labels, validation=()):
    return Data(
        name="toy", source="toy", kind="own", train=train, validation=list(validation), test=test, labels=labels,
        dropped={}, columns={"text": "text", "target": "target"},
    )  # fmt: skip


def toy(rows=POSTS):
    return data_of(rows, rows[:6], sorted({row["target"] for row in rows}))


def talks():
    rows = [{"text": TALK.replace("keys", f"keys {i}"), "target": "They have dinner at eight."} for i in range(8)]
    return data_of(rows, rows[:3], [])


def new_network(run, labels):
    return encoders.network(run.checkpoint, labels, run.settings, run.execution)


def tuned(run, data):
    return encoders.tune(new_network(run, data.labels), run.reader, data, run.settings, run.execution)


def outputs(run, model, data):
    return testing.outputs(model, run.reader, data, run.execution, evaluation.Timing())


# The folders


@pytest.mark.parametrize("home", HOMES)
def test_the_facts_are_those_of_the_architecture(home):
    facts = folders.load_module(ROOT / home / "model.py")
    variant = facts.VARIANTS[0]
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**variant.shape))
    linear = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)]
    assert sum(p.numel() for p in model.parameters()) == variant.parameters
    assert sum(layer.weight.numel() for _, layer in linear) == variant.linear_parameters
    assert {name.rpartition(".")[2] for name, _ in linear} == set(facts.ALL_TARGETS)
    assert set(facts.ATTENTION_TARGETS) < set(facts.ALL_TARGETS)
    assert model.config.max_position_embeddings == variant.context


def test_the_embedded_encoder_is_what_its_folder_says():
    facts = folders.load_module(ROOT / "minilm" / "model.py")
    (variant,), known = facts.VARIANTS, checkpoints.EMBEDDED["minilm"]
    assert (variant.revision, variant.parameters) == (known["requirement"], known["parameters"])
    config = json.loads((checkpoints.embedded_file("minilm").parent / "config.json").read_text())
    assert {name: config[name] for name in variant.shape} == variant.shape


def test_both_folders_have_the_same_scripts_that_differ_in_values_alone():
    """What a main or a loop does is the same in both folders; docstrings and values differ."""
    names = {home: {path.name.replace(home, "M") for path in scripts(home)} for home in HOMES}
    assert names["distilbert"] == names["minilm"]
    assert len(names["minilm"]) == 8
    for name in names["minilm"]:
        bodies = []
        for home in HOMES:
            text = (ROOT / home / name.replace("M", home)).read_text()
            assert len(text.splitlines()) <= (140 if "loop" in name else 80)
            bodies.append(text[text.index("\ndef ") :])
        assert bodies[0] == bodies[1], name


@pytest.mark.parametrize("home", HOMES)
def test_a_script_shows_every_hyper_parameter_that_its_training_has(home):
    tuning = ("epochs", "learning_rate", "lr_scheduler", "warmup_ratio", "optimizer", "weight_decay", "max_grad_norm")
    tuning += ("batch_size", "keep", "trainer", "pooling", "max_document_tokens")
    checked = 0
    for path in scripts(home):
        experiment = folders.experiment(path)
        if experiment.kind not in ("training", "loop"):
            continue
        text = path.read_text()
        for name in tuning:
            assert getattr(experiment.settings, name) is not None
            assert f"\n    {name}=" in text, (path.name, name)
        if experiment.kind == "training":
            assert experiment.settings.replaced(experiment.adapter | {"lora_r": 8}).max_grad_norm == 0.3
        checked += 1
    assert checked == 4


# Training


@pytest.mark.parametrize("given", [{}, {"lora_r": 8}, {"lora_r": 8, "full_tune": True}], ids=str)
def test_training_lowers_the_loss_and_what_is_saved_is_what_was_trained(make, given):
    run, data = make(epochs=30, learning_rate=3e-3, batch_size=8, micro_batch_size=8, **given), toy()
    model, report = tuned(run, data)
    assert report["training"]["losses"][-1] < report["training"]["losses"][0] / 2
    scores = encoders.labels(model, run.reader, data, run.settings, run.execution, run.checkpoint)
    assert scores["tuned"]["accuracy"]["value"] == 100
    assert scores["base"].keys() == scores["tuned"].keys()
    assert scores["confusion"].keys() == {"base", "tuned"}
    ids = torch.tensor([run.reader.text("cup of the year")[0]])
    again = encoders.network(run.checkpoint, data.labels, run.settings, run.execution, run.execution.folder)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, again(ids).logits)
    assert (run.execution.folder / "model" / "model.safetensors").is_file() == (not given)
    assert (run.execution.folder / "adapter" / "adapter_model.safetensors").is_file() == bool(given)
    assert run.reader.truncated == {"train": 0, "test": 0}


@pytest.mark.parametrize(("task", "labels"), [("classification", ["a", "b"]), ("summarization", [])])
def test_with_an_adapter_every_linear_layer_but_the_head_is_nf4(make, packed, task, labels):
    whole, model = new_network(make(task), labels), new_network(make(task, lora_r=8), labels)
    layers = qlora.linear4bit(model)
    assert len(layers) == 2 * len(FACTS.ALL_TARGETS)
    assert {layer.weight.quant_state.quant_type for layer in layers} == {"nf4"}
    assert all(layer.weight.quant_state.nested for layer in layers)
    assert {name for name, layer in model.named_modules() if type(layer) is torch.nn.Linear} == {
        "classifier",
        *(["pre_classifier"] if labels else []),
    }
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    assert model.get_memory_footprint() == pytest.approx(whole.get_memory_footprint() - 3.5 * weights, rel=0.02)


@pytest.mark.parametrize(("task", "labels"), [("classification", ["a", "b"]), ("summarization", [])])
def test_with_lora_every_new_module_is_trained_and_every_target_gets_gradients(make, task, labels):
    run = make(task, lora_r=8, dropout=0.0)
    plain = new_network(run, labels)
    _, info = type(plain).from_pretrained(run.checkpoint.name, num_labels=2, output_loading_info=True)
    fresh = {name.split(".")[0] for name in info["missing_keys"]}  # what the checkpoint has no weights for
    assert set(encoders.new_modules(plain)) == fresh == ({"pre_classifier", "classifier"} if labels else {"classifier"})

    model = encoders.with_new_adapter(plain, run.settings).train()
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


def test_the_extractor_learns_what_the_oracle_picks(make):
    run = make("summarization", epochs=40, learning_rate=3e-3, batch_size=8, micro_batch_size=8)
    data = talks()
    model, _ = tuned(run, data)
    picked = extraction.oracle(TURNS, data.train[0]["target"], PICKS)
    for row in outputs(run, model, data):
        assert set(sorted(range(5), key=row.__getitem__)[-len(picked) :]) == picked


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_weights_that_are_kept_are_of_the_epoch_that_the_setting_names(make, monkeypatch, keep):
    """Review A.8. Three epochs; the validation rows like the second one best."""
    run = make("sentiment", epochs=3, learning_rate=1e-3, batch_size=8, micro_batch_size=8, keep=keep)
    data = dataclasses.replace(toy(), validation=POSTS[:4])
    saved, epochs, losses = [], [], iter([2.0, 1.0, 3.0])
    monkeypatch.setattr(heads, "save", wrapped(heads.save, lambda *_: saved.append(len(epochs))))
    trainer = transformers.Trainer.evaluate

    def evaluate(self, *given, **named):
        epochs.append(1)
        return trainer(self, *given, **named)

    loop = transformers.Trainer.evaluation_loop

    def evaluation_loop(self, *given, **named):
        output = loop(self, *given, **named)
        output.metrics.update(eval_loss=next(losses), eval_accuracy=0.5)
        return output

    monkeypatch.setattr(transformers.Trainer, "evaluate", evaluate)
    monkeypatch.setattr(transformers.Trainer, "evaluation_loop", evaluation_loop)
    tuned(run, data)
    assert saved == {"best": [1, 2], "last": [3]}[keep]


def wrapped(function, before):
    def call(*given, **named):
        before(*given)
        return function(*given, **named)

    return call


def test_without_validation_rows_the_last_epoch_is_kept_and_said(make, capsys):
    run, data = make("sentiment", epochs=2, batch_size=8, micro_batch_size=8), toy()
    tuned(run, data)
    assert "no validation rows" in capsys.readouterr().out
    assert (run.execution.folder / "model" / "model.safetensors").is_file()


# Reading


def test_a_batch_of_one_scores_the_same_as_a_batch_of_many(make):
    data = toy([*POSTS, {"text": "a much longer post about a cup " * 9, "target": "cup"}])
    scores = []
    for size in (1, 16):
        run = make(size=size)
        scores.append(torch.tensor(outputs(run, new_network(run, data.labels), data)))
    assert torch.allclose(scores[0], scores[1], atol=1e-5)


def test_a_long_text_is_cut_behind_or_in_the_middle_and_counted(make):
    text = " ".join(f"w{i}" for i in range(100))
    for cut, expected in (("end", lambda ids: [*ids[:15], ids[-1]]), ("middle", lambda ids: ids[:4] + ids[-12:])):
        reader = make(max_document_tokens=16, cut=cut).reader
        assert reader.text(text) == (expected(reader.tokenizer(text)["input_ids"]), True)
        assert reader.text("short") == (reader.tokenizer("short")["input_ids"], False)
    rows = [{"text": each, "target": "a"} for each in (text, "short", text)]
    reader.inputs(rows, ["a"], "test")
    reader.training_rows(rows[:1], ["a"], "train")
    reader.inputs(rows, ["a"], "test")  # read again: counted once
    assert reader.truncated == {"test": 2, "train": 1}


def test_names_of_special_tokens_in_a_text_are_text(make):
    reader = make().reader
    names = " ".join(reader.tokenizer.all_special_tokens)
    assert "[SEP]" in names
    known = set(reader.tokenizer.all_special_ids) - {reader.tokenizer.unk_token_id}  # the tiny one has no bracket
    special = [token for token in reader.text(names)[0] if token in known]
    assert special == [reader.tokenizer.cls_token_id, reader.tokenizer.sep_token_id]


def test_every_utterance_has_a_span_and_what_does_not_fit_is_counted(make):
    run = make("summarization")
    reader = run.reader
    ids, spans, was_cut = reader.dialogue(extraction.utterances(TALK))
    assert (len(spans), was_cut) == (5, False)
    assert {ids[start] for start, _ in spans} == {reader.tokenizer.cls_token_id}
    assert {ids[end - 1] for _, end in spans} == {reader.tokenizer.sep_token_id}
    reader.longest = spans[3][0]
    assert reader.dialogue(TURNS) == (ids[: spans[3][0]], spans[:3], True)
    reader.longest = 3  # less than one utterance: its beginning is read
    assert reader.dialogue(TURNS) == ([*ids[:2], ids[spans[0][1] - 1]], [(0, 3)], True)
    (row,) = make("summarization").reader.training_rows([{"text": TALK, "target": TURNS[1]}], [], "train")
    assert [i for i, label in enumerate(row["labels"]) if label == 1] == list(range(*spans[1]))
    assert len(row["labels"]) == len(ids)
    logits = torch.zeros(len(ids), 2)
    logits[spans[3][0] + 1, 1] = 9.0  # one token of one utterance
    scores = testing.utterance_scores(logits, spans)
    assert max(scores) == scores[3]
    assert scores[0] == pytest.approx(-0.6931, abs=1e-4)


def test_a_summary_is_the_best_utterances_in_the_order_in_which_they_were_said():
    assert extraction.summary(list("abcde"), [0.1, 0.9, 0.2, 0.7, 0.8], 3) == "b d e"
    assert extraction.summary(list("abcde"), [0.1, 0.9, 0.2, 0.7, 0.8], 1) == "b"
    assert extraction.summary(["a", "b"], [0.1, 0.9], 3) == "a b"
    assert extraction.utterances("Ann: keys? Bob: on the shelf: help yourself") == [
        "Ann: keys?",
        "Bob: on the",
        "shelf: help yourself",
    ]


def test_the_oracle_adds_the_best_utterance_as_long_as_it_helps():
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2"], use_stemmer=True)

    def score(numbers, wanted):
        rouge = scorer.score(wanted, " ".join(TURNS[i] for i in sorted(numbers)))
        return rouge["rouge1"].fmeasure + rouge["rouge2"].fmeasure

    for wanted in ("The keys are on the shelf.", "Ann and Bob have dinner at eight.", "Bob: on the shelf"):
        picked = extraction.oracle(TURNS, wanted, PICKS)
        singles = {i: score({i}, wanted) for i in range(len(TURNS))}
        assert max(singles, key=singles.get) in picked  # the first pick is the best single one
        assert 1 <= len(picked) <= PICKS
        more = [score(picked | {i}, wanted) for i in range(len(TURNS)) if i not in picked]
        assert len(picked) == PICKS or max(more) <= score(picked, wanted)
        assert all(score(picked - {i}, wanted) < score(picked, wanted) for i in picked)
    assert extraction.oracle(TURNS, "zzz", PICKS) == set()


# Untrained


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_frozen_features_are_the_encoders_own_and_padding_has_no_part_in_them(make, pooling):
    run = make(pooling=pooling)
    rows = [{"text": "cup"}, {"text": "a much longer post about the cup " * 5}]
    encoder = probe.frozen(run.checkpoint)
    ids, spans = run.reader.inputs(rows, ["cup"], "test")
    arrays = probe.features(encoder, run.reader, ids, spans, run.settings, run.execution, evaluation.Timing())
    for row, array in zip(rows, arrays, strict=True):
        with torch.no_grad():
            states = encoder(**run.reader.tokenizer(row["text"], return_tensors="pt")).last_hidden_state[0]
        expected = states[0] if pooling == "cls" else states.mean(0)
        assert torch.allclose(torch.from_numpy(array), expected, atol=1e-5)


def test_features_of_texts_by_the_embedded_encoder_are_the_mean_of_its_states():
    import transformers

    texts = ["a cup of tea", "the car would not start this morning, and nobody knew why " * 3]
    found = probe.embedded(texts, 16)
    folder = checkpoints.prepare(checkpoints.find("minilm"))
    tokenizer, model = (each.from_pretrained(folder) for each in (transformers.AutoTokenizer, transformers.AutoModel))
    for text, vector in zip(texts, found, strict=True):
        with torch.inference_mode():
            states = model.eval()(**tokenizer(text, truncation=True, max_length=16, return_tensors="pt"))[0][0]
        assert vector == pytest.approx(states.mean(0).numpy(), abs=1e-5)


def test_the_probe_is_sklearns_logistic_regression_on_those_features(make):
    from sklearn.linear_model import LogisticRegression

    run, data, timing = make(script="baseline_inference"), toy(), evaluation.Timing()
    encoder = probe.frozen(run.checkpoint)
    train, test = (
        probe.features(
            encoder, run.reader, *run.reader.inputs(rows, data.labels, ""), run.settings, run.execution, timing
        )
        for rows in (data.train, data.test)
    )
    model = LogisticRegression(max_iter=2000).fit(train, [row["target"] for row in data.train])
    found = probe.probe(run.checkpoint, run.reader, data, run.settings, run.execution, timing)
    assert found == model.predict(test).tolist()


def test_tfidf_is_sklearns_on_whole_texts(make):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    run = make(script="baseline_inference", baseline="tfidf", max_document_tokens=8)  # the encoder would cut
    padding = "some words that say nothing at all about it and more of them "
    rows = [{**row, "text": padding + row["text"]} for row in POSTS]
    data = data_of(rows, rows[:4], ["car", "cup"])
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), LogisticRegression(C=20))
    expected = model.fit([row["text"] for row in rows], [row["target"] for row in rows])
    predicted = probe.probe(run.checkpoint, run.reader, data, run.settings, run.execution, evaluation.Timing())
    assert predicted == expected.predict([row["text"] for row in rows[:4]]).tolist()
    assert len(set(predicted)) == 2


def test_tfidf_scores_every_utterance_and_prefers_what_summaries_said(make):
    run = make("summarization", script="baseline_inference", baseline="tfidf", picks=1)
    rows = [{"text": f"Ann: {noise}\nBob: the train leaves", "target": "the train leaves"} for noise in ("hi", "well")]
    test = [{"text": "Bob: the train leaves\nAnn: hi\nCid: well", "target": "the train leaves"}]
    data = data_of(rows, test, [])
    (scores,) = probe.probe(run.checkpoint, run.reader, data, run.settings, run.execution, evaluation.Timing())
    assert len(scores) == 3
    assert scores[0] == max(scores)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_setfit_is_the_packages_own(make, monkeypatch, pooling):
    import datasets
    import sentence_transformers
    import setfit
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from sklearn.linear_model import LogisticRegression

    monkeypatch.setattr(training, "fused_layers", lambda model: contextlib.nullcontext())  # they draw other dropout
    run = make(script="baseline_inference", baseline="setfit", pooling=pooling)
    chance, words = random.Random(0), sorted({word for row in POSTS for word in row["text"].split()})
    rows = [{"text": row["text"], "target": chance.choice("ab")} for row in POSTS]
    test = [{"text": " ".join(chance.choices(words, k=chance.randint(1, 8))), "target": "a"} for _ in range(200)]
    data = data_of(rows, test, ["a", "b"])
    found = contrastive.classes(run.checkpoint, run.reader, data, run.settings, run.execution, evaluation.Timing())
    transformers.set_seed(42)
    body = sentence_transformers.SentenceTransformer(
        modules=[Transformer(run.checkpoint.name, max_seq_length=256), Pooling(64, pooling)]
    )
    model = setfit.SetFitModel(body, LogisticRegression(max_iter=2000))
    keywords = {"report_to": "none", "save_strategy": "no", "output_dir": str(run.execution.folder)}
    setfit.Trainer(
        model=model,
        args=setfit.TrainingArguments(num_epochs=1, num_iterations=5, **keywords),
        train_dataset=datasets.Dataset.from_list([{"text": row["text"], "label": row["target"]} for row in rows]),
    ).train()
    assert found == list(model.predict([row["text"] for row in test], as_numpy=True))
    assert len(set(found)) == 2


def test_setfit_reads_texts_cut_like_other_methods(make):
    run = make(script="baseline_inference", max_document_tokens=8, cut="middle")
    rows = [{"text": "cup and car and more words behind the number 7"}, {"text": "cup"}]
    texts = contrastive.decoded(run.reader, rows, ["a"], "train")
    assert [run.reader.text(text)[0] for text in texts] == [run.reader.text(row["text"])[0] for row in rows]
    assert not run.reader.text(texts[0])[1]
    assert run.reader.truncated == {"train": 1}


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install -e '.\[setfit\]'"):
        checks.check_baseline("setfit", "classification")
    checks.check_baseline("tfidf", "classification")


def test_the_seconds_of_a_stage_count_the_training_rows_too(make):
    run = make(script="baseline_inference")
    stages = encoders.baseline(run.checkpoint, run.reader, toy(), run.settings, run.execution)["inference"]["stages"]
    assert stages.keys() == {"base", "base, features of the training rows", "base, regression"}
    assert all(seconds > 0 for seconds in stages.values())


def test_the_dummy_says_the_most_frequent_class_and_the_first_utterances(make):
    from sklearn.dummy import DummyClassifier

    def scores(run, data):
        return encoders.baseline(run.checkpoint, run.reader, data, run.settings, run.execution)["base"]

    data = toy([*POSTS, {"text": "one more car", "target": "car"}])
    truth = [row["target"] for row in data.test]
    dummy = DummyClassifier().fit([[0]] * len(data.train), [row["target"] for row in data.train])
    expected = metrics.classification(dummy.predict([[0]] * len(data.test)).tolist(), truth, data.labels)
    evaluation.rows_apart(expected)
    assert scores(make(script="baseline_inference", baseline="dummy"), data) == expected
    lead = [" ".join(row["text"].split("\n")[:PICKS]) for row in talks().test]
    expected = metrics.rouge(lead, [row["target"] for row in talks().test])
    evaluation.rows_apart(expected)
    assert scores(make("summarization", script="baseline_inference", baseline="dummy"), talks()) == expected


def test_one_class_or_every_utterance_picked_is_no_reason_to_fail(make):
    run = make(script="baseline_inference")
    data = data_of([POSTS[0]], POSTS[:4], ["car", "cup"])  # --max_train_samples 1
    timing = evaluation.Timing()
    assert probe.probe(run.checkpoint, run.reader, data, run.settings, run.execution, timing) == ["cup"] * 4
    run = make("summarization", script="baseline_inference")
    rows = [{"text": "Ann: keys?", "target": "keys"}] * 3
    found = probe.probe(run.checkpoint, run.reader, data_of(rows, rows, []), run.settings, run.execution, timing)
    assert found == [[0.0]] * 3


# Bad input


@pytest.mark.parametrize(
    ("script_of", "words", "mention"),
    [
        ("distilbert/distilbert_classification", ["--pretrained_ckpt", "smollm2"], "minilm"),
        ("mistral/mistral_classification", ["--pretrained_ckpt", "minilm"], "smollm2"),
        ("distilbert/distilbert_classification", ["--demo", "--dropout", "0.2"], "--lora_r"),
        ("minilm/minilm_sentiment", ["--demo", "--full_tune"], "--lora_r"),
        ("minilm/minilm_baseline_inference", ["--task_type", "summarization", "--baseline", "setfit"], "summaries"),
    ],
)
def test_a_checkpoint_or_flag_of_the_other_kind_is_refused_in_one_line(script, script_of, words, mention):
    done = script(f"{script_of}.py", *words, "--dry_run", tiny=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert mention in done.stderr


def test_a_model_that_writes_given_as_a_folder_is_one_line(script, tiny_folder, make, tmp_path):
    done = script("minilm/minilm_classification.py", "--demo", "--pretrained_ckpt", str(tiny_folder), "--output_dir",
                  str(tmp_path / "run"), tiny=False)  # fmt: skip
    assert (done.returncode, done.stderr.count("error:"), done.stderr.count("Traceback")) == (2, 1, 0)
    assert "a model that writes (mistral)" in done.stderr
    run = make()
    run.checkpoint = checkpoints.find(str(tiny_folder))
    for labels in (["a", "b"], []):
        with pytest.raises(InputError, match="encoders"):
            new_network(run, labels)


def test_what_does_not_fit_the_encoder_is_one_clear_line(make):
    run = make(lora_r=8, targets=("q_lin", "query"))
    with pytest.raises(InputError, match="query"):
        encoders.with_new_adapter(new_network(run, ["a", "b"]), run.settings)
    with pytest.raises(InputError, match="512 tokens at most"):
        new_network(make(max_document_tokens=513), ["a", "b"])
    with pytest.raises(InputError, match="--lora_r"):
        new_network(make(full_tune=True), ["a", "b"])


def test_a_trained_run_is_used_for_its_own_classes_and_whole_or_not_at_all(make):
    run, data = make(epochs=1, batch_size=8, micro_batch_size=8), toy()
    tuned(run, data)
    folder = run.execution.folder

    def load(labels=data.labels):
        return encoders.network(run.checkpoint, labels, run.settings, run.execution, folder)

    load()
    with pytest.raises(InputError, match=re.escape("2 classes (car, cup), the data has 2 classes (a, b)")):
        load(["a", "b"])
    with pytest.raises(InputError, match="picking utterances"):
        load([])
    file = folder / "model" / "model.safetensors"
    tensors, whole = safetensors.torch.load_file(file), file.read_bytes()
    for name in ("classifier.weight", "distilbert.transformer.layer.0.ffn.lin1.weight"):
        safetensors.torch.save_file({n: t for n, t in tensors.items() if n != name}, file, {"format": "pt"})
        with pytest.raises(InputError, match=name):
            load()
    for damage in (b"", whole[:-9], whole + b"more"):
        file.write_bytes(damage)
        with pytest.raises(InputError):
            load()
    file.write_bytes(whole)
    for text in ("{}", "[1, 2]", "[", '"car"'):
        (folder / "labels.json").write_text(text)
        with pytest.raises(InputError, match=r"labels\.json"):
            load()


def test_scores_kept_of_other_utterances_are_read_again(make):
    """A file of predictions whose rows have another number of utterances does not reach the summaries."""
    run, data = make("summarization"), talks()
    network = new_network(run, [])
    scores = outputs(run, network, data)
    path = run.execution.folder / "predictions-tuned-scores.jsonl"
    line = json.loads(path.read_text().splitlines()[0])
    line["found"][0]["scores"] += [0.5, 0.5]
    path.write_text(json.dumps(line) + "\n")
    run.execution = dataclasses.replace(run.execution, resume=True)
    assert outputs(run, network, data) == [pytest.approx(row, abs=1e-5) for row in scores]


# The loop's progress


@pytest.fixture
def progress(make, tmp_path):
    """progress(resume=True) -> (Progress of a small network after some steps, its network)."""

    def made(resume=True, steps=(), seed=0):
        torch.manual_seed(seed)
        network = torch.nn.Linear(4, 3)
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
        schedule = transformers.get_scheduler("linear", optimizer, 1, 10)
        kept = loops.Progress(network, optimizer, schedule, Execution(folder=tmp_path / "run", resume=resume))
        history = []
        for step in range(1, max(steps, default=0) + 1):
            network(torch.ones(4)).sum().backward()
            optimizer.step()
            schedule.step()
            history.append({"step": step, "loss": 1.0 / step})
            if step in steps:
                kept.keep(list(history), [{"epoch": step}], 10 * step, 1.5 * step)
        return kept, network, optimizer

    return made


def test_progress_brings_weights_moments_and_history_back(progress):
    kept, network, optimizer = progress(steps=(2, 4))
    again, fresh, its = progress(seed=1)
    history, epochs, tokens, seconds = again.restore_or_reset()
    assert ([each["step"] for each in history], epochs, tokens, seconds) == ([1, 2, 3, 4], [{"epoch": 4}], 40, 6.0)
    assert torch.equal(fresh.weight, network.weight)
    for mine, theirs in zip(its.state.values(), optimizer.state.values(), strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in ("step", "exp_avg", "exp_avg_sq"))
    rates = [group["lr"] for each in (its, optimizer) for group in each.param_groups]
    assert rates[0] == rates[1] < 0.1
    assert again.schedule.state_dict() == kept.schedule.state_dict()
    assert progress(resume=False)[0].restore_or_reset() == ([], [], 0, 0.0)


def damages(folder):
    """Ways to harm a checkpoint of the loop: {name: function}."""
    state, told, seal = folder / loops.STATE, folder / loops.PROGRESS, folder / bookkeeping.SEAL

    def reseal(change):
        def harm():
            value = json.loads(seal.read_text())
            change(value)
            seal.write_text(json.dumps(value))

        return harm

    return {
        "state gone": state.unlink,
        "state cut": lambda: state.write_bytes(state.read_bytes()[:-5]),
        "a byte of state": lambda: state.write_bytes(state.read_bytes()[:-1] + b"\1"),
        "history gone": told.unlink,
        "history changed": lambda: told.write_text(told.read_text().replace("1.0", "2.0")),
        "no seal": seal.unlink,
        "seal cut": lambda: seal.write_text(seal.read_text()[:-9]),
        "seal of nothing": lambda: seal.write_text("{}"),
        "seal a list": lambda: seal.write_text("[]"),
        "a path in the seal": reseal(lambda value: value["files"].update({"../run.json": {"size": 1, "sha256": "0"}})),
        "files a list": reseal(lambda value: value.update(files=[1])),
        "a pickle instead": lambda: state.write_bytes(b"\x80\x04."),
    }


@pytest.mark.parametrize("name", damages(ROOT))
def test_progress_that_is_not_as_written_is_passed_over_for_the_one_before(progress, tmp_path, capsys, name):
    """Review B.9, for the plain loop."""
    progress(steps=(2, 4))
    folder = tmp_path / "run" / "checkpoints"
    damages(folder / "checkpoint-4")[name]()
    history, *_ = progress()[0].restore_or_reset()
    assert len(history) == 2
    printed = capsys.readouterr()
    assert "checkpoint-4" in printed.err + printed.out
    damages(folder / "checkpoint-2")[name]()
    assert progress()[0].restore_or_reset() == ([], [], 0, 0.0)


def test_progress_removes_only_what_it_wrote(progress, tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    (folder / "mine").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis.txt").write_text("years")
    (folder / "checkpoint-1").symlink_to(tmp_path / "elsewhere")
    progress(steps=(2, 4, 6))
    left = {path.name for path in folder.iterdir()}
    assert left >= {"mine", "checkpoint-1", "checkpoint-4", "checkpoint-6"}
    assert (tmp_path / "elsewhere" / "thesis.txt").read_text() == "years"


# Scripts, as users start them


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
    return record_of(subprocess.CompletedProcess([], child.returncode, out, err), ROOT / "distilbert")


@pytest.mark.parametrize(
    ("task", "words"),
    [("classification", ["--lora_r", "8"]), pytest.param("summarization", [], marks=pytest.mark.slow)],
)
def test_scripts_train_score_and_answer_as_users_start_them(tiny_encoder, script, tmp_path, task, words):
    record = ended(start(tiny_encoder, tmp_path / "run", task, *words))
    records.validate(record)
    assert record["model"] == "DistilBERT"
    assert record["script"] == f"distilbert/distilbert_{task}.py"
    assert record["metrics"].keys() == record["metrics_before"].keys()
    assert record["data"]["truncated"].keys() == {"train", "test"}
    assert not [stage for stage in record["inference"]["stages"] if "calibration" in stage]
    assert record["identity"]["settings"]["quantization"] == ("nf4, double" if words else None)
    use = [f"distilbert/distilbert_{task}_inference.py", "--experiment_dir", str(tmp_path / "run"), "--demo"]
    again = record_of(script(*use, "--output_dir", str(tmp_path / "again"), tiny=False))
    assert again["metrics"] == record["metrics"]
    done = script(*use, "--text", TALK, tiny=False)
    assert done.returncode == 0, done.stderr
    answer = done.stdout.strip().splitlines()
    if task == "summarization":
        assert answer[-1] in {" ".join(turns) for turns in itertools.combinations(TURNS, PICKS)}
    else:
        assert [line.endswith("%") for line in answer[-3:]] == [True] * 3
    (tmp_path / "in.csv").write_text(f'id,text\n7,"{TALK}"\n', encoding="utf-8")
    done = script(use[0], *use[1:3], "--input", str(tmp_path / "in.csv"), "--text_column", "text", "--output",
                  str(tmp_path / "out.jsonl"), tiny=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    assert (row["id"], row["text"]) == ("7", TALK)
    if task == "summarization":
        assert row["answer"] == answer[-1]
    else:
        assert answer[-3].startswith(row["predicted"] + "  ")


def test_a_killed_run_resumed_equals_the_uninterrupted_one(tiny_encoder, tmp_path):
    whole = ended(start(tiny_encoder, tmp_path / "whole", "classification", "--batch_size", "4"))
    child = start(tiny_encoder, tmp_path / "cut", "classification", "--batch_size", "4")
    while len(list((tmp_path / "cut" / "checkpoints").glob(f"*/{bookkeeping.SEAL}"))) < 2:
        assert child.poll() is None, child.communicate()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    again = start(tiny_encoder, tmp_path / "cut", "classification", "--batch_size", "4", "--resume")
    out, err = again.communicate(timeout=300)
    assert "resuming at step" in out, err
    resumed = record_of(subprocess.CompletedProcess([], again.returncode, out, err), ROOT / "distilbert")
    for name in ("losses", "tokens", "steps"):
        assert resumed["training"][name] == whole["training"][name]
    assert resumed["metrics"] == whole["metrics"]


@pytest.mark.parametrize(
    ("task", "kind"), [("classification", "dummy"), ("classification", "setfit"), ("summarization", "frozen-features")]
)
def test_a_baseline_writes_a_record(tiny_encoder, tmp_path, task, kind):
    words = ["--task_type", task, "--baseline", kind, "--pretrained_ckpt", str(tiny_encoder), "--demo"]
    words += ["--max_train_samples", "30", "--output_dir", str(tmp_path / "run")]
    command = [sys.executable, "distilbert/distilbert_baseline_inference.py", *words]
    record = record_of(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ, check=False))
    records.validate(record)
    assert record["data"]["n"]["train"] == 30  # the rows that a fine-tuned encoder beside it learns from
    settings = record["identity"]["settings"]
    assert (settings["baseline"], record["training"], record["metrics_before"]) == (kind, None, None)
    assert records.run_of(tmp_path / "run")["identity"]["task"] == task


@pytest.mark.parametrize("name", [path.name for path in scripts("minilm")])
def test_the_scripts_of_minilm_plan_their_demo_with_its_own_settings(script, name):
    if "_inference" in name and "baseline" not in name:
        pytest.skip("needs a trained run: tested with DistilBERT's")
    done = script(f"minilm/{name}", "--demo", "--dry_run", "plan", tiny=False)
    assert done.returncode == 0, done.stderr
    assert "minilm (embedded)" in done.stdout
    assert re.search(r"pooling +mean", done.stdout)
    if "trainer" in done.stdout:
        assert re.search(r" batch_size +4\n", done.stdout)
    borrowed = script(f"distilbert/{name.replace('minilm', 'distilbert')}", "--demo", "--dry_run", "plan", tiny=False)
    mine, theirs = (
        [line for line in each.stdout.splitlines() if not re.match(r" *(files|record) ", line)]
        for each in (done, borrowed)
    )
    assert mine == theirs  # the checkpoint brings its own settings along


@pytest.mark.parametrize("home", HOMES)
def test_shell_scripts_pass_their_grid_to_the_sweep(home):
    files = [file for file in sorted((ROOT / home).glob("*.sh")) if file.name != "evidence.sh"]  # several sweeps
    assert [file.name for file in files] == ["baseline_inference.sh", "run_lora.sh", "sample_ablate.sh"]
    for file in files:
        named = re.findall(rf"{home}_\w+\.py", file.read_text())
        assert len(named) == 1
        assert (ROOT / home / named[0]).is_file()
        assert '-m common sweep "$here/' in file.read_text()
        assert os.access(file, os.X_OK)
