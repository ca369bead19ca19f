"""From wording to token ids, once, for training, scoring and generation alike.

Inference is training minus the answer by construction: `prompt` gives the ids both start from and
`completion` the ids that training adds. Documents are cut, prompts never are.
"""

import itertools
from dataclasses import dataclass

from common.console import InputError

# Examples in a prompt: few-shot classification shows every class once.
SHOTS = {
    ("classification", "one-shot"): 1,
    ("classification", "few-shot"): 20,
    ("summarization", "one-shot"): 1,
    ("summarization", "few-shot"): 3,
    ("sentiment", "one-shot"): 1,
    ("sentiment", "few-shot"): 4,
}
ROOM = 32  # tokens kept free for the joints between template and documents when examples are fitted


@dataclass(frozen=True)
class Template:
    """A prompt's wording. `text` has the slot {document} and, before it, {labels} and {examples} as needed.
    `cue` follows it in plain format and asks for the answer ("### Class:"); in chat format the start of the
    assistant's turn does that. `answer` is what the answer looks like behind the cue, e.g. " {answer}".
    `example` has {document} and {answer}: what stands in {examples}, once a shot. `extra` has {input}: what follows
    the document of a row that has an input beside its text."""

    text: str
    cue: str = ""
    answer: str = " {answer}"
    example: str = ""
    extra: str = ""


class Encoder:
    """Tokenizer + format of one run: builds prompt and completion ids, and counts cut documents.

    tokenizer: a fast tokenizer (offsets are needed to cut a text at a token's end).
    format: "plain" (the text as it is) or "chat" (the checkpoint's own chat template, one user turn).
    max_document_tokens: longer documents are cut there. examples: rows to show in the prompt; context: tokens
    that a prompt with examples may take.
    Raises InputError for a chat format without a template, or a tokenizer without end of sequence.
    """

    def __init__(self, tokenizer, template, format, max_document_tokens, context, labels=(), examples=()):
        if format == "chat" and not tokenizer.chat_template:
            raise InputError("this checkpoint has no chat template: it cannot be prompted in chat format")
        if tokenizer.eos_token_id is None:
            raise InputError(
                "this checkpoint's tokenizer has no end-of-sequence token: a model tuned with it could not stop"
            )
        self.tokenizer = tokenizer
        self.template = template
        self.format = format
        self.max_document_tokens = max_document_tokens
        self.labels = list(labels)
        self.truncated = 0
        self._tails, self._examples = {}, ""
        self.end = self._end_of_turn()
        if examples:
            self._examples = self._fit(examples, context)

    @property
    def stop(self):
        """Ids that end an answer: the one that training supervises, and the tokenizer's own."""
        return sorted({self.end, self.tokenizer.eos_token_id})

    def document(self, row):
        """What stands in a row's prompt: its text, and its input where it has one."""
        more = row.get("input", "")
        return row["text"] + (self.template.extra.replace("{input}", more) if more else "")

    def prompt(self, document):
        """Ids of the prompt for one document, ready for the answer. Counts the document if it was cut."""
        document, was_cut = self.cut(document, self.max_document_tokens)
        self.truncated += was_cut
        return self._ids(self._frame(self._fill(document)))

    def conversation(self, turns):
        """Ids of a conversation in chat format, ready for the assistant's next turn. turns: [{"role", "content"}].
        Raises what the checkpoint's template raises for turns that it does not take (jinja2.TemplateError)."""
        return self._ids(self._turns(turns))

    def completion(self, answer):
        """Ids of the answer as the model has to write it, end of sequence included."""
        return [*self.answer(answer), self.end]

    def answer(self, answer):
        """Ids of the answer alone. They depend on the prompt's tail only, so that one answer has one
        spelling in training, label scoring and every prompt."""
        if answer not in self._tails:
            tail = self._frame(self._fill("\0")).rpartition("\0")[2]
            text = self.template.answer.format(answer=answer) if self.format == "plain" else answer
            before, whole = self._ids(tail), self._ids(tail + text)
            # A tokenizer that merges across the joint (none known does at a line end or a space) would
            # change the prompt: then the answer is spelled on its own.
            joined = whole[: len(before)] == before
            self._tails[answer] = whole[len(before) :] if joined else self._ids(text)
        return self._tails[answer]

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
        # A chat template writes its own special tokens; a plain prompt takes the tokenizer's beginning
        # of sequence, but never its end: nothing may follow it.
        ids = self.tokenizer(text, add_special_tokens=self.format == "plain")["input_ids"]
        while ids and ids[-1] == self.tokenizer.eos_token_id and self.format == "plain":
            ids = ids[:-1]
        return ids

    def _end_of_turn(self):
        """The token behind an answer: the chat template's end of turn, or the end of sequence."""
        if self.format == "plain":
            return self.tokenizer.eos_token_id
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\0"}]
        after = self.tokenizer.apply_chat_template(turns, tokenize=False).rpartition("\0")[2]
        ids = self.tokenizer(after, add_special_tokens=False)["input_ids"]
        return ids[0] if ids and ids[0] in self.tokenizer.all_special_ids else self.tokenizer.eos_token_id

    def _fit(self, examples, context):
        """The {examples} text: every example's document shortened to one common budget such that
        the longest prompt still fits the context."""
        fixed = len(self._ids(self._frame(self._fill("")))) + self.max_document_tokens + ROOM
        spare = context - fixed
        for budget in (256, 192, 128, 96, 64, 48, 32, 24, 16):
            text = "".join(
                self.template.example.replace("{answer}", row["target"]).replace(
                    "{document}", self.cut(row["text"], budget)[0]
                )
                for row in examples
            )
            if len(self._ids(text)) <= spare:
                return text
        raise InputError(
            f"{len(examples)} examples do not fit a context of {context} tokens beside documents of "
            f"{self.max_document_tokens}; lower --max_document_tokens"
        )


def shots(train, labels, count):
    """`count` training rows to show as examples: one a class in turn where there are classes."""
    if not labels:
        return train[:count]
    of_class = {label: [row for row in train if row["target"] == label] for label in labels}
    turns = itertools.zip_longest(*of_class.values())
    return [row for turn in turns for row in turn if row][:count]


def training_rows(encoder, rows):
    """Token ids and loss mask of every row: `input_ids` = prompt + answer + end, `labels` = the same with
    -100 on the prompt, so that only the answer is learned. No row is lost: documents were cut."""
    encoded = []
    for row in rows:
        prompt, completion = encoder.prompt(encoder.document(row)), encoder.completion(row["target"])
        encoded.append({"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion})
    return encoded
