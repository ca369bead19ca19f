"""The model folders: facts, wording and scripts as modules, published figures, records."""

import contextlib
import csv
import functools
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from common import files
from common.console import InputError
from common.runs import records

LOCAL = ("model", "prompts")  # what every folder calls alike, and its scripts import


@dataclass(frozen=True)
class Folder:
    """A model folder as tables and pictures see it. Each of `records` has "file", its path, beside its fields."""

    path: Path
    facts: object  # model.py
    published: list  # lines of published.csv
    records: list  # of results/, validated

    @property
    def name(self):
        return self.path.name

    @property
    def checkpoints(self):
        return {variant.checkpoint for variant in self.facts.VARIANTS}


@functools.cache
def load_module(path):
    """A Python file of a model folder as a module, which imports the model.py and prompts.py beside it."""
    path = Path(path).resolve()
    with neighbours(path.parent):
        spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def neighbours(home):
    """While a script is imported, `import model` means the file in its own folder."""
    kept = {name: sys.modules.pop(name) for name in LOCAL if name in sys.modules}
    sys.path.insert(0, str(home))
    try:
        yield
    finally:
        sys.path.remove(str(home))
        for name in LOCAL:
            sys.modules.pop(name, None)
        sys.modules.update(kept)


def experiment(path):
    """The EXPERIMENT of the script at `path`. Raises InputError where it is none of this repository's."""
    path = Path(path).resolve()
    if not path.is_file():
        raise InputError(f"no script {files.display(path)}")
    if path.suffix != ".py" or not (path.parent / "model.py").is_file():
        raise InputError(f"{files.display(path)} is not a script of a model folder")
    experiment_of_script = vars(load_module(path)).get("EXPERIMENT")
    if experiment_of_script is None:
        raise InputError(f"{files.display(path)} has no EXPERIMENT")
    return experiment_of_script


def model_files():
    """Every folder's model.py, as a path."""
    return sorted(files.ROOT.glob("*/model.py"))


def facts():
    """Every folder's model.py, as a module."""
    return [load_module(path) for path in model_files()]


def home(checkpoint):
    """(facts, Variant) of the folder whose checkpoint it is, or None."""
    return next(
        ((each, variant) for each in facts() for variant in each.VARIANTS if variant.checkpoint == checkpoint), None
    )


def read(path):
    """The Folder at `path`."""
    with open(path / "published.csv", encoding="utf-8", newline="") as stream:
        published = list(csv.DictReader(stream))
    kept = [{**records.checked(file), "file": file} for file in sorted((path / "results").glob("*.json"))]
    return Folder(path, load_module(path / "model.py"), published, kept)


def all_folders():
    return [read(file.parent) for file in model_files()]


def named(names, all_of_them):
    """Those of the folders that the command line names, or all. Raises InputError for one that is not there."""
    known = {folder.name: folder for folder in all_of_them}
    unknown = [name for name in names if name.rstrip("/") not in known]
    if unknown:
        raise InputError(f"no model folder {', '.join(unknown)}; there are: {', '.join(known)}")
    return [known[name.rstrip("/")] for name in names] or all_of_them
