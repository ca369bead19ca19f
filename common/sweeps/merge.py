"""Copy records that shards of a sweep wrote elsewhere into this checkout."""

from pathlib import Path

from common import files
from common.console import InputError, say, warn
from common.runs import records


def main(words):
    """`python -m common sweep merge PATH…`; PATH: another checkout of this project, or a model folder of one."""
    if not words:
        raise InputError("give the paths of other checkouts, or of their model folders")
    copied = same = 0
    for word in words:
        root = files.expanded(word)
        if not root.is_dir():
            raise InputError(f"{word} is no folder")
        for path in found(root):
            try:
                record = records.checked(path)
            except InputError as error:
                warn(f"left out: {error}")
                continue
            target = files.ROOT / Path(record["script"]).parent / place(path)
            mine = records.checked(target) if target.is_file() else None
            if is_better(record, mine):
                files.write_text(target, path.read_text(encoding="utf-8"))
                copied += 1
                continue
            same += 1
            if mine["status"] == record["status"] and mine["metrics"] != record["metrics"]:
                warn(f"{path} has other scores than {files.display(target)}, which stays")
    return say(f"{copied} records copied, {same} were here")


def is_better(record, mine):
    """Whether a record from elsewhere takes the place of this checkout's own, which may be None."""
    return mine is None or (mine["status"] != "done" and record["status"] == "done")


def found(root):
    """Paths of the records below a checkout or a model folder."""
    patterns = ("results/*.json", "experiments/*/record.json")
    return sorted(path for pattern in patterns for deeper in ("", "*/") for path in root.glob(deeper + pattern))


def place(path):
    """Path of a record inside its model folder."""
    return Path(*path.parts[-3:]) if path.name == "record.json" else Path(*path.parts[-2:])
