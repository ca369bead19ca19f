"""Reads and writes the small files of a run. Writing is atomic."""

import json
import math
import os
from pathlib import Path

from common.console import InputError

ROOT = Path(__file__).resolve().parent.parent  # the repository's folder


def write_json(path, value):
    """Write `value` as JSON, atomically: a kill in mid-write leaves the old file."""
    write_text(path, json.dumps(finite(value), indent=1, ensure_ascii=False) + "\n")


def write_lines(path, rows):
    """Write rows as JSON lines, atomically."""
    write_text(path, "".join(json.dumps(finite(row), ensure_ascii=False) + "\n" for row in rows))


def write_text(path, text):
    """Write `text` to a temporary file beside `path`, then rename it. Makes the folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def finite(value):
    """`value` with None in place of NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path):
    """The value in the JSON file at `path`. Raises InputError, with the path, if it cannot be read or parsed."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def expanded(path):
    """The Path with a leading ~ as the home folder; the name of an unknown user stays (pathlib would raise)."""
    return Path(os.path.expanduser(path))


def display(path):
    """The path relative to the working directory, if it lies below that."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)
