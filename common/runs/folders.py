"""The model folders: their model.py, prompts.py and scripts as modules, their published figures and their records."""

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

LOCAL = ("model", "prompts")  # modules of the same name in every folder, which its scripts import


@dataclass(frozen=True)
class Folder:
    """A model folder, for tables and pictures. Each of `records` has its fields and "file", its path."""

    path: Path
    facts: object  # model.py
    published: list  # lines of published.csv, as dicts
    records: list  # validated records in results/, as dicts

    @property
    def name(self):
        return self.path.name

    @property
    def checkpoints(self):
        return {variant.checkpoint for variant in self.facts.VARIANTS}


@functools.cache
def load_module(path):
    """The module of a Python file in a model folder; it imports the model.py and prompts.py of the same folder."""
    path = Path(path).resolve()
    with neighbours(path.parent):
        spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def neighbours(home):
    """A context in which `import model` and `import prompts` import the files of the folder `home`."""
    saved = {name: sys.modules.pop(name) for name in LOCAL if name in sys.modules}
    sys.path.insert(0, str(home))
    try:
        yield
    finally:
        sys.path.remove(str(home))
        for name in LOCAL:
            sys.modules.pop(name, None)
        sys.modules.update(saved)


def experiment(path):
    """The EXPERIMENT of the script at `path`. Raises InputError if `path` is not a script of a model folder."""
    path = Path(path).resolve()
    if not path.is_file():
        raise InputError(f"no script {files.display(path)}")
    if path.suffix != ".py" or not (path.parent / "model.py").is_file():
        raise InputError(f"{files.display(path)} is not a script of a model folder")
    experiment_of_script = vars(load_module(path)).get("EXPERIMENT")
    if experiment_of_script is None:
        raise InputError(f"{files.display(path)} has no EXPERIMENT")
    return experiment_of_script


def experiments(folder):
    """[Experiment] of the scripts of a model folder."""
    paths = [path for path in sorted(Path(folder).glob("*.py")) if path.stem not in LOCAL]
    found = [vars(load_module(path)).get("EXPERIMENT") for path in paths]
    return [each for each in found if each]


def script(folder, kind, task):
    """The Experiment of this kind for a task in a model folder; None if there is none."""
    return next((each for each in experiments(folder) if each.kind == kind and task in each.by_task), None)


def model_files():
    """Paths of all folders' model.py."""
    return sorted(files.ROOT.glob("*/model.py"))


def facts():
    """All folders' model.py, as modules."""
    return [load_module(path) for path in model_files()]


def home(checkpoint):
    """(model.py as a module, Variant) of the folder that lists `checkpoint`; None if no folder does."""
    return next(
        ((each, variant) for each in facts() for variant in each.VARIANTS if variant.checkpoint == checkpoint), None
    )


def home_path(checkpoint):
    """Path of the folder that lists `checkpoint`; None if no folder does."""
    found = home(checkpoint)
    return found and Path(found[0].__file__).parent


def read(path, left_out=None):
    """The Folder at `path`. A record that is not valid raises InputError or, with the list `left_out`, is left out and
    its message appended there."""
    with open(path / "published.csv", encoding="utf-8", newline="") as stream:
        published = list(csv.DictReader(stream))
    folder_records = valid(sorted((path / "results").glob("*.json")), left_out)
    return Folder(path, load_module(path / "model.py"), published, folder_records)


def valid(paths, left_out=None):
    """The records at these paths, each with its "file". One that is not valid is treated as in `read`."""
    found = []
    for path in paths:
        try:
            found.append({**records.checked(path), "file": path})
        except InputError as error:
            if left_out is None:
                raise
            left_out.append(str(error))
    return found


def all_folders(left_out=None):
    """The Folder of every model, as `read` returns it."""
    return [read(file.parent, left_out) for file in model_files()]


def named(names, every_folder):
    """The folders with these names; all folders without a name. Raises InputError for an unknown name."""
    by_name = {folder.name: folder for folder in every_folder}
    unknown = [name for name in names if name.rstrip("/") not in by_name]
    if unknown:
        raise InputError(f"no model folder {', '.join(unknown)}; there are: {', '.join(by_name)}")
    return [by_name[name.rstrip("/")] for name in names] or every_folder
