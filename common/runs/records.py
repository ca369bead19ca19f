"""One small JSON a run: identity, scores, data, time, memory, cost, versions. Tables are made of these.

The shape is `record.schema.json` beside this file; `python -m common records FILE…` validates. A value that is not
known is null, never 0. What a run's folder holds is said by its run.json (`run.schema.json`).
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
    """Where the run that wrote the record at `path` keeps its other files (adapter, answers): beside a record.json,
    else under experiments/ of the same model folder."""
    path = Path(path).resolve()
    return path.parent if path.name == "record.json" else path.parent.parent / "experiments" / path.stem


def checked(path):
    """The record at `path`. InputError, with the path, if there is none or it is not valid."""
    record = files.read_json(path)
    validate(record, "record.schema.json", path)
    check_id(record, path)
    for name, metric in {**(record["metrics"] or {}), **(record["metrics_before"] or {})}.items():
        value, around = metric["value"], metric["ci95"]
        if value is not None and around and not around[0] <= value <= around[1]:
            raise InputError(f"{path}: {name} lies outside its own interval")
    return record


def run_of(folder):
    """What run.json of a run's folder says: {"id", "identity", "source", …}. InputError if it is not a run's."""
    path = Path(folder) / "run.json"
    run_json = files.read_json(path)
    validate(run_json, "run.schema.json", path)
    check_id(run_json, path)
    return run_json


def check_id(record, path):
    """The hash is what names files and joins tables: it must be that of the fields beside it."""
    if identity.digest(record["identity"]) != record["id"]:
        raise InputError(f"{path}: the id is not that of the identity beside it; the file was changed by hand")


@functools.cache
def validator(schema):
    """The validator of a schema: a file beside this one, or a path."""
    import jsonschema
    import referencing

    here = Path(__file__).parent
    read = lambda name: referencing.Resource.from_contents(json.loads((here / name).read_text("utf-8")))  # noqa: E731
    registry = referencing.Registry(retrieve=read)
    return jsonschema.Draft202012Validator(json.loads((here / schema).read_text("utf-8")), registry=registry)


def validate(value, schema="record.schema.json", path="record"):
    """Raises InputError naming the first field of `value` that breaks `schema`."""
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
    """What git says, or None where there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(files.ROOT), *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def main(words):
    """`python -m common records FILE…`: validate them."""
    parser = flags.Parser(prog="python -m common records", description="Validate records.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="record of a run")
    for path in parser.parse_args(words).files:
        checked(path)
        say(f"{path}: valid")
