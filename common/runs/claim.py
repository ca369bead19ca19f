"""The folder of a run: one process at a time works in it, and it belongs to one run."""

import contextlib
import fcntl
import os
import re

from common import files
from common.console import InputError, say
from common.runs import identity, records

TEMPORARY = re.compile(r"\.(.+\.jsonl?)\.\d+")  # what files.write_text renames; a kill leaves it


@contextlib.contextmanager
def claimed(run):
    """A context that claims the run's folder, which must be empty or belong to the same run. Raises InputError if it
    holds anything else. If the input turns out to be bad, a new folder is removed."""
    folder, new = run.execution.folder, False
    created = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    with contextlib.ExitStack() as stack:
        try:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(alone(folder, run.args.resume))
                check(run, existing := os.listdir(folder))
                new = not existing
                tidy(run)
                files.write_json(folder / "run.json", description(run))
            except OSError as error:
                raise InputError(f"cannot write into {folder}: {error.strerror}; name another --output_dir") from None
            yield
        except InputError:
            if new or not os.path.isdir(folder):
                forget(folder, created)
            raise


@contextlib.contextmanager
def alone(folder, wait):
    """Context in which no other process of this machine works in `folder`. wait: for the end of the other one; without
    it raises InputError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise InputError(
                    f"another process works in {folder}: wait for it, or add --resume to go on when it has ended"
                ) from None
            say(f"waiting for the other process that works in {files.display(folder)}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # a file system without locks on folders: NFS
            pass
        yield
    finally:
        os.close(descriptor)


def check(run, existing):
    """Raises InputError if the files in the run's folder are not of this run."""
    folder = run.execution.folder
    if existing and "run.json" not in existing:
        raise InputError(f"{folder} holds files that no run wrote: name a new folder with --output_dir")
    if existing and (run_json := records.run_of(folder))["id"] != run.identity.id:
        differing = identity.differences(run_json["identity"], run.identity.fields())
        changes = ", ".join(f"{name} {one} there, {other} here" for name, (one, other) in list(differing.items())[:3])
        raise InputError(f"{folder} holds another run ({changes}): name another folder with --output_dir")


def description(run):
    """What run.json says."""
    run_json = {"schema_version": records.SCHEMA_VERSION, "id": run.identity.id, "identity": run.identity.fields()}
    return run_json | {"source": run.data.kind, "started_at": run.started_at}


def tidy(run):
    """Remove what a killed process was writing: into the run's folder, or its record."""
    for path in (run.execution.folder, run.record_path.parent):
        for name in os.listdir(path) if path.is_dir() else ():
            match = TEMPORARY.fullmatch(name)
            if match and (path == run.execution.folder or match[1] == run.record_path.name):
                os.unlink(path / name)


def forget(folder, created):
    """Remove run.json if it is the only file in `folder`, and the folders in `created` that are empty."""
    with contextlib.suppress(OSError):
        if os.listdir(folder) == ["run.json"]:
            os.unlink(folder / "run.json")
    for path in created:
        with contextlib.suppress(OSError):
            path.rmdir()
