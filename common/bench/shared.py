"""What both benches share: ways in processes of their own, competitors in an environment of their own, sums."""

import json
import os
import statistics
import subprocess
import sys
import sysconfig
from pathlib import Path

from common import checkpoints, files
from common.console import say

COMPETITORS = Path(__file__).parent / "competitors"
REQUIRED = COMPETITORS / "requirements.txt"


def process(python, script, task):
    """What competitors/SCRIPT.py prints for `task`. Raises RuntimeError with its stderr where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(files.ROOT)}
    path = COMPETITORS / f"{script}.py"
    done = subprocess.run(
        [python, str(path)], input=json.dumps(task), env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{path.name} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def competitors_python():
    """Path of a Python that has the competitors beside this project's libraries; made once."""
    home = checkpoints.cache() / "competitors"
    python, installed, wanted = home / "bin" / "python", home / "installed.txt", REQUIRED.read_text(encoding="utf-8")
    if not installed.is_file() or installed.read_text(encoding="utf-8") != wanted:
        say(f"  installing {', '.join(wanted.split())} into {home}, once (some of it is compiled: minutes)")
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
        site = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
        (Path(site) / "project.pth").write_text(sysconfig.get_paths()["purelib"], encoding="utf-8")
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIRED)], check=True)
        installed.write_text(wanted, encoding="utf-8")
    return str(python)


def line(what, plain, here, unit="s"):
    """A line of the table: medians of the runs' figures, which are seconds or rates (unit is not "s"), and by how much
    we are ahead: the median and the ends of the runs' ratios, each of figures taken side by side."""
    ratios = [a / b if unit == "s" else b / a for a, b in zip(plain, here, strict=True)]
    return {
        "what": what,
        "plain": statistics.median(plain),
        "here": statistics.median(here),
        "unit": unit,
        "ratio": statistics.median(ratios),
        "ratios": [min(ratios), max(ratios)],
    }


def seconds(runs):
    return [run["seconds"] for run in runs]


def all_rows(runs):
    """The results of all rows, from runs that had a share of the rows each."""
    return [each for run in runs for each in run["found"]]


def largest_difference(first, second):
    """The largest difference between two lists of rows of scores, what is the same for a whole row left out: white
    space at a prompt's end, which lm-evaluation-harness scores with every label, adds one number to all of them."""
    centred = [[[score - sum(row) / len(row) for score in row] for row in rows] for rows in (first, second)]
    return max(abs(a - b) for pair in zip(*centred, strict=True) for a, b in zip(*pair, strict=True))


def same(first, second):
    """Share of places where two lists agree."""
    return sum(a == b for a, b in zip(first, second, strict=True)) / len(first)


def linear_weights(folder):
    """Weights of a checkpoint's linear layers but the head."""
    from safetensors import safe_open

    total = 0
    for file in Path(folder).glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                shape = tensors.get_slice(name).get_shape()
                if len(shape) == 2 and "layers." in name:
                    total += shape[0] * shape[1]
    return total
