"""Label scores: every label's score equals a plain full-sequence computation, alone as in a batch."""

import json
from pathlib import Path

import pytest
import torch

from common import architecture, batched_forward, machine, scoring
from common.console import InputError
from common.encoding import Encoder, Template

SAMPLE = Path(scoring.__file__).parent / "sample" / "posts.jsonl"
ROWS = [json.loads(line) for line in SAMPLE.read_text().splitlines()]
LABELS = sorted({row["label"] for row in ROWS})
TEXTS = [row["text"] for row in ROWS[:4]] + ["short"]


def configs():
    import tiny
    import transformers

    small = {"vocab_size": 1024, "bos_token_id": 1, "eos_token_id": 2}
    return {
        "mistral": tiny.config(),
        "mistral, window shorter than the prompt": tiny.config(sliding_window=24),
        "llama": transformers.LlamaConfig(**{**tiny.SIZES, **small}),
        "mpt": transformers.MptConfig(d_model=64, n_heads=4, n_layers=2, **small),
        "falcon": transformers.FalconConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, **small),
        "phi": transformers.PhiConfig(**{**tiny.SIZES, **small, "num_key_value_heads": 4}),
        "gemma": transformers.GemmaConfig(**{**tiny.SIZES, **small, "head_dim": 16}),
    }


@pytest.fixture(scope="module", params=list(configs()))
def model(request, tmp_path_factory):
    import tiny

    from common import checkpoints, qlora

    folder = tiny.write(tmp_path_factory.mktemp("model"), configs()[request.param])
    return qlora.base(checkpoints.find(str(folder)), tiny.execution(folder))


@pytest.fixture
def encoder(tokenizer):
    template = Template("Class of the post:\n{labels}\n\n### Post:\n{document}", cue="\n\n### Class:")
    return Encoder(tokenizer, template, "plain", 48, 2048, LABELS)


def scored(model, encoder, prompts, labels, batch_size):
    found = {}
    scoring.score_labels(
        model,
        encoder,
        prompts,
        labels,
        batch_size,
        lambda rows, scores, _: found.update(zip(rows, scores, strict=True)),
    )
    return torch.tensor([found[i] for i in range(len(prompts))])


def plainly(model, prompt, answer):
    """log p(answer | prompt) from one unpadded, uncached pass over the whole sequence."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer]), use_cache=False).logits[0].float().log_softmax(-1)
    return sum(float(logits[len(prompt) + i - 1, token]) for i, token in enumerate(answer))


def test_every_label_of_every_row_scores_as_a_plain_full_sequence(model, encoder):
    prompts = [encoder.prompt(text) for text in TEXTS]
    assert len({len(prompt) for prompt in prompts}) > 1  # so that there is padding
    expected = torch.tensor([[plainly(model, p, encoder.answer(label)) for label in LABELS] for p in prompts])
    assert torch.allclose(scored(model, encoder, prompts, LABELS, batch_size=3), expected, atol=1e-3)
    assert expected.std() > 0.1


def test_a_row_alone_scores_as_in_a_batch(model, encoder):
    prompts = [encoder.prompt(text) for text in TEXTS]
    together, alone = (scored(model, encoder, prompts, LABELS, size) for size in (5, 1))
    assert torch.allclose(together, alone, atol=1e-3)


def test_labels_of_one_token_need_no_second_pass(model, encoder):
    labels = [" yes", " no"]
    encoder._answers = {label: encoder.tokenizer(label, add_special_tokens=False)["input_ids"][:1] for label in labels}
    prompt = encoder.prompt("a")
    expected = [plainly(model, prompt, encoder.answer(label)) for label in labels]
    assert scored(model, encoder, [prompt], labels, 1)[0].tolist() == pytest.approx(expected, abs=1e-3)


def test_rows_at_once_leave_room_for_a_copy_of_keys_and_values_a_label(model, encoder, monkeypatch):
    prompts, answers, sizes = [encoder.prompt("a")] * 8, list(map(encoder.answer, LABELS)), []
    places = len(scoring.tree(answers)[0]) + 1
    row = batched_forward.row_bytes(model, len(prompts[0]) + places, places)
    monkeypatch.setattr(machine, "free", lambda: 8.5 * row / batched_forward.MEMORY_SHARE)
    scoring.score_labels(model, encoder, prompts, LABELS, 8, lambda rows, *_: sizes.append(len(rows)))
    trees = architecture.takes_trees(model, len(prompts[0]) + max(map(len, answers)))
    assert sizes == ([8] if trees else [1] * 8)  # 20 labels, a quarter of the rows at a time: five copies a row


def test_where_a_label_begins_another_the_end_of_sequence_is_scored_with_every_label(model, encoder):
    labels = ["rec.autos", "rec.autos.used", "sci.med"]
    first, second = encoder.answer(labels[0]), encoder.answer(labels[1])
    assert second[: len(first)] == first
    prompts = [encoder.prompt(text) for text in TEXTS]
    expected = torch.tensor([[plainly(model, p, encoder.completion(label)) for label in labels] for p in prompts])
    assert torch.allclose(scored(model, encoder, prompts, labels, batch_size=3), expected, atol=1e-3)


def test_labels_of_the_same_tokens_are_refused(encoder):
    encoder._answers = {"one": [5, 6], "two": [5, 6]}
    with pytest.raises(InputError, match="same tokens"):
        scoring.label_ids(encoder, ["one", "two"])


def test_labels_of_hundreds_of_tokens_are_told_to_take_long(model, encoder, capsys):
    labels = ["engine " * 500, "doctor"]
    scored(model, encoder, [encoder.prompt("a")], labels, 1)
    assert "scoring takes long" in capsys.readouterr().err
    scored(model, encoder, [encoder.prompt("a")], LABELS, 1)
    assert "takes long" not in capsys.readouterr().err
