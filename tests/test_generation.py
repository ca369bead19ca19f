"""Writing answers: alone as in a batch, cut by tokens, greedy whatever the checkpoint's own settings say."""

import pytest
import torch

from common import generation, passes
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
    from common import checkpoints, loading

    return loading.base(checkpoints.find(str(tiny_folder)), "float32")


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
    first = passes.batches([len(p) for p in prompts], 2)[0]
    found = write(model, encoder, prompts, 2, done=frozenset(first))
    assert sorted(found) == sorted(set(range(len(TEXTS))) - set(first))


def test_batches_hold_every_row_once_longest_first():
    made = passes.batches([3, 9, 1, 9, 4], 2)
    assert made == [[1, 3], [4, 0], [2]]


def test_padding_is_on_the_left():
    ids, mask = passes.pad_left([[5, 6, 7], [8]], 0, "cpu")
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_one_budget_a_task_holds_the_longest_class_name(encoder):
    import json
    from pathlib import Path

    sample = Path(generation.__file__).parent / "sample"
    rows = [json.loads(line) for line in (sample / "posts.jsonl").read_text().splitlines()]
    longest = max(len(encoder.completion(label)) for label in {row["label"] for row in rows})
    assert longest <= generation.MAX_NEW_TOKENS["classification"]
