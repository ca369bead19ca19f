"""Fixtures: tiny models of the true class, runs over them, scripts as users start them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads stall one another
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


def tool(home, *words, cwd=None):
    """`python -m common …` of the repository, or of such a copy of it, in `home` or in `cwd`."""
    return subprocess.run(
        [sys.executable, "-m", "common", *words],
        cwd=cwd or home,
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
    from common import checkpoints, qlora

    return qlora.tokenizer(checkpoints.find(str(tiny_folder)))


@pytest.fixture
def load(tiny_folder):
    """load(dtype="float32", folder=...) -> the 4-bit model, freshly loaded."""
    from common import checkpoints, qlora
    from common.settings import Execution

    def load(dtype="float32", folder=tiny_folder):
        return qlora.base(checkpoints.find(str(folder)), Execution(folder=Path(folder), precision=dtype))

    return load


@pytest.fixture
def packed(monkeypatch):
    """Models keep their 4-bit layers, as where memory is short."""
    from common import qlora

    monkeypatch.setattr(qlora, "UNPACK_SHARE", 0)


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
