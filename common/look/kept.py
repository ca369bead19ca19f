"""The files that `look` writes: FILE.look.json, what it found, and FILE.split.json, which rows are test rows.

Nothing that it did not write is replaced. A file that has a split keeps it: rows that are added later are trained on.
"""

import contextlib
import os
import tempfile
from pathlib import Path

from common import data, files, splits
from common.console import InputError, warn

WRITER = "python -m common look"  # "written_by" in both files
SCHEMA_VERSION = 1
LOADED_ROWS, LOADED_CHARACTERS = 200_000, 200_000_000  # a larger file is judged by a sample
SAMPLE = 20_000  # rows of that sample, of each file


def record_path(path):
    """FILE.look.json, beside the file or folder."""
    path = Path(os.path.abspath(path))  # "." has no name
    return path.parent / f"{path.name}.look.json"


def check(path):
    """Raises InputError if one of the two files exists and is not look's own. `data.saved_split` judges a split."""
    record = record_path(path)
    if record.exists() and not is_own(record):
        raise InputError(f"{files.display(record)} is no file that `look` wrote: move it, or add --no_save")
    data.saved_split(path)


def is_own(path):
    with contextlib.suppress(InputError):
        value = files.read_json(path)
        return isinstance(value, dict) and value.get("written_by") == WRITER
    return False


def check_columns(path, columns):
    """Raises InputError if the file's split was made for other columns: none of its rows would be found."""
    saved = files.read_json(data.split_record(path)) if data.saved_split(path) else {}
    if isinstance(saved.get("columns"), dict) and saved["columns"].get("text") != columns["text"]:
        name, column = data.split_record(path).name, saved["columns"].get("text")
        raise InputError(f"{name} keeps a split by the column {column}: name that with --text_column, or remove it")


def is_sampled(survey):
    """Whether the rows are too many to be loaded by `look`."""
    return sum(survey.read.values()) > LOADED_ROWS or survey.characters > LOADED_CHARACTERS


def sample_size(mean_characters):
    """Rows of the sample, fewer of long texts."""
    return max(1_000, min(SAMPLE, int(LOADED_CHARACTERS / max(1, mean_characters))))


@contextlib.contextmanager
def sampled(survey, choice):
    """Context of a temporary file or folder, as --data takes it, with the rows of the sample."""
    with tempfile.TemporaryDirectory(prefix="look-") as folder:
        columns = {field: column for field, column in choice.fields.items() if field in ("text", "target", "input")}
        for split, rows in survey.sample.items():
            lines = [{columns[field]: value for field, value in row.items()} for row in rows]
            files.write_lines(Path(folder) / f"{'sample' if split == 'all' else split}.jsonl", lines)
        yield Path(folder) / "sample.jsonl" if "all" in survey.sample else Path(folder)


def write_split(path, rows, choice):
    """Write FILE.split.json, if there is none, and return its path; None if it cannot be written. rows: data.Data."""
    record = data.split_record(path)
    if record.exists():
        return record
    parts = {part: sorted(map(splits.digest, getattr(rows, part))) for part in ("validation", "test")}
    about = {"written_by": WRITER, "file": Path(path).name, "seed": splits.SPLIT_SEED, "columns": choice.columns}
    return record if written(record, about | parts) else None


def write_record(path, record):
    """Write FILE.look.json and return its path; None if it cannot be written."""
    return record_path(path) if written(record_path(path), record) else None


def written(path, value):
    """Whether `value` could be written to `path`; if not, a warning says so."""
    try:
        files.write_json(path, value)
        return True
    except OSError as error:
        warn(f"cannot write {files.display(path)} ({error.strerror}): nothing is kept there")
        return False
