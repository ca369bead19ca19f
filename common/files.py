"""Reading and writing the small files of a run: in one piece, or not at all."""

import json
import math
import os
from pathlib import Path

from common.console import InputError

ROOT = Path(__file__).resolve().parent.parent  # of the repository


def write_json(path, value):
    """Write in one piece or not at all: a kill half-way leaves the old file."""
    write_text(path, json.dumps(finite(value), indent=1, ensure_ascii=False) + "\n")


def write_lines(path, rows):
    """`write_json`, one line a row."""
    write_text(path, "".join(json.dumps(finite(row), ensure_ascii=False) + "\n" for row in rows))


def write_text(path, text):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        half.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)


def finite(value):
    """`value` with NaN and infinities, which JSON does not have, as None."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path):
    """What the JSON file at `path` holds. Raises InputError, with the path, where there is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def display(path):
    """A path as short as it can be typed from here."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)
