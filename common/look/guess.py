"""Guesses which columns hold the text and the label, summary or answer, from the first rows of a file.

A name that says what a column is counts most; then what its values look like: a label has few distinct short values, a
text is long and hardly ever repeats. A flag overrules every guess.
"""

import itertools
import re
from dataclasses import dataclass

from common import data, rowfiles
from common.console import InputError
from common.splits import MAX_CLASSES

HEAD = 5_000  # rows that the guess looks at
LABEL_CHARACTERS = 60  # mean length of a label, at most
SUMMARY_SHARE = 0.6  # a summary is at most this long, as a share of the text; names overrule it
# Role of a column -> names that say so, the clearest first.
NAMES = {
    "instruction": (
        "instruction", "instructions", "prompt", "question", "query"
    ),
    "text": (
        "text", "message", "dialogue", "dialog", "conversation", "transcript", "document", "article", "review",
        "content", "body", "post", "comment", "sentence", "utterance", "tweet", "email", "description", "ticket",
        "question", "query", "request", "reviewtext", "review_text", "full_text"
    ),
    "label": (
        "label", "labels", "class", "category", "intent", "topic", "sentiment", "target", "team", "tag", "queue",
        "rating", "stars", "star_rating", "score", "overall", "polarity", "department", "priority", "emotion", "type"
    ),
    "summary": (
        "summary", "summaries", "highlights", "tldr", "headline", "gist", "abstract"
    ),
    "answer": (
        "output", "answer", "response", "completion", "reply", "chosen"
    ),
}  # fmt: skip
# Columns of few values that are rarely what one wants to predict.
OTHERS = ("id", "split", "fold", "index", "lang", "language", "source", "user", "date", "time", "year", "unnamed: 0")
DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b")
FLAGS = {"classification": "--label_column", "summarization": "--summary_column", "instructions": "--answer_column"}
ROLES = {"classification": "label", "summarization": "summary", "instructions": "answer"}


@dataclass(frozen=True)
class Column:
    """What the first rows say of a column. characters: mean length of the values that are not empty."""

    name: str
    filled: int
    distinct: int
    characters: float
    spaced: float  # share of the values with a space in them
    numeric: float  # share of numbers
    dated: float  # share of dates
    foreign: float  # share of values beyond ASCII: some scripts write no spaces

    def called(self, role):
        return self.name.lower().strip() in NAMES[role]

    @property
    def is_other(self):
        name = self.name.lower().strip()
        return name in OTHERS or name.endswith(("_id", " id", "_at", "_date")) or self.dated > 0.5

    @property
    def may_be_label(self):
        """Few distinct short values that repeat; of a handful of rows also values that do not."""
        few = self.distinct <= min(MAX_CLASSES, max(3, self.filled / 2))
        return self.distinct > 0 and few and self.characters <= LABEL_CHARACTERS and not self.is_other

    @property
    def may_be_text(self):
        """Values that differ from row to row and are not numbers, dates or ids."""
        wordy = max(self.spaced, self.foreign) > 0.5 or self.characters > LABEL_CHARACTERS or self.called("text")
        return self.distinct > 0.3 * self.filled > 0 and self.numeric < 0.5 and wordy and not self.is_other


@dataclass(frozen=True)
class Choice:
    """The task and its columns. columns: {"text", "target"}: names as in the file; because: {column: reason}, in words;
    guessed: which of "task", "text" and "target" no flag named."""

    task: str
    columns: dict
    because: dict
    guessed: tuple

    @property
    def labelled(self):
        return data.TASKS[self.task][1]

    @property
    def role(self):
        """What the target is called: "label", "summary" or "answer"."""
        return ROLES[self.task]

    @property
    def named(self):
        """The columns as flags name them: None for a name that is the data set's own."""
        own = data.TASKS[self.task][0]
        return {role: name if name != own[role] else None for role, name in self.columns.items()}

    @property
    def fields(self):
        """{field of a row: column of the file} for rowfiles.named_rows."""
        more = {"input": "input"} if self.task == "instructions" and "input" not in self.columns.values() else {}
        return self.columns | more


def profiles(source):
    """[Column] of the columns of a Source, by its first HEAD rows."""
    values = {name: [] for name in source.columns}
    for number, row in itertools.islice(source.rows(), HEAD):
        for name, value in row.items():
            if name in values and not isinstance(value, list | dict):
                values[name].append(rowfiles.text(value, source, number, name).strip())
    return [profile(name, [value for value in column if value]) for name, column in values.items()]


def profile(name, values):
    share = lambda test: sum(map(bool, map(test, values))) / max(1, len(values))  # noqa: E731
    return Column(
        name,
        len(values),
        len(set(values)),
        sum(map(len, values)) / max(1, len(values)),
        spaced=share(lambda value: " " in value),
        numeric=share(is_number),
        dated=share(DATE.match),
        foreign=share(lambda value: not value.isascii()),
    )


def is_number(value):
    try:
        return float(value) is not None
    except ValueError:
        return False


def choose(source, columns, task, text, targets):
    """The Choice for a Source. columns: its [Column]; task, text: of the flags, or None; targets: {task: column of its
    flag, or None}. Raises InputError, with the columns and the flags, if the columns leave it open."""
    named = [name for name in targets if targets[name]]
    if len(named) > 1 or (task and named and named != [task]):
        flags = " and ".join(FLAGS[name] for name in named) + (f" with --task {task}" if task else "")
        raise InputError(f"{flags}: a task has one target, name the column of that one")
    given = {"task": task or next(iter(named), None)}
    given["text"] = text and asked(source, columns, text)
    given["target"] = asked(source, columns, targets[named[0]]) if named else None
    task = given["task"] or guessed_task(columns, given["text"])
    target = given["target"] or guessed_target(task, columns, given["text"])
    text = given["text"] or (target and guessed_text(task, columns, target))
    if not (task and target and text) or text == target:
        raise still_open(source, task, text, target)
    because = {column.name: described(column) for column in (text, target)}
    guessed = tuple(name for name, value in given.items() if not value)
    return Choice(task, {"text": text.name, "target": target.name}, because, guessed)


def asked(source, columns, name):
    """The Column that a flag names. Raises InputError if there is none."""
    found = source.column(name)
    if found is None:
        raise InputError(f"{source.path.name} has no column {name}; its columns are {', '.join(source.columns)}")
    return next(column for column in columns if column.name == found)


def called(columns, role):
    """The columns whose name says that they are a `role`, the clearest name first."""
    return sorted((c for c in columns if c.called(role)), key=lambda c: NAMES[role].index(c.name.lower().strip()))


def guessed_task(columns, text):
    """The task that the columns are for, or None."""
    texts = [column for column in columns if column.may_be_text]
    if called(columns, "summary") and len(texts) > 1:
        return "summarization"
    if called(texts, "instruction") and called(columns, "answer"):
        return "instructions"
    if guessed_target("classification", columns, text):
        return "classification"
    return "summarization" if guessed_target("summarization", columns, text) else None


def guessed_target(task, columns, text):
    """The Column of the target, or None. text: the Column of the text, or None if no flag names it."""
    others = [column for column in columns if column != text]
    if task == "classification":
        likely = [column for column in others if column.may_be_label]
        if called(likely, "label"):
            return called(likely, "label")[0]
        likely = [column for column in likely if column.distinct > 1 and not column.called("text")]
        words = [column for column in likely if column.numeric < 0.5] or likely
        return words[0] if len(words) == 1 else None
    if task and called(others, ROLES[task]):
        return called(others, ROLES[task])[0]
    texts = sorted((column for column in others if column.may_be_text), key=lambda column: column.characters)
    if text:
        return texts[0] if len(texts) == 1 else None
    if task == "summarization" and len(texts) == 2 and texts[0].characters <= SUMMARY_SHARE * texts[1].characters:
        return texts[0]
    return None


def guessed_text(task, columns, target):
    """The Column of the text, or None: one with a telling name, else one that is longer than all others by half."""
    others = [column for column in columns if column != target and column.filled]
    if task == "instructions" and called(others, "instruction"):
        return called(others, "instruction")[0]
    texts = [column for column in others if column.may_be_text]
    words = [column for column in others if column.distinct > 1 and column.numeric < 0.5]
    if called(words, "text"):
        return called(words, "text")[0]
    longest = sorted(texts or words, key=lambda column: -column.characters)  # names of things are short texts
    clear = len(longest) == 1 or (longest and longest[0].characters >= 1.5 * longest[1].characters)
    return longest[0] if clear else None


def described(column):
    """What the first rows say of a column, in words."""
    words = (
        f"{column.distinct:,} different values in {column.filled:,} rows, {column.characters:.0f} characters on average"
    )
    return words + (", numbers" if column.numeric > 0.5 else "")


def still_open(source, task, text, target):
    """The InputError of a guess that fails."""
    flags = FLAGS[task] if task else " or ".join(FLAGS.values())
    flags = " and ".join(([] if text else ["--text_column"]) + ([] if target else [flags])) or "--text_column"
    what = "the text" if target else f"the {ROLES.get(task, 'label, summary or answer')}"  # a text is sought last
    listed = ", ".join(source.columns) or "none"
    return InputError(f"{source.path.name}: which column is {what}? Its columns are {listed}; name it with {flags}")
