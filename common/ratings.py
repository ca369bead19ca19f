"""What people said of a record's answers: where the answers are, the ratings file, the human score made of it."""

import fcntl
import json
import os
from pathlib import Path

from common import agreement, metrics, records
from common.console import InputError

SCALE = range(1, 6)
FILE = "ratings.jsonl"  # beside records, where tables look for it


def answers(path):
    """[{"prompt", "reference", "answer"}], one a test row, of the record at `path`. InputError where there are none.

    They stand in answers.jsonl: beside a record.json, else in the folder of the record's run under experiments/.
    """
    path = Path(path).resolve()
    records.checked(path)
    file, rows = records.folder(path) / "answers.jsonl", []
    if not file.is_file():
        raise InputError(f"no answers to rate: {file} is not there; it is written by the run that writes {path}")
    for number, line in enumerate(file.read_bytes().strip().split(b"\n"), 1):
        try:
            row = {name: json.loads(line)[name] for name in ("prompt", "reference", "answer")}
        except (ValueError, TypeError, KeyError):
            row = {}
        if not row or not all(isinstance(text, str) for text in row.values()):
            raise InputError(f"{file}:{number} is not a row with the texts prompt, reference and answer")
        rows.append(row)
    return rows


def same_rows(paths):
    """{path: answers} of records that answered the same prompts in the same order; InputError if they did not."""
    found = {path: answers(path) for path in paths}
    prompts = [[row["prompt"] for row in rows] for rows in found.values()]
    for path, each in zip(found, prompts, strict=True):
        if each != prompts[0]:
            raise InputError(f"{path} and {paths[0]} did not answer the same prompts in the same order")
    return found


def is_score(value):
    return type(value) is int and value in SCALE  # bool is a kind of int


def is_rating(value):
    """Is this what a line of a ratings file holds?"""
    kinds = {"record": str, "row": int, "rater": str, "score": int}
    fits = isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in kinds.items())
    return fits and is_score(value["score"])


def read(path):
    """{(record, row, rater): score} of a ratings file, {} where there is none; record: absolute path as a string.

    The last line for the same three counts. A line that a kill cut short is passed over: its rater was not told
    that it is saved. InputError for any other line that is no rating.
    """
    path, found = Path(path).resolve(), {}
    for number, line in enumerate(path.read_bytes().split(b"\n") if path.is_file() else [], 1):
        try:
            rating = json.loads(line)
        except ValueError:
            if not line or line.startswith(b'{"record'[: len(line)]):
                continue
            rating = None
        if not is_rating(rating):
            raise InputError(f"{path}:{number} is not a rating; correct it or name another file with --scores")
        record = str((path.parent / rating["record"]).resolve())
        found[record, rating["row"], rating["rater"]] = rating["score"]
    return found


def append(path, rating):
    """Add a rating to the file as a line of its own, which is on the disk when this returns."""
    with open(path, "a+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # several raters may share the file
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 1))
        cut = stream.read(1) not in (b"", b"\n")
        stream.write(b"\n" * cut + json.dumps(rating).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def human(path, ratings):
    """The human score of the record at `path`. ratings: what `read` returns.

    {"value": mean over rows of the row's mean over raters, 1 to 5, "ci95": its 95 % bootstrap interval over rows,
    "n": rated rows, "ratings": their number, "raters": their number, "alpha": Krippendorff's, ordinal, "kappa":
    Cohen's, quadratically weighted, of exactly two raters on the rows that both rated}. What is not known is None.
    """
    path, rows = str(Path(path).resolve()), {}
    for (record, row, rater), score in sorted(ratings.items()):
        if record == path:
            rows.setdefault(row, {})[rater] = score
    raters = sorted({rater for row in rows.values() for rater in row})
    units = [list(row.values()) for row in rows.values()]
    means = [sum(unit) / len(unit) for unit in units]
    score = {"value": None, "ci95": None, "n": 0}
    if rows:
        score = metrics.interval(lambda chosen: sum(means[i] for i in chosen) / len(means), len(means), scale=1)
    both = [row for row in rows.values() if len(row) == 2] if len(raters) == 2 else []
    return score | {
        "ratings": sum(map(len, units)),
        "raters": len(raters),
        "alpha": agreement.alpha(units),
        "kappa": agreement.kappa(*([row[rater] for row in both] for rater in raters), SCALE) if both else None,
    }
