"""The record of a run, a small JSON file: identity, scores, data, time, memory, cost, versions. Tables show records.

`record.schema.json` beside this file describes it; `python -m common records FILE…` validates records. An unknown value
is null, never 0. The run.json in a run's folder (`run.schema.json`) says which run the folder belongs to.
"""

import datetime
import functools
import json
import os
import platform
import subprocess
from pathlib import Path

from common import files, machine
from common.console import InputError, say
from common.runs import flags, identity

SCHEMA_VERSION = 2
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate", "rouge-score", "numpy")


def now():
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def folder(path):
    """The folder with the other files (adapter, answers) of the run that wrote the record at `path`: the folder of a
    record.json, else one under experiments/ of the same model folder."""
    path = Path(path).resolve()
    return path.parent if path.name == "record.json" else path.parent.parent / "experiments" / path.stem


def checked(path):
    """The record at `path`. Raises InputError, with the path, if it is missing or not valid."""
    record = files.read_json(path)
    validate(record, "record.schema.json", path)
    check_id(record, path)
    for name, metric in {**(record["metrics"] or {}), **(record["metrics_before"] or {})}.items():
        value, interval = metric["value"], metric["ci95"]
        if value is not None and interval and not interval[0] <= value <= interval[1]:
            raise InputError(f"{path}: {name} lies outside its own interval")
    return record


def run_of(folder):
    """The fields of run.json in a run's folder: {"id", "identity", "source", …}. Raises InputError if not valid."""
    path = Path(folder) / "run.json"
    run_json = files.read_json(path)
    validate(run_json, "run.schema.json", path)
    check_id(run_json, path)
    return run_json


def weights_of(folder):
    """Path of the weights of a finished training in `folder`; None if there are none."""
    weights = [folder / "adapter" / "adapter_model.safetensors", folder / "model" / "model.safetensors"]
    finished = (folder / "training.json").is_file()  # written last
    return next((file for file in weights if finished and file.is_file()), None)


def located(target):
    """(folder of the run that `target`, its record or its folder, belongs to; Path of the weights of its finished
    training, None if there are none). Raises InputError for a record that is missing or not valid."""
    path = files.expanded(target).resolve()
    if not path.is_dir():
        checked(path)
        path = folder(path)
    return path, weights_of(path) if (path / "run.json").is_file() else None


def check_id(record, path):
    """Raises InputError if the id is not the hash of the identity: files and tables rely on it."""
    if identity.digest(record["identity"]) != record["id"]:
        raise InputError(f"{path}: the id is not that of the identity beside it; the file was changed by hand")


@functools.cache
def validator(schema):
    """The jsonschema validator of a schema: the name of a file beside this one, or a path."""
    import jsonschema
    import referencing

    here = Path(__file__).parent
    read = lambda name: referencing.Resource.from_contents(json.loads((here / name).read_text("utf-8")))  # noqa: E731
    registry = referencing.Registry(retrieve=read)
    return jsonschema.Draft202012Validator(json.loads((here / schema).read_text("utf-8")), registry=registry)


def validate(value, schema="record.schema.json", path="record"):
    """Raises InputError with the first field of `value` that does not match `schema`."""
    try:
        error = next(iter(sorted(validator(schema).iter_errors(value), key=lambda e: list(map(str, e.path)))), None)
    except RecursionError:
        raise InputError(f"{path} is nested too deeply") from None
    if error:
        where = "/".join(map(str, error.path)) or "(top)"
        raise InputError(f"{path}: field {where}: {error.message[:200]}")


def environment():
    from importlib import metadata

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "packages": versions,
        "device": machine.device_name(),
        "cpu_count": os.cpu_count(),
        "git_commit": git("rev-parse", "HEAD"),
        "git_dirty": {None: None, "": False}.get(git("status", "--porcelain", "--untracked-files=no"), True),
    }


def git(*words):
    """The output of a git command; None without git or a repository."""
    try:
        completed = subprocess.run(
            ["git", "-C", str(files.ROOT), *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return completed.stdout.strip() if completed.returncode == 0 else None


def main(words):
    """`python -m common records FILE…`: validate records."""
    parser = flags.Parser(prog="python -m common records", description="Validate records.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="record of a run")
    for path in parser.parse_args(words).files:
        checked(path)
        say(f"{path}: valid")
