"""Turns rows into token ids, by the same code for training, scoring and generation.

Inference is training minus the answer by construction: `prompt` gives the ids that both begin with, `completion` those
that training appends. A long document is cut; the rest of the prompt never is.
"""

import itertools
import random
import re
from dataclasses import dataclass

from common.console import InputError
from common.splits import SPLIT_SEED

JOINTS = 32  # tokens left free when examples are fitted: joined texts can have more tokens than their parts


@dataclass(frozen=True)
class Template:
    """A prompt's wording.

    text: has the slot {document} and, before it, {labels} and {examples} as needed. cue: follows the text in plain
    format and asks for the answer ("### Class:"); chat format starts the assistant's turn instead. answer: the
    completion's format after the cue. example: the text of one shot, with the slots {document} and {answer}; all
    shots together fill {examples}. extra: follows the document of a row with an input, with the slot {input}.
    """

    text: str
    cue: str = ""
    answer: str = " {answer}"
    example: str = ""
    extra: str = ""

    def document(self, row):
        """A row's document: its text, followed by its input if it has one."""
        input_text = row.get("input", "")
        return row["text"] + (self.extra.replace("{input}", input_text) if input_text else "")

    def filled(self, document, labels=(), examples=""):
        """The text with its slots filled, those around the document first: a slot's name inside a document is data."""
        before, slot, after = self.text.partition("{document}")
        before = before.replace("{labels}", "\n".join(labels)).replace("{examples}", examples)
        return before + (document if slot else "") + after


def own_template(instruction=None, labelled=True, listed=True):
    """The Template for own data, of any model. instruction: what to do with a text, in the user's words; labelled:
    whether the answer is a class; listed: whether the prompt names all classes. Raises InputError for a slot in it."""
    slot = next((slot for slot in ("{document}", "{labels}", "{examples}") if slot in (instruction or "")), None)
    if slot:
        raise InputError(f"--instruction: leave {slot} out; the text and the classes follow what you ask")
    if labelled:
        answer = "exactly one of these classes:\n{labels}" if listed else "a class's name."
        asked = f"{instruction or 'Classify the text below.'} The answer is {answer}"
    else:
        asked = instruction or "Summarize the text below in one or two short sentences."
    return Template(
        asked + "\n\n{examples}### Text:\n{document}",
        cue="\n\n### Answer:",
        example="### Text:\n{document}\n\n### Answer: {answer}\n\n",
    )


def text_alone(tokenizer):
    """A function text -> text without names of the tokenizer's special tokens: each gets a space after its first
    character, so that it is read as text. `<|im_end|>` in a post must not end the turn."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    names = sorted((name for name in special if len(name) > 1), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, names)) or "(?!)")

    def broken(text):
        while pattern.search(text):  # a name may stand in another one
            text = pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
        return text

    return broken


class Encoder:
    """Makes the prompts and completions of one run, and counts the documents that were cut.

    tokenizer: a fast tokenizer, whose offsets tell where to cut a text. format: "plain" (the text as it is) or "chat"
    (the checkpoint's own chat template, one user turn). max_document_tokens: longer documents are cut to it. labels:
    class names, empty for free text. examples: rows to show in the prompt; prompt_tokens: maximum of a prompt with
    examples. truncated: {split: number of documents cut}. Special tokens come from the format alone: in documents,
    answers and turns their names are text (see `text_alone`).
    Raises InputError for a chat format without a template or with one that fails, or a tokenizer without end of
    sequence.
    """

    def __init__(self, tokenizer, template, format, max_document_tokens, prompt_tokens=None, labels=(), examples=()):
        if format == "chat" and not tokenizer.chat_template:
            raise InputError("this checkpoint has no chat template: it cannot be prompted in chat format")
        if tokenizer.eos_token_id is None:
            raise InputError(
                "this checkpoint's tokenizer has no end-of-sequence token: a model tuned with it could not stop"
            )
        self.tokenizer, self.template, self.format = tokenizer, template, format
        self.max_document_tokens, self.labels, self.truncated = max_document_tokens, list(labels), {}
        self._text = text_alone(tokenizer)
        self._listed = [self._text(label) for label in self.labels]
        self._answers, self._examples = {}, ""
        try:
            self.end = self._end_of_turn()
        except Exception as error:  # a template is a program of the checkpoint's: it raises what it likes
            raise InputError(f"cannot use this checkpoint's chat template: {error}") from None
        if examples:
            self._examples = self._fit(examples, prompt_tokens)

    @property
    def stop(self):
        """Token ids that end an answer: the one that training supervises, and the tokenizer's end of sequence."""
        return sorted({self.end, self.tokenizer.eos_token_id})

    def prompt(self, document, split=None):
        """Token ids of a document's prompt, up to the answer. split: under which a document that was cut is counted."""
        document, was_cut = self.cut(document, self.max_document_tokens)
        if split:
            self.truncated[split] = self.truncated.get(split, 0) + was_cut
        return self._ids(self._frame(self._fill(document)))

    def whole(self, prompt):
        """Token ids of a prompt as its author wrote it: names of special tokens in it are those tokens."""
        return self._ids(prompt)

    def conversation(self, turns):
        """Token ids of a conversation in chat format, up to the assistant's next turn. turns: [{"role", "content"}].
        Raises jinja2.TemplateError for turns that the checkpoint's template refuses."""
        return self._ids(self._turns([{**turn, "content": self._text(turn["content"])} for turn in turns]))

    def completion(self, answer):
        """Token ids of the answer and the end of sequence, as training supervises them."""
        return [*self.answer(answer), self.end]

    def answer(self, answer):
        """Token ids of the answer alone. They depend only on the prompt's end after the document, so that an answer
        has the same ids in training, in label scoring and after every prompt."""
        if answer not in self._answers:
            tail = self._frame(self._fill("\0")).rpartition("\0")[2]
            text = self._text(answer)
            text = self.template.answer.replace("{answer}", text) if self.format == "plain" else text
            tail_ids, joined_ids = self._ids(tail), self._ids(tail + text)
            # A tokenizer that merges across the joint (none known does at a line end or a space) would change the
            # prompt's ids: then the answer is tokenized alone.
            separable = joined_ids[: len(tail_ids)] == tail_ids
            self._answers[answer] = joined_ids[len(tail_ids) :] if separable else self._ids(text)
        return self._answers[answer]

    def cut(self, text, tokens):
        """(`text` as text alone, cut to at most `tokens` tokens; whether anything was cut)."""
        text = self._text(text)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        if len(encoded["input_ids"]) <= tokens:
            return text, False
        return text[: encoded["offset_mapping"][tokens - 1][1]], True

    def _fill(self, document):
        return self.template.filled(document, self._listed, self._examples)

    def _frame(self, text):
        if self.format == "plain":
            return text + self.template.cue
        return self._turns([{"role": "user", "content": text}])

    def _turns(self, turns):
        return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    def _ids(self, text):
        # A chat template writes its own special tokens; a plain prompt takes the tokenizer's beginning of sequence,
        # but never its end: nothing may follow it.
        ids = self.tokenizer(text, add_special_tokens=self.format == "plain")["input_ids"]
        while ids and ids[-1] == self.tokenizer.eos_token_id and self.format == "plain":
            ids = ids[:-1]
        return ids

    def _end_of_turn(self):
        """Id of the token after an answer: the chat template's end of turn, or the end of sequence."""
        if self.format == "plain":
            return self.tokenizer.eos_token_id
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\0"}]
        ending = self.tokenizer.apply_chat_template(turns, tokenize=False).rpartition("\0")[2]
        ids = self.tokenizer(ending, add_special_tokens=False)["input_ids"]
        return ids[0] if ids and ids[0] in self.tokenizer.all_special_ids else self.tokenizer.eos_token_id

    def _fit(self, examples, prompt_tokens):
        """The text of {examples}. All their documents are cut to one token budget, the largest of a few with which
        the longest prompt has at most `prompt_tokens`."""
        other_tokens = len(self._ids(self._frame(self._fill("")))) + self.max_document_tokens + JOINTS
        for budget in (256, 192, 128, 96, 64, 48, 32, 24, 16):
            text = "".join(
                self.template.example.replace("{answer}", self._text(row["target"])).replace(
                    "{document}", self.cut(row["text"], budget)[0]
                )
                for row in examples
            )
            if len(self._ids(text)) <= prompt_tokens - other_tokens:
                return text
        raise InputError(
            f"{len(examples)} examples do not fit a prompt of {prompt_tokens} tokens beside documents of "
            f"{self.max_document_tokens}; lower --max_document_tokens"
        )


def prompter(tokenizer, template, format, settings, labels, train=()):
    """The Encoder of a run. labels: class names, empty for free text; train: the rows that settings.shots examples in
    the prompt are taken from."""
    examples = shots(train, labels, settings.shots)
    return Encoder(tokenizer, template, format, settings.max_document_tokens, settings.prompt_tokens, labels, examples)


def shots(train, labels, count):
    """`count` training rows to show as examples; where there are classes, one of each class in turn.

    The order of the classes is drawn with SPLIT_SEED and the same in every run: in alphabetical order, one shot would
    always show the same first class."""
    if not labels:
        return train[:count]
    order = random.Random(SPLIT_SEED).sample(sorted(labels), len(labels))
    turns = itertools.zip_longest(*([row for row in train if row["target"] == label] for label in order))
    return [row for turn in turns for row in turn if row][:count]


def prompts(encoder, rows, split="test"):
    """Token ids of every row's prompt. Sets encoder.truncated[split] to the number of documents that were cut."""
    encoder.truncated[split] = 0
    return [encoder.prompt(encoder.template.document(row), split) for row in rows]


def training_rows(encoder, rows, split="train"):
    """[{"input_ids", "labels"}] of every row: input_ids is prompt + completion, labels the same with -100 (no loss) on
    the prompt. No row is dropped; documents that were cut are counted under `split`."""
    encoded = []
    for row, prompt in zip(rows, prompts(encoder, rows, split), strict=True):
        completion = encoder.completion(row["target"])
        encoded.append({"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion})
    return encoded
