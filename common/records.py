"""One small JSON a run: scores, settings, data, time, memory, cost, versions. Tables are made of these.

The shape is `record.schema.json` beside this file; `python -m common.records FILE…` validates.
A value that is not known is null, never 0.
"""

import datetime
import json
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

from common import machine
from common.console import InputError, exit_code, say

SCHEMA_VERSION = 1
ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate", "rouge-score", "numpy")


def now():
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


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
    half.write_text(text, encoding="utf-8")
    os.replace(half, path)


def finite(value):
    """`value` with NaN and infinities, which JSON does not have, as None."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def finish(run, data, scores):
    """The last stage of every script that scores: write the record, print the small table and its path.

    scores: {"base": metrics or None, "tuned": metrics or None, "inference": {...}} from evaluation.py.
    """
    from common import budget, tables

    final = scores["tuned"] or scores["base"]
    seconds = sum(part["seconds"] or 0 for part in (run.training, scores["inference"]) if part)
    price = run.args.price_per_hour
    arguments = {
        name: value for name, value in vars(run.args).items() if name not in ("output_dir", "resume", "dry_run")
    }
    record = {
        "schema_version": SCHEMA_VERSION,
        "status": "done",
        "model": run.variant.name,
        "checkpoint": run.checkpoint.name,
        "revision": run.checkpoint.revision,
        "task": run.task,
        "method": run.method,
        "setting": run.setting,
        "arguments": arguments,
        "settings": run.settings,
        "seed": run.args.seed,
        "data": {**data.summary(), "truncated": run.truncated},
        "metrics": final,
        "metrics_before": scores["base"] if scores["tuned"] else None,
        "confusion": run.confusion or None,
        "training": run.training,
        "estimate": budget.compared(run.estimate, run.training),
        "inference": scores["inference"],
        "cost": {
            "usd": round(price * seconds / 3600, 6) if price else None,
            "price_per_hour": price,
            "instance": run.args.instance,
        },
        "environment": run.environment,
        "started_at": run.started_at,
        "finished_at": now(),
    }
    record = finite(record)
    validate(record)
    write_json(run.record_path, record)
    say(tables.small(record))
    say(f"record: {display(run.record_path)}")


def display(path):
    """A path as short as it can be typed from here."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def read(path):
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a record: {error}") from None


def folder(path):
    """Where the run that wrote the record at `path` keeps its other files (adapter, answers): beside a record.json,
    else under experiments/ of the same model folder."""
    path = Path(path).resolve()
    return path.parent if path.name == "record.json" else path.parent.parent / "experiments" / path.stem


def checked(path):
    """The record at `path`. InputError, with the path, if there is none or it is not valid."""
    record = read(path)
    try:
        validate(record)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return record


def validate(record, schema="record.schema.json"):
    """Raises InputError naming the first field that breaks `schema`, a file beside this one."""
    import jsonschema

    schema = json.loads((Path(__file__).parent / schema).read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    error = next(iter(sorted(validator.iter_errors(record), key=lambda e: list(map(str, e.path)))), None)
    if error:
        raise InputError(f"record field {'/'.join(map(str, error.path)) or '(top)'}: {error.message}")


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
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise InputError("usage: python -m common.records FILE…")
    for path in sys.argv[1:]:
        checked(path)
        say(f"{path}: valid")


if __name__ == "__main__":
    sys.exit(exit_code(main))
