"""Read the answers of runs; read and append people's ratings."""

import fcntl
import json
import os
from pathlib import Path

from common.console import InputError
from common.runs import records

SCALE = range(1, 6)
FILE = "ratings.jsonl"  # beside the records


def answers(path):
    """[{"prompt", "reference", "answer"}], one for each test row, of the record at `path`.

    They come from answers.jsonl, which is beside a record.json, else in the folder of the record's run under
    experiments/. Raises InputError if that file is missing or damaged.
    """
    path = Path(path).resolve()
    records.checked(path)
    file, rows = records.folder(path) / "answers.jsonl", []
    try:
        lines = file.read_bytes().strip().split(b"\n")
    except OSError as error:
        reason = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise InputError(f"no answers to rate: {file} {reason}; it is written by the run that writes {path}") from None
    for number, line in enumerate(lines, 1):
        row = parsed(line)
        texts = {name: row.get(name) for name in ("prompt", "reference", "answer")} if isinstance(row, dict) else {}
        if not texts or not all(isinstance(text, str) for text in texts.values()):
            raise InputError(f"{file}:{number} is not a row with the texts prompt, reference and answer")
        rows.append(texts)
    return rows


def parsed(line):
    """The value of a line of JSON; None if the line is not JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def same_rows(paths):
    """{path: answers} of several records. Raises InputError unless they answered the same prompts in the same order."""
    rows_of = {path: answers(path) for path in paths}
    prompts = [[row["prompt"] for row in rows] for rows in rows_of.values()]
    for path, texts in zip(rows_of, prompts, strict=True):
        if texts != prompts[0]:
            raise InputError(f"{path} and {paths[0]} did not answer the same prompts in the same order")
    return rows_of


def is_score(value):
    return type(value) is int and value in SCALE  # a bool is an int, too


def is_rating(value):
    """Whether `value` is the value of a line of a ratings file."""
    if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in ("record", "rater")):
        return False
    return type(value.get("row")) is int and is_score(value.get("score")) and "\0" not in value["record"]


def read(path):
    """{(record, row, rater): score} of a ratings file, {} if it does not exist; record: absolute path as a string.

    The last line with the same key counts. A line that a kill cut short is skipped: the page had not yet shown its
    rating as saved. Raises InputError for any other line that is not a rating.
    """
    path, scores = Path(path).resolve(), {}
    try:
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; name another file with --scores") from None
    for number, line in enumerate(lines, 1):
        rating = parsed(line)
        if rating is None and (not line or line.startswith(b'{"record'[: len(line)])):
            continue
        if not is_rating(rating):
            raise InputError(f"{path}:{number} is not a rating; correct it or name another file with --scores")
        record = str((path.parent / rating["record"]).resolve())
        scores[record, rating["row"], rating["rater"]] = rating["score"]
    return scores


def append(path, rating):
    """Append a rating to the file as a line; the line is on the disk when this returns."""
    with open(path, "a+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # several raters may share the file
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - 1))
        needs_line_end = stream.read(1) not in (b"", b"\n")
        stream.write(b"\n" * needs_line_end + json.dumps(rating).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
