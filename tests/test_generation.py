"""Writing answers: alone as in a batch, cut by tokens, greedy whatever the checkpoint's own settings say."""

import pytest
import torch

from common import batched_forward, generation
from common.console import Failed
from common.encoding import Encoder, Template

TEMPLATE = Template("Summarize.\n\n### Dialogue:\n{document}", cue="\n\n### Summary:")
TEXTS = [
    "Ann: hi",
    "Bob: are you coming to the match on Sunday? " * 4,
    "x",
    "Ann: keys?\nBob: on the shelf",
    "no " * 30,
]


@pytest.fixture(scope="module")
def model(tiny_folder):
    import tiny

    from common import checkpoints, qlora

    return qlora.base(checkpoints.find(str(tiny_folder)), tiny.execution(tiny_folder))


@pytest.fixture
def encoder(tokenizer):
    return Encoder(tokenizer, TEMPLATE, "plain", 64, 2048)


def write(model, encoder, prompts, batch_size, budget=12, **keywords):
    found = {}

    def keep(rows, answers, seconds):
        assert seconds > 0
        found.update(zip(rows, answers, strict=True))

    generation.generate(model, encoder, prompts, budget, batch_size, keep, **keywords)
    return found


def test_a_row_alone_gives_what_it_gives_in_a_batch(model, encoder):
    prompts = [encoder.prompt(text) for text in TEXTS]
    together = write(model, encoder, prompts, batch_size=5)
    assert together == write(model, encoder, prompts, batch_size=1)
    assert len({answer["text"] for answer in together.values()}) > 1


def test_answers_equal_a_plain_argmax_loop_without_cache_or_padding(model, encoder):
    prompt = encoder.prompt(TEXTS[3])
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(12):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            if ids[-1] in encoder.stop:
                break
    expected = generation.cut(ids[len(prompt) :], encoder)
    assert write(model, encoder, [prompt], 1)[0] == expected


def test_answers_are_cut_by_tokens_at_the_first_end_of_sequence(encoder):
    end = encoder.tokenizer.eos_token_id
    word = encoder.tokenizer(" yes", add_special_tokens=False)["input_ids"]
    assert generation.cut([*word, end, *word, end], encoder) == {
        "text": "yes",
        "tokens": len(word) + 1,
        "stopped": True,
    }
    assert generation.cut([*word, *word], encoder) == {"text": "yes yes", "tokens": 2 * len(word), "stopped": False}
    assert generation.cut([end], encoder) == {"text": "", "tokens": 1, "stopped": True}


def test_a_checkpoint_that_samples_by_default_is_decoded_greedily(model, encoder):
    import transformers

    prompts = [encoder.prompt(text) for text in TEXTS]
    greedy = write(model, encoder, prompts, 5)
    model.generation_config = transformers.GenerationConfig(do_sample=True, temperature=5.0, num_beams=2, max_length=3)
    torch.manual_seed(0)
    assert write(model, encoder, prompts, 5) == greedy
    assert all(answer["tokens"] <= 12 for answer in greedy.values())


def test_finished_batches_are_skipped_and_the_others_keep_their_rows(model, encoder):
    prompts = [encoder.prompt(text) for text in TEXTS]
    first = batched_forward.batches([len(p) for p in prompts], 2)[0]
    found = write(model, encoder, prompts, 2, done=frozenset(first))
    assert sorted(found) == sorted(set(range(len(TEXTS))) - set(first))


def test_batches_hold_every_row_once_longest_first():
    made = batched_forward.batches([3, 9, 1, 9, 4], 2)
    assert made == [[1, 3], [4, 0], [2]]


def test_padding_is_on_the_left():
    ids, mask = batched_forward.pad_left([[5, 6, 7], [8]], 0, "cpu")
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("decoding", [None, {"temperature": 1.0, "top_k": None, "num_beams": 1}])
def test_tokens_are_told_as_they_are_written_and_make_up_the_answers(model, encoder, decoding, monkeypatch):
    ends = sorted({*encoder.stop, *range(100, 400)})  # so that rows end early
    monkeypatch.setattr(Encoder, "stop", ends)
    prompts = [encoder.prompt(text) for text in TEXTS]
    config = generation.configuration(decoding or generation.GREEDY, 12, ends, encoder.tokenizer.pad_token_id)
    told, steps = {row: [] for row in range(len(prompts))}, []

    def on_token(rows, ids):
        steps.append(rows)
        for row, token in zip(rows, ids, strict=True):
            told[row].append(token)

    answers = generation.batch(model, encoder, prompts, config, 7, on_token=on_token)
    assert [generation.cut(ids, encoder) for ids in told.values()] == answers
    assert answers == generation.batch(model, encoder, prompts, config, 7)
    assert [len(ids) for ids in told.values()] == [answer["tokens"] for answer in answers]
    assert len(steps[0]) == len(prompts) > len(steps[-1])  # a row that has ended is told of no more


def test_writing_ends_where_it_is_told_to(model, encoder):
    prompts, steps = [encoder.prompt(text) for text in TEXTS], []
    config = generation.configuration(generation.GREEDY, 12, encoder.stop, encoder.tokenizer.pad_token_id)
    generation.batch(model, encoder, prompts, config, 7, lambda: len(steps) == 3, lambda *told: steps.append(told))
    assert len(steps) == 3


@pytest.mark.parametrize("temperature", [1e-40, 1e-300, 1e-7])
def test_a_temperature_next_to_nothing_is_greedy(model, encoder, temperature):
    prompts = [encoder.prompt(text) for text in TEXTS]
    cold = {"temperature": temperature, "top_k": None, "num_beams": 1}
    assert write(model, encoder, prompts, 5, decoding=cold) == write(model, encoder, prompts, 5)


def test_a_model_of_nan_fails_in_place_of_writing(model, encoder, monkeypatch):
    forward = type(model).forward

    def broken(self, *given, **named):
        out = forward(self, *given, **named)
        out.logits = out.logits * float("nan")
        return out

    monkeypatch.setattr(type(model), "forward", broken)
    for decoding in (generation.GREEDY, generation.GREEDY | {"temperature": 1.0}):
        with pytest.raises(Failed, match="not numbers"):
            write(model, encoder, [encoder.prompt("a")], 1, decoding=decoding)
