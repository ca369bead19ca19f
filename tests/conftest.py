"""Fixtures: tiny models of the true class, runs over them, scripts as users start them."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads cost more than they give
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job and its children would ignore it

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).parent))


def copied(folder, *names):
    """A copy of the repository in `folder`: these of its folders, without what runs left in them."""
    for name in names:
        ignored = shutil.ignore_patterns("experiments", "results", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    return folder


def run_module(home, name, *words):
    """`python -m NAME` in such a copy."""
    return subprocess.run(
        [sys.executable, "-m", name, *words],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A random model of the true Mistral class with its tokenizer, as a local folder."""
    import tiny

    return tiny.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tokenizer(tiny_folder):
    from common import checkpoints, loading

    return loading.tokenizer(checkpoints.find(str(tiny_folder)))


@pytest.fixture
def load(tiny_folder):
    """load(dtype="float32", folder=...) -> the 4-bit model, freshly loaded."""
    from common import checkpoints, loading

    return lambda dtype="float32", folder=tiny_folder: loading.base(checkpoints.find(str(folder)), dtype)


@pytest.fixture
def packed(monkeypatch):
    """Models keep their 4-bit layers, as where memory is short."""
    from common import loading

    monkeypatch.setattr(loading, "SHARE", 0)


@pytest.fixture
def make_run(tiny_folder, tmp_path):
    """make_run(task="summarization", output_dir=..., **flags) -> a Run of the mistral folder's training
    script, resolved as on the command line, on the tiny model and the sample."""
    sys.path.insert(0, str(ROOT / "mistral"))
    import model
    import prompts

    from common import experiment, flags, machine

    def make(task="summarization", output_dir=tmp_path / "run", **given):
        parser = getattr(flags, task)(flags.training("test"))
        words = ["--pretrained_ckpt", str(tiny_folder), "--demo", "--output_dir", str(output_dir)]
        for name, value in given.items():
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        run = experiment.resolve(parser.parse_args(words), model, prompts, "training")
        run.settings["precision"] = machine.precision(model.PRECISION)
        return run

    yield make
    sys.path.remove(str(ROOT / "mistral"))


@pytest.fixture
def plain_args():
    """The flags that common/data.py reads, at their defaults."""
    return argparse.Namespace(
        data=None,
        demo=True,
        text_column=None,
        label_column=None,
        summary_column=None,
        max_test_samples=None,
        max_train_samples=None,
        train_sample_fraction=1.0,
    )


@pytest.fixture
def script(tiny_folder):
    """script("mistral/x.py", "--flag", …) -> CompletedProcess, run on the tiny model and the sample."""

    def start(name, *words, cwd=ROOT, tiny=True, env=None, **keywords):
        path = name if Path(name).is_absolute() else str(ROOT / name)
        extra = ["--pretrained_ckpt", str(tiny_folder), "--demo"] if tiny else []
        return subprocess.run(
            [sys.executable, path, *words, *extra],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            **keywords,
        )

    return start


def record_of(done, cwd=ROOT):
    """The record that a script's last line names, as a path from where it was started (`cwd`); fails with
    the script's output if it did not get there."""
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("record: "), last
    return json.loads(Path(cwd, last.removeprefix("record: ")).read_text())
