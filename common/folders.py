"""The model folders as tables and pictures see them: facts, published figures, records."""

import csv
import importlib.util

from common import ratings, records
from common.console import InputError


class Folder:
    """A model folder. Each of `records` has, beside what stands in its file, "name": the file's without suffix, and
    "human": the score that people gave it (ratings.human)."""

    def __init__(self, path, rated):
        self.path = path
        self.facts = load_module(path / "model.py")
        self.checkpoints = {variant.checkpoint for variant in self.facts.VARIANTS}
        with open(path / "published.csv", encoding="utf-8", newline="") as stream:
            self.published = list(csv.DictReader(stream))
        self.records = []
        for file in sorted((path / "results").glob("*.json")):
            self.records.append({**records.checked(file), "name": file.stem, "human": ratings.human(file, rated)})


def load_module(path):
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def files():
    """Every folder's model.py, as a path."""
    return sorted(records.ROOT.glob("*/model.py"))


def facts():
    """Every folder's model.py, as a module."""
    return [load_module(path) for path in files()]


def variant(checkpoint):
    """The checkpoints.Variant that a model folder has under the hub id `checkpoint`, or None."""
    return next((each for folder in facts() for each in folder.VARIANTS if each.checkpoint == checkpoint), None)


def everyone():
    """All of them, with the ratings in any folder's results/ratings.jsonl."""
    rated = {}
    for file in sorted(records.ROOT.glob(f"*/results/{ratings.FILE}")):
        rated |= ratings.read(file)
    return [Folder(file.parent, rated) for file in files()]


def named(names, all_of_them):
    """Those of the folders that the command line names, or all. Raises InputError for one that is not there."""
    known = {folder.path.name: folder for folder in all_of_them}
    unknown = [name for name in names if name.rstrip("/") not in known]
    if unknown:
        raise InputError(f"no model folder {', '.join(unknown)}; there are: {', '.join(known)}")
    return [known[name.rstrip("/")] for name in names] or all_of_them
