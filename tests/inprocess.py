"""Scripts started within the tests' own process: what users see, without the seconds that loading libraries takes."""

import contextlib
import io
import json
import shutil
import sys
import types
from pathlib import Path

from common.runs import folders

ROOT = Path(__file__).resolve().parent.parent


def start(path, *words, main=None):
    """Start the script at `path` with these words. main: in place of its own.

    Returns what came of it: .code (of exit), .out, .err, .path and .record (of the record that its last line names, or
    None).
    """
    script = folders.load_module(Path(path))
    begin = lambda: script.EXPERIMENT.start(main or script.main, vars(script).get("answers"))  # noqa: E731
    code, out, err = captured(begin, path, *words)
    last = out.strip().splitlines()[-1] if out.strip() else ""
    path = Path(last.removeprefix("record: ")) if last.startswith("record: ") else None
    record = json.loads(path.read_text()) if path else None
    return types.SimpleNamespace(code=code, out=out, err=err, path=path, record=record)


def captured(call, *argv):
    """(code of exit, stdout, stderr) of call(), with these words as sys.argv."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    before, sys.argv = sys.argv, list(map(str, argv))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = call()
    except SystemExit as left:  # argparse
        code = left.code
    finally:
        sys.argv = before
    return code, *(stream.buffer.getvalue().decode() for stream in (out, err))


def little_training(base, folder):
    """What comes of a summarization run in `folder`, as short as it can be, of the model in `base` on the sample."""
    words = ("--demo", "--pretrained_ckpt", base, "--precision", "float32", "--epochs", "1", "--max_train_samples", "4")
    words += ("--max_test_samples", "2", "--max_new_tokens", "2", "--no_before", "--output_dir", folder)
    return done(ROOT / "mistral" / "mistral_summarization.py", *words)


def done(path, *words, **keywords):
    """`start` for a run that has to end well."""
    run = start(path, *words, **keywords)
    assert run.code == 0, run.out[-2000:] + run.err[-4000:]
    return run


def refused(run, *mentions):
    """Asserts that a run was refused: exit code 2, and one line on stderr that mentions these."""
    assert run.code == 2, run.out + run.err
    assert run.err.count("\n") == 1, run.err
    assert run.err.startswith("error: ")
    for mention in mentions:
        assert mention in run.err, run.err


def folder_of(checkpoint, home, like="mistral", parameters=200_000):
    """A copy of the model folder `like` at `home`, whose own first checkpoint is the local folder `checkpoint`."""
    ignored = shutil.ignore_patterns("experiments", "results", "__pycache__")
    shutil.copytree(ROOT / like, home, ignore=ignored)
    first = folders.load_module(ROOT / like / "model.py").VARIANTS[0]
    facts = (home / "model.py").read_text()
    for old, new in (
        (f'"{first.checkpoint}"', f'"{checkpoint}"'),
        (f"{first.parameters:_}", f"{parameters:_}"),
        (f"{first.linear_parameters:_}", f"{parameters // 2:_}"),
    ):
        assert old in facts
        facts = facts.replace(old, new)
    (home / "model.py").write_text(facts)
    return home


def contents(folder):
    """{path: bytes, or where a link leads} of everything below `folder`, links not followed; {} if there is none."""
    paths = sorted(Path(folder).rglob("*")) if Path(folder).is_dir() else []
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in paths
        if path.is_symlink() or path.is_file()
    }
