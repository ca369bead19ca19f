"""Every model folder on a tiny model of its true architecture: its facts, what is quantised and adapted, that training
is learned, kept and ended, that rows do not see each other, and what MPT's published 0.0 % came of."""

import inspect
import json
from dataclasses import dataclass, replace
from pathlib import Path

import bitsandbytes
import pytest
import tiny
import torch
import transformers
import trl
from conftest import ROOT

from common import batched_forward, checkpoints, encoding, evaluation, generation, qlora, scoring, training
from common.runs import folders

# Name of a case: model folder, number of its variant, chat template of the tiny tokenizer (tiny.CHATS).
CASES = {
    "mistral": ("mistral", 0, None),
    "zephyr": ("zephyr", 0, "zephyr"),
    "mpt": ("mpt", 0, None),
    "llama2": ("llama2", 0, None),
    "falcon": ("falcon", 0, None),
    "phi2": ("phi2", 0, None),
    "gemma": ("gemma", 0, None),
    "gemma-it": ("gemma", 2, "gemma"),
}
FOLDERS = sorted({folder for folder, _, _ in CASES.values()})
POSTS = [json.loads(line) for line in (tiny.SAMPLE / "posts.jsonl").read_text().splitlines()]
DIALOGUES = [{"text": f"Ann: Sunday at {i}? Bob: fine", "target": "They meet on Sunday."} for i in range(12)]
SUMMARIES = tiny.data(DIALOGUES, DIALOGUES[:4])
TOY = {"learning_rate": 0.01, "epochs": 8, "max_new_tokens": 24, "lr_scheduler": "cosine", "warmup_ratio": 0.03}


@dataclass
class Case:
    """A model folder and a tiny checkpoint of one of its variants."""

    facts: object
    wording: object
    variant: object
    chat: str | None
    folder: Path  # the checkpoint's

    def settings(self, **changes):
        """Of a toy training on this folder's targets."""
        return tiny.settings(targets=self.facts.ALL_TARGETS).replaced(TOY | changes)

    def prompter(self, task="summarization", labels=(), **changes):
        template, settings = getattr(self.wording, task.upper()), self.settings(**changes)
        tokenizer = qlora.tokenizer(checkpoints.find(str(self.folder)))
        return encoding.prompter(tokenizer, template, self.variant.format, settings, list(labels))

    def load(self, precision="float32"):
        return qlora.base(checkpoints.find(str(self.folder)), tiny.execution(self.folder, precision=precision))

    def plain(self):
        return transformers.AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()


@dataclass
class Toy:
    """A toy training, and all batches that its trainer was fed."""

    model: object
    report: dict
    encoder: object
    settings: object
    execution: object
    trainer: object
    batches: list


def write_case(name, folder):
    home, number, chat = CASES[name]
    facts = folders.load_module(ROOT / home / "model.py")
    variant = facts.VARIANTS[number]
    tiny.write(folder, tiny.shrunk(variant.shape), chat=chat)
    return Case(facts, folders.load_module(ROOT / home / "prompts.py"), variant, chat, folder)


@pytest.fixture(scope="module", params=list(CASES))
def case(request, tmp_path_factory):
    return write_case(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(case):
    """The 4-bit model, in float32, shared by the tests that leave it as it is."""
    return case.load()


@pytest.fixture(scope="module")
def tuned(case, tmp_path_factory):
    """One toy training."""
    seen = []

    class Watched(trl.SFTTrainer):
        def training_step(self, model, inputs, *rest):
            seen.append((self, dict(inputs)))
            return super().training_step(model, inputs, *rest)

    execution = tiny.execution(tmp_path_factory.mktemp("run"))
    encoder, settings = case.prompter(), case.settings()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trl, "SFTTrainer", Watched)
        model, report = training.tune(case.load(), encoder, SUMMARIES, settings, execution)
    return Toy(model, report, encoder, settings, execution, seen[0][0], [batch for _, batch in seen])


def linear_layers(model):
    """{name: layer} of the linear layers but the output head."""
    head = model.get_output_embeddings()
    return {
        name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear) and layer is not head
    }


def unpadded(batch):
    """(ids, labels) of every row of a batch, without padding."""
    rows = zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True)
    return [(ids[mask == 1].tolist(), labels[mask == 1].tolist()) for ids, labels, mask in rows]


def test_every_folder_of_a_model_that_writes_has_a_case():
    facts = {path.parent.name: folders.load_module(path) for path in ROOT.glob("*/model.py")}
    assert len(facts) >= 10
    # smollm2's own weights are here: it is tested with them
    writing = {name for name, each in facts.items() if each.VARIANTS[0].format != "encoder"}
    assert set(FOLDERS) == writing - {"smollm2"}


def test_an_answer_of_every_classification_may_take_as_many_tokens_as_the_longest_class_name(tokenizer):
    scripts = [*ROOT.glob("*/*_classification.py"), *ROOT.glob("*/*_baseline_inference.py")]
    made = [folders.experiment(script) for script in sorted(scripts)]
    budgets = [each.by_task["classification"].max_new_tokens for each in made if each.first.format != "encoder"]
    labels = {post["label"] for post in POSTS}
    template = encoding.Template("{document}", cue="\n### Class:")
    encoder = encoding.prompter(tokenizer, template, "plain", tiny.settings(), sorted(labels))
    assert len(budgets) >= 16
    assert min(budgets) >= max(len(encoder.completion(label)) for label in labels)


@pytest.mark.parametrize("folder", FOLDERS)
def test_facts_are_those_of_the_architecture_at_full_size(folder):
    facts = folders.load_module(ROOT / folder / "model.py")
    for variant in facts.VARIANTS:
        with torch.device("meta"):
            full = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**variant.shape))
        full.tie_weights()
        linear = linear_layers(full)
        assert sum(p.numel() for p in full.parameters()) == variant.parameters
        assert sum(layer.weight.numel() for layer in linear.values()) == variant.linear_parameters
        assert {name.rpartition(".")[2] for name in linear} == set(facts.ALL_TARGETS)
        assert set(facts.ATTENTION_TARGETS) == {name.rpartition(".")[2] for name in linear if "att" in name.lower()}


def test_every_linear_layer_but_the_head_is_nf4_with_double_quantization(case, packed):
    plain, model = case.plain(), case.load()
    linear = linear_layers(plain)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, bitsandbytes.nn.Linear4bit)}
    assert set(layers) == set(linear) == set(linear_layers(model))
    assert not isinstance(model.get_output_embeddings(), bitsandbytes.nn.Linear4bit)
    states = [layer.weight.quant_state for layer in layers.values()]
    assert {(state.quant_type, state.nested) for state in states} == {("nf4", True)}
    weights = sum(layer.weight.numel() for layer in linear.values())
    rest = plain.get_memory_footprint() - 4 * weights
    assert model.get_memory_footprint() == pytest.approx(weights / 2 + rest, rel=0.05)
    assert model.get_memory_footprint() < 0.75 * plain.get_memory_footprint()


@pytest.mark.parametrize("which", ["ATTENTION_TARGETS", "ALL_TARGETS"])
def test_every_layer_is_adapted_on_every_named_target_and_learns(case, which):
    targets = getattr(case.facts, which)
    torch.manual_seed(1)
    adapted = qlora.new_adapter(case.load(), tiny.settings(lora_r=4, targets=targets)).train()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # starts at zero, which would hide the gradient of lora_A
            torch.nn.init.normal_(parameter, std=0.02)
    ids = torch.arange(5, 69).view(2, 32)
    adapted(input_ids=ids, labels=ids).loss.backward()
    grads = {name: p.grad for name, p in adapted.named_parameters() if "lora_" in name}
    layers = adapted.config.num_hidden_layers
    for target in targets:
        for matrix in ("lora_A", "lora_B"):
            found = [grad for name, grad in grads.items() if f".{target}.{matrix}." in name]
            assert len(found) == layers
            assert all(grad is not None and grad.abs().max() > 0 for grad in found)
    assert len(grads) == 2 * layers * len(targets)


def test_a_toy_tuned_model_says_what_it_learned_and_stops_before_the_budget(tuned):
    scores = evaluation.summaries(tuned.model, tuned.encoder, SUMMARIES, tuned.settings, tuned.execution)
    losses = tuned.report["training"]["losses"]
    assert losses[-1] < losses[0] - 1
    assert scores["tuned"]["rouge1"]["value"] == scores["tuned"]["stopped"]["value"] == 100
    assert scores["base"]["rouge1"]["value"] < 50
    assert scores["base"]["stopped"]["value"] < 100


def test_what_was_saved_and_reloaded_is_what_was_trained(case, tuned):
    base = case.load()
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        untuned = base(ids).logits
        with tuned.model.disable_adapter():
            assert torch.equal(tuned.model(ids).logits, untuned)
        fresh = qlora.with_adapter(base, tuned.execution.folder / "adapter")
        assert torch.equal(tuned.model(ids).logits, fresh(ids).logits)
        assert not torch.equal(tuned.model(ids).logits, untuned)


def test_the_last_token_learned_is_the_one_that_stops_and_prompts_are_those_of_use(case, tuned, tmp_path, monkeypatch):
    used, pad_left = [], batched_forward.pad_left
    monkeypatch.setattr(batched_forward, "pad_left", lambda rows, *rest: used.extend(rows) or pad_left(rows, *rest))
    stops, configuration = [], generation.configuration
    monkeypatch.setattr(
        generation,
        "configuration",
        lambda how, budget, stop, pad: stops.append(stop) or configuration(how, budget, stop, pad),
    )
    encoder, trained = case.prompter(), set()
    execution = tiny.execution(tmp_path, stages=("tuned",))
    evaluation.summaries(tuned.model, encoder, replace(SUMMARIES, test=SUMMARIES.train), tuned.settings, execution)
    for batch in tuned.batches:
        for ids, labels in unpadded(batch):
            assert ids[-1] == labels[-1] == encoder.end
            trained.add(tuple(token for token, label in zip(ids, labels, strict=True) if label == -100))
    assert trained == {tuple(prompt) for prompt in used}
    assert len(used) == len(trained) == len(SUMMARIES.train)
    assert stops == [encoder.stop]
    assert set(encoder.stop) == {encoder.end, encoder.tokenizer.eos_token_id}
    of_its_own = (tiny.TURNS.get(case.chat) or ["</s>"])[-1]  # <end_of_turn>, which is not the end of sequence
    assert encoder.end == encoder.tokenizer.convert_tokens_to_ids(of_its_own)


def test_a_row_alone_scores_and_writes_what_it_does_in_a_batch(case, model):
    labels = sorted({post["label"] for post in POSTS})
    encoder = case.prompter("classification", labels, max_document_tokens=48)
    prompts = [encoder.prompt(text) for text in [*(post["text"] for post in POSTS[:3]), "short", "x"]]
    assert len({len(prompt) for prompt in prompts}) > 2  # so that there is padding

    def found(size):
        scores, answers = [None] * len(prompts), [None] * len(prompts)

        def into(place):
            return lambda rows, values, _: [place.__setitem__(*pair) for pair in zip(rows, values, strict=True)]

        scoring.score_labels(model, encoder, prompts, labels, size, into(scores))
        generation.generate(model, encoder, prompts, 12, size, into(answers))
        return torch.tensor(scores), [answer["text"] for answer in answers]

    (alone, wrote_alone), (together, wrote_together) = found(1), found(len(prompts))
    assert torch.allclose(alone, together, rtol=0, atol=1e-4)
    assert alone.std() > 0.1
    assert wrote_alone == wrote_together
    assert len(set(wrote_alone)) > 1


def test_rows_that_end_early_leave_the_batch_and_all_answers_are_transformers_own(case, model, monkeypatch):
    rows = [list(range(5, 5 + n)) for n in (30, 22, 9, 17, 25)]
    ids, mask = batched_forward.pad_left(rows, 0, "cpu")
    free = generation.greedy(model, ids, mask, greedily([]))
    assert (free == plainly_written(model, ids, mask, greedily([]))).all()
    stop = sorted({int(free[0, 1]), int(free[2, 4])})  # rows 0 and 2 end there at the latest
    sizes, forward = [], type(model).forward

    def counted(self, input_ids=None, **keywords):
        sizes.append(len(input_ids))
        return forward(self, input_ids=input_ids, **keywords)

    counted.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(type(model), "forward", counted)
    found = generation.greedy(model, ids, mask, greedily(stop))
    monkeypatch.undo()
    assert (found == plainly_written(model, ids, mask, greedily(stop))).all()
    assert sizes[0] == 5
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 5


def greedily(stop):
    return generation.configuration(generation.GREEDY, 8, stop or None, 0)


def plainly_written(model, ids, mask, config):
    """What transformers' generate writes greedily behind `ids`."""
    new = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)[:, ids.shape[1] :]
    return torch.nn.functional.pad(new, (0, 8 - new.shape[1]))


def test_packed_documents_see_each_other_in_mpt_and_falcon_alone(case, model):
    first, second = torch.arange(10, 30), torch.arange(50, 66)
    with torch.no_grad():
        alone = model(input_ids=second[None], use_cache=False).logits[0]
        packed = model(
            input_ids=torch.cat([first, second])[None],
            position_ids=torch.cat([torch.arange(len(first)), torch.arange(len(second))])[None],
            use_cache=False,
        ).logits[0, len(first) :]
    moved = float((packed - alone).abs().max())
    assert moved > 1e-2 if case.variant.shape["model_type"] in ("mpt", "falcon") else moved < 1e-4


def test_training_never_packs(tuned):
    assert not (tuned.trainer.args.packing or tuned.trainer.args.padding_free or tuned.trainer.padding_free)
    rows = encoding.training_rows(tuned.encoder, SUMMARIES.train)
    fed = [ids for batch in tuned.batches for ids, _ in unpadded(batch)]
    assert sorted(fed) == sorted(row["input_ids"] for row in rows for _ in range(tuned.settings.epochs))
    assert not any("position_ids" in batch for batch in tuned.batches)


def test_mpt_without_its_end_of_sequence_scores_zero_by_exact_match_and_no_other_way(tmp_path):
    cues = {"rec.autos": "engine", "sci.med": "doctor", "sci.space": "orbit", "talk.religion.misc": "prayer"}
    rows = [{"text": f"{cue} {cue} {i}", "target": label} for i in range(4) for label, cue in cues.items()]
    data = tiny.data(rows, rows, labels=sorted(cues))
    case = write_case("mpt", tmp_path / "mpt")
    encoder, settings = case.prompter("classification", data.labels), case.settings(epochs=16)
    execution = tiny.execution(tmp_path / "run")
    model, _ = training.tune(case.load(), encoder, data, settings, execution)
    scores = evaluation.labels(model, encoder, data, settings, execution)["tuned"]
    assert encoder.tokenizer.eos_token_id in encoder.stop
    assert scores["accuracy"]["value"] > 50
    assert scores["generated_right"]["value"] > 50

    lost = qlora.with_adapter(case.load(), execution.folder / "adapter")  # as the source used it
    assert transformers.MptConfig().eos_token_id is None  # why nothing told generation where to end
    assert lost.config.eos_token_id is lost.generation_config.eos_token_id is None
    exact = begun = 0
    for row in rows:
        ids, answer = torch.tensor([encoder.prompt(row["text"])]), encoder.completion(row["target"])
        out = lost.generate(input_ids=ids, do_sample=False, max_new_tokens=20, eos_token_id=None)[0, ids.shape[1] :]
        assert len(out) == 20
        exact += encoder.tokenizer.decode(out, skip_special_tokens=True).strip() == row["target"]
        begun += out[: len(answer)].tolist() == answer
    assert exact == 0
    assert begun > len(rows) / 2  # the right answers were there, and went on


def test_what_a_row_takes_is_no_less_than_its_keys_and_values(case, model):
    with torch.no_grad():
        cache = model(input_ids=torch.ones((1, 24), dtype=torch.long), use_cache=True).past_key_values
    held = sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))
    assert held <= batched_forward.row_bytes(model, 24, 1) < 1e3 * held
