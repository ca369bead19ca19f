"""From wording to token ids, once, for training, scoring and generation alike.

Inference is training minus the answer by construction: `prompt` gives the ids that both start from and `completion` the
ids that training adds. Documents are cut, prompts never are.
"""

import itertools
import random
from dataclasses import dataclass

from common.console import InputError
from common.data import SPLIT_SEED

JOINTS = 32  # tokens kept free for the joints between template and documents when examples are fitted


@dataclass(frozen=True)
class Template:
    """A prompt's wording. `text` has the slot {document} and, before it, {labels} and {examples} as needed.
    `cue` follows it in plain format and asks for the answer ("### Class:"); in chat format the start of the
    assistant's turn does that. `answer` is the completion's format after the cue, e.g. " {answer}".
    `example` has {document} and {answer}: what stands in {examples}, once a shot. `extra` has {input}: what follows
    the document of a row that has an input beside its text."""

    text: str
    cue: str = ""
    answer: str = " {answer}"
    example: str = ""
    extra: str = ""


class Encoder:
    """Tokenizer, wording and format of one run: makes prompts and completions, and counts documents that were cut.

    tokenizer: a fast tokenizer (offsets are needed to cut a text at a token's end). format: "plain" (the text as it is)
    or "chat" (the checkpoint's own chat template, one user turn). max_document_tokens: longer documents are cut there.
    labels: class names, empty for free text. examples: rows to show in the prompt; prompt_tokens: that a prompt with
    examples may take. truncated: {split: documents cut}.
    Raises InputError for a chat format without a template, or a tokenizer without end of sequence.
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
        self._answers, self._examples = {}, ""
        self.end = self._end_of_turn()
        if examples:
            self._examples = self._fit(examples, prompt_tokens)

    @property
    def stop(self):
        """Ids that end an answer: the one that training supervises, and the tokenizer's own."""
        return sorted({self.end, self.tokenizer.eos_token_id})

    def document(self, row):
        """What stands in a row's prompt: its text, and its input where it has one."""
        more = row.get("input", "")
        return row["text"] + (self.template.extra.replace("{input}", more) if more else "")

    def prompt(self, document, split=None):
        """Ids of the prompt for one document, ready for the answer. A document that was cut counts for `split`."""
        document, was_cut = self.cut(document, self.max_document_tokens)
        if split:
            self.truncated[split] = self.truncated.get(split, 0) + was_cut
        return self._ids(self._frame(self._fill(document)))

    def conversation(self, turns):
        """Ids of a conversation in chat format, ready for the assistant's next turn. turns: [{"role", "content"}].
        Raises what the checkpoint's template raises for turns that it does not take (jinja2.TemplateError)."""
        return self._ids(self._turns(turns))

    def completion(self, answer):
        """Ids of the answer as the model has to write it, end of sequence included."""
        return [*self.answer(answer), self.end]

    def answer(self, answer):
        """Ids of the answer alone. They depend on the prompt's tail only, so that one answer has one spelling in
        training, label scoring and every prompt."""
        if answer not in self._answers:
            tail = self._frame(self._fill("\0")).rpartition("\0")[2]
            text = self.template.answer.format(answer=answer) if self.format == "plain" else answer
            before, whole = self._ids(tail), self._ids(tail + text)
            # A tokenizer that merges across the joint (none known does at a line end or a space) would change the
            # prompt: then the answer is spelled on its own.
            joined = whole[: len(before)] == before
            self._answers[answer] = whole[len(before) :] if joined else self._ids(text)
        return self._answers[answer]

    def cut(self, text, tokens):
        """(the longest start of `text` with at most `tokens` tokens, whether anything was cut)."""
        coded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        if len(coded["input_ids"]) <= tokens:
            return text, False
        return text[: coded["offset_mapping"][tokens - 1][1]], True

    def _fill(self, document):
        # around the document's slot only: slot names inside data are data
        before, slot, after = self.template.text.partition("{document}")
        before = before.replace("{labels}", "\n".join(self.labels)).replace("{examples}", self._examples)
        return before + (document if slot else "") + after

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
        """The token after an answer: the chat template's end of turn, or the end of sequence."""
        if self.format == "plain":
            return self.tokenizer.eos_token_id
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\0"}]
        after = self.tokenizer.apply_chat_template(turns, tokenize=False).rpartition("\0")[2]
        ids = self.tokenizer(after, add_special_tokens=False)["input_ids"]
        return ids[0] if ids and ids[0] in self.tokenizer.all_special_ids else self.tokenizer.eos_token_id

    def _fit(self, examples, prompt_tokens):
        """The {examples} text: every example's document shortened to one common budget such that the longest prompt
        still has at most `prompt_tokens`."""
        fixed = len(self._ids(self._frame(self._fill("")))) + self.max_document_tokens + JOINTS
        for budget in (256, 192, 128, 96, 64, 48, 32, 24, 16):
            text = "".join(
                self.template.example.replace("{answer}", row["target"]).replace(
                    "{document}", self.cut(row["text"], budget)[0]
                )
                for row in examples
            )
            if len(self._ids(text)) <= prompt_tokens - fixed:
                return text
        raise InputError(
            f"{len(examples)} examples do not fit a prompt of {prompt_tokens} tokens beside documents of "
            f"{self.max_document_tokens}; lower --max_document_tokens"
        )


def prompter(tokenizer, template, format, settings, labels, train=()):
    """The Encoder of a run. labels: class names, empty for free text; train: rows from which settings.shots examples
    are taken for the prompt."""
    examples = shots(train, labels, settings.shots)
    return Encoder(tokenizer, template, format, settings.max_document_tokens, settings.prompt_tokens, labels, examples)


def shots(train, labels, count):
    """`count` training rows to show as examples, one a class in turn where there are classes.

    The order of the classes is drawn by SPLIT_SEED, the same in every run: one shot would else always show the first
    class of the alphabet."""
    if not labels:
        return train[:count]
    order = random.Random(SPLIT_SEED).sample(sorted(labels), len(labels))
    turns = itertools.zip_longest(*([row for row in train if row["target"] == label] for label in order))
    return [row for turn in turns for row in turn if row][:count]


def prompts(encoder, rows, split="test"):
    """Token ids of every row's prompt. Sets encoder.truncated[split] to the number of documents that were cut."""
    encoder.truncated[split] = 0
    return [encoder.prompt(encoder.document(row), split) for row in rows]


def training_rows(encoder, rows, split="train"):
    """Token ids and loss mask of every row: `input_ids` = prompt + answer + end, `labels` = the same with -100 on the
    prompt, so that only the answer is learned. No row is lost: documents were cut, and counted for `split`."""
    encoded = []
    for row, prompt in zip(rows, prompts(encoder, rows, split), strict=True):
        completion = encoder.completion(row["target"])
        encoded.append({"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion})
    return encoded
