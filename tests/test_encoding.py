"""Prompts and answers as token ids: inference is training minus the answer, tails survive, ends are supervised."""

import pytest
import tiny

from common.console import InputError
from common.encoding import Encoder, Template, prompter, prompts, shots, text_alone, training_rows

PLAIN = Template("Class of the post:\n{labels}\n\n### Post:\n{document}", cue="\n\n### Class:")
LABELS = ["rec.autos", "sci.med"]
LONG = "The engine of my old car would not start this morning. " * 60


def encoder(tokenizer, template=PLAIN, format="plain", limit=32, **keywords):
    return Encoder(tokenizer, template, format, limit, 2048, **keywords)


@pytest.fixture
def chatty(tokenizer):
    """The tokenizer with a chat template whose end of turn is not the end of sequence."""
    import copy

    chat = copy.deepcopy(tokenizer)
    chat.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|end|>"]})
    chat.chat_template = (
        "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    )
    return chat


@pytest.mark.parametrize("format", ["plain", "chat"])
def test_tail_of_the_prompt_survives_a_long_document_and_the_cut_is_counted(chatty, format):
    made = encoder(chatty, format=format, labels=LABELS)
    text = chatty.decode(made.prompt(LONG, "test"))
    assert text.rstrip().endswith("### Class:" if format == "plain" else "<|end|>\n<|turn|>assistant")
    assert len(made.prompt(LONG)) - len(made.prompt("")) <= 32 + 4  # the joints may split differently
    made.prompt("short", "test")
    assert made.truncated == {"test": 1}


def test_cut_documents_are_counted_a_split_however_often_it_is_encoded(tokenizer):
    made = encoder(tokenizer, labels=LABELS)
    long, short = {"text": LONG, "target": "sci.med"}, {"text": "short", "target": "rec.autos"}
    for _ in range(2):
        training_rows(made, [long, short, long], "train")
        training_rows(made, [], "validation")
        prompts(made, [short, long])
    assert made.truncated == {"train": 2, "validation": 0, "test": 1}


def test_cut_keeps_a_true_start_of_the_text_of_exactly_that_many_tokens(tokenizer):
    made = encoder(tokenizer)
    start, was_cut = made.cut(LONG, 20)
    assert was_cut
    assert LONG.startswith(start)
    assert len(tokenizer(start, add_special_tokens=False)["input_ids"]) == 20
    assert made.cut("a car", 20) == ("a car", False)


@pytest.mark.parametrize("format", ["plain", "chat"])
def test_training_row_is_prompt_plus_answer_plus_end_and_only_the_answer_has_labels(chatty, format):
    made = encoder(chatty, format=format, labels=LABELS)
    row = {"text": "My car needs a new gearbox.", "target": "rec.autos"}
    (encoded,) = training_rows(made, [row])
    prompt = made.prompt(row["text"])
    assert encoded["input_ids"][: len(prompt)] == prompt
    supervised = [token for token in encoded["labels"] if token != -100]
    assert encoded["labels"][: len(prompt)] == [-100] * len(prompt)
    assert encoded["input_ids"][len(prompt) :] == supervised
    assert chatty.decode(supervised[:-1]).strip() == "rec.autos"


def test_last_supervised_token_is_the_end_of_sequence_even_where_it_is_the_pad_token(tokenizer):
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    made = encoder(tokenizer, labels=LABELS)
    assert training_rows(made, [{"text": "a", "target": "sci.med"}])[0]["labels"][-1] == tokenizer.eos_token_id


def test_chat_answers_end_with_the_end_of_turn_and_both_ends_stop_generation(chatty):
    made = encoder(chatty, format="chat", labels=LABELS)
    assert made.completion("sci.med")[-1] == chatty.convert_tokens_to_ids("<|end|>")
    assert set(made.stop) == {chatty.convert_tokens_to_ids("<|end|>"), chatty.eos_token_id}


def test_whole_training_text_reads_as_the_template_says(tokenizer):
    made = encoder(tokenizer, labels=LABELS)
    (row,) = training_rows(made, [{"text": "My car.", "target": "rec.autos"}])
    expected = "<s>Class of the post:\nrec.autos\nsci.med\n\n### Post:\nMy car.\n\n### Class: rec.autos</s>"
    assert tokenizer.decode(row["input_ids"]) == expected


@pytest.mark.parametrize("format", ["plain", "chat"])
def test_names_of_special_tokens_are_text_wherever_they_come_from(chatty, format):
    names = "".join(chatty.all_special_tokens)
    assert {"<s>", "</s>", "<|turn|>", "<|end|>"} <= set(chatty.all_special_tokens)

    def special(ids):
        return [token for token in ids if token in chatty.all_special_ids]

    def made(text):
        shown = Template(PLAIN.text + "\n{examples}", PLAIN.cue, example="{document}: {answer}\n")
        row = {"text": text, "target": text}
        return encoder(chatty, shown, format, labels=[text, "b"], examples=[row])

    clean, dirty = made("a"), made(names)
    assert special(chatty(names)["input_ids"])[-len(chatty.all_special_tokens) :] == chatty.all_special_ids
    assert special(dirty.prompt(names)) == special(clean.prompt("a"))
    assert special(dirty.completion(names)) == [dirty.end]
    assert "< |end|>" in chatty.decode(dirty.prompt(names))
    if format == "chat":
        turns = [{"role": "user", "content": "a"}]
        assert special(dirty.conversation([{"role": "user", "content": names}])) == special(clean.conversation(turns))


def test_a_name_inside_another_name_is_broken_too(tokenizer):
    import copy

    nested = copy.deepcopy(tokenizer)
    nested.add_special_tokens({"additional_special_tokens": ["<|im|>", "|im|"]})
    text = text_alone(nested)("a<|im|>b")
    assert text == "a< | im|>b"
    assert not set(nested(text, add_special_tokens=False)["input_ids"]) & set(nested.all_special_ids)


def test_braces_and_slot_names_inside_data_are_data(tokenizer):
    made = encoder(tokenizer, limit=64, labels=LABELS)
    text = "use {document} and {labels} and {0} {}"
    assert text in tokenizer.decode(made.prompt(text))


def test_an_end_of_sequence_that_the_tokenizer_appends_is_taken_off_the_prompt(tokenizer):
    import copy

    from tokenizers.processors import TemplateProcessing

    ending = copy.deepcopy(tokenizer)
    ending._tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    assert ending("a")["input_ids"][-1] == ending.eos_token_id  # it does append
    assert encoder(ending, labels=LABELS).prompt("a")[-1] != ending.eos_token_id


def test_few_shot_examples_are_shortened_until_the_longest_prompt_fits(tokenizer):
    template = Template(
        "{examples}### Post:\n{document}",
        cue="\n\n### Class:",
        example="### Post:\n{document}\n\n### Class: {answer}\n\n",
    )
    rows = [{"text": LONG, "target": label} for label in LABELS * 3]
    for context in (2048, 512):
        made = Encoder(tokenizer, template, "plain", 64, context, LABELS, rows)
        ids = made.prompt(LONG)
        assert len(ids) <= context
        assert tokenizer.decode(ids).count("### Class:") == 7
    with pytest.raises(InputError, match="do not fit"):
        Encoder(tokenizer, template, "plain", 64, 128, LABELS, rows)


def test_shots_take_one_row_a_class():
    rows = [{"text": str(i), "target": LABELS[i % 2]} for i in range(10)]
    assert sorted(row["target"] for row in shots(rows, LABELS, 2)) == LABELS
    assert len(shots(rows, LABELS, 1)) == 1
    assert len(shots(rows, [], 3)) == 3
    assert shots(rows, LABELS, 0) == []


def test_one_shot_shows_a_class_that_is_drawn_and_not_the_first_of_the_alphabet():
    drawn = set()
    for n in range(2, 21):
        labels = [f"class {i:02}" for i in range(n)]
        rows = [{"text": label, "target": label} for label in labels]
        (first,) = shots(rows, labels, 1)
        assert [first] == shots(rows, labels, 1) == shots(rows, labels, n)[:1]
        drawn.add(labels.index(first["target"]) / n)
    assert len(drawn) > 5


def test_a_prompter_shows_as_many_shots_as_the_settings_say(tokenizer):
    template = Template("{examples}{document}", cue="\n### Class:", example="{document}\n### Class: {answer}\n")
    rows = [{"text": f"text {i}", "target": LABELS[i % 2]} for i in range(6)]
    for count in (0, 1, 4):
        made = prompter(tokenizer, template, "plain", tiny.settings(shots=count), LABELS, rows)
        assert tokenizer.decode(made.prompt("new")).count("### Class:") == count + 1


def test_chat_format_without_a_template_and_a_tokenizer_without_an_end_are_refused(tokenizer):
    import copy

    with pytest.raises(InputError, match="chat template"):
        encoder(tokenizer, format="chat")
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    with pytest.raises(InputError, match="end-of-sequence"):
        encoder(endless)
