"""What both benches share: scripts run in their own process, the competitors' environment, and sums."""

import json
import os
import statistics
import subprocess
import sys
import sysconfig
from pathlib import Path

import common
from common import checkpoints, files
from common.console import say

COMPETITORS = Path(__file__).parent / "competitors"
REQUIRED = COMPETITORS / "requirements.txt"


def process(python, script, task):
    """Run competitors/SCRIPT.py with `task` as JSON input; returns its JSON output. Raises RuntimeError with the end of
    its stderr if it fails. python: path of the interpreter."""
    ours = common.OPENMP.items()  # other tools keep their own defaults
    environment = {name: value for name, value in os.environ.items() if (name, value) not in ours}
    environment["PYTHONPATH"] = str(files.ROOT)
    path = COMPETITORS / f"{script}.py"
    completed = subprocess.run(
        [python, str(path)], input=json.dumps(task), env=environment, capture_output=True, text=True, check=False
    )
    if completed.returncode:
        raise RuntimeError(f"{path.name} ended with {completed.returncode}:\n{completed.stderr[-3000:]}")
    return json.loads(completed.stdout.strip().splitlines()[-1])


def competitors_python():
    """Path of a Python that has the competitors beside this project's libraries. The first call installs them."""
    home = checkpoints.cache() / "competitors"
    python, installed, required = home / "bin" / "python", home / "installed.txt", REQUIRED.read_text(encoding="utf-8")
    if not installed.is_file() or installed.read_text(encoding="utf-8") != required:
        say(f"  installing {', '.join(required.split())} into {home}, once (some of it is compiled: minutes)")
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        site_command = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
        site = subprocess.run(site_command, capture_output=True, text=True, check=True).stdout.strip()
        (Path(site) / "project.pth").write_text(sysconfig.get_paths()["purelib"], encoding="utf-8")
        install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIRED)]
        subprocess.run(install, check=True, env={**os.environ, **compiler_flags()})
        installed.write_text(required, encoding="utf-8")
    return str(python)


def compiler_flags():
    """Environment variables for compiling llama.cpp. Its AMX kernel ends the process on batches of several rows (issue
    20824 of ggml-org/llama.cpp), so processors with AMX use AVX512."""
    cpu = Path("/proc/cpuinfo")
    if not cpu.is_file() or "amx_int8" not in cpu.read_text(encoding="utf-8"):
        return {}
    return {"CMAKE_ARGS": "-DCMAKE_C_FLAGS=-mno-amx-int8 -DCMAKE_CXX_FLAGS=-mno-amx-int8"}


def line(what, plain, here, unit="s"):
    """A line of the table: the medians of both ways' figures, and the median and the extremes of their ratios, above 1
    where we are faster. plain, here: figures of the runs, in seconds (unit "s") or as rates (any other unit)."""
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
    """The results of all rows, from runs that each took a share of the rows."""
    return [result for run in runs for result in run["results"]]


def largest_difference(first, second):
    """The largest difference between two lists of rows of scores, each row centred on its mean. Centring removes a
    constant: lm-evaluation-harness scores the white space at a prompt's end with every label of a row."""
    centred = [[[score - sum(row) / len(row) for score in row] for row in rows] for rows in (first, second)]
    return max(abs(a - b) for pair in zip(*centred, strict=True) for a, b in zip(*pair, strict=True))


def same(first, second):
    """Share of positions (0 to 1) at which two lists agree."""
    return sum(a == b for a, b in zip(first, second, strict=True)) / len(first)


def linear_weights(folder):
    """Number of weights in a checkpoint's linear layers, without the head."""
    from safetensors import safe_open

    total = 0
    for file in Path(folder).glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                shape = tensors.get_slice(name).get_shape()
                if len(shape) == 2 and "layers." in name:
                    total += shape[0] * shape[1]
    return total
