"""The parts of the benchmark that train: speed beside other trainers and beside other processes, where the time of a
step goes, and what passes before the first one."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import encoding, files
from common.bench.shared import line, linear_weights, process, seconds
from common.console import say
from common.runs import records

# Training puts adapters on every linear layer; the learning rate is the study's, which the folders use too.
SETTINGS = {"rows": 8, "steps": 8, "lora_r": 64, "learning_rate": 2e-4}
BUSY = "while True: pass"  # a process that keeps one core busy


def training(bench):
    """Tokens a second, without padding, of stock trainers and of this project's, after the first steps and with the
    same rows a forward pass."""
    count = SETTINGS["rows"] * SETTINGS["steps"]
    encoder = encoding.Encoder(bench.tokenizer, bench.wording.SUMMARIZATION, "chat", 512)
    rows = bench.rows("summarization", max_train_samples=count)
    prompts = [bench.tokenizer.decode(prompt) for prompt in encoding.prompts(encoder, rows.train)]
    task = {
        "folder": bench.folder,
        "rows": [
            {"prompt": prompt, "completion": row["target"]} for prompt, row in zip(prompts, rows.train, strict=True)
        ],
        "batch_size": SETTINGS["rows"],
        "steps": SETTINGS["steps"],
        "lora_r": SETTINGS["lora_r"],
        "learning_rate": SETTINGS["learning_rate"],
        "quantised": True,
    }
    masked = masked_rows(encoder, rows)
    ways = {
        "TRL, defaults": lambda _: process(sys.executable, "trl_sft", {**task, "defaults": True}),
        "TRL, no recomputation": lambda _: process(sys.executable, "trl_sft", {**task, "defaults": False}),
        "transformers Trainer and peft": lambda _: process(sys.executable, "hf_trainer", {**task, "rows": masked}),
        "here": lambda _: process(sys.executable, "ours_sft", {**task, "rows": masked, "unpacked": True}),
    }
    results = bench.alternating(ways)
    rate = {name: [run["tokens"] / run["seconds"] for run in runs] for name, runs in results.items()}
    lines = [line(f"training, {name}", rate[name], rate["here"], "tokens/s") for name in results if name != "here"]
    return {"lines": lines, "rows": rows.source}


def masked_rows(encoder, rows):
    """The training rows as token ids, with a mask of the answer's."""
    return [
        {"input_ids": row["input_ids"], "completion_mask": [int(label != -100) for label in row["labels"]]}
        for row in encoding.training_rows(encoder, rows.train, "train")
    ]


def busy(bench):
    """Tokens a second of the summarization script alone, and beside one and two processes that each keep a core
    busy."""
    count = SETTINGS["rows"] * 3

    def beside(number):
        others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(number)]
        try:
            return script(bench.home, count, tested=1)
        finally:
            for other in others:
                other.kill()
                other.wait()

    ways = {
        "alone": lambda _: beside(0),
        "beside one busy process": lambda _: beside(1),
        "beside two": lambda _: beside(2),
    }
    results = bench.alternating(ways)
    rate = {name: [run["tokens"] / run["seconds"] for run in runs] for name, runs in results.items()}
    others = [name for name in rate if name != "alone"]
    return {"lines": [line(f"training {name}, of alone", rate["alone"], rate[name], "tokens/s") for name in others]}


def step(bench):
    """The seconds of a training step, by part."""
    rows = bench.rows("summarization", max_train_samples=SETTINGS["rows"] * SETTINGS["steps"])
    encoder = encoding.Encoder(bench.tokenizer, bench.wording.SUMMARIZATION, "chat", 512)
    task = SETTINGS | {"folder": bench.folder, "precision": bench.dtype, "quantised": True, "unpacked": True}
    task |= {"batch_size": SETTINGS["rows"], "rows": masked_rows(encoder, rows)}
    runs = [process(sys.executable, "ours_step", task) for _ in range(bench.args.runs)]
    parts = {name: statistics.median(run["parts"][name] for run in runs) for name in runs[0]["parts"]}
    total = sum(parts.values())
    for name, spent in sorted(parts.items(), key=lambda part: -part[1]):
        say(f"  {name.ljust(34)} {spent:6.3f} s {spent / total:6.1%}")
    return {"lines": [], "step": {"seconds": total, "parts": parts}, "rows": rows.source}


def start(bench):
    """Seconds from the command to the end of the first training step, by part: when the script printed what."""
    marks = {"data: ": "Python and rows", "  plan": "libraries", "training: ": "model and estimate"}
    runs = []
    for _ in range(bench.args.runs):
        with tempfile.TemporaryDirectory() as folder:
            parts, command = {}, script_command(bench.home, SETTINGS["rows"], folder, tested=1)
            began = last = time.monotonic()
            streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
            child = subprocess.Popen(command, **streams, env=environment())
            for text in child.stdout:
                if name := next((marks[mark] for mark in marks if text.startswith(mark)), None):
                    parts[name], last = time.monotonic() - last, time.monotonic()
            if child.wait():
                raise RuntimeError(f"{command[1]} ended with {child.returncode}")
            parts["first step"] = records.checked(Path(folder, "run", "record.json"))["training"]["seconds"]
            parts["all"] = last - began + parts["first step"]
        runs.append(parts)
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    for name, spent in medians.items():
        say(f"  {name.ljust(20)} {spent:6.2f} s")
    return {"lines": [], "start": medians}


def script(home, count, precision="auto", tested=32):
    """Run the folder's summarization script on `count` training rows; returns seconds, tokens and trainable_parameters
    of its record."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*script_command(home, count, folder, tested), "--precision", precision]
        process = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
        if process.returncode:
            raise RuntimeError(f"{command[1]} ended with {process.returncode}:\n{process.stderr[-3000:]}")
        report = records.checked(Path(folder, "run", "record.json"))["training"]
    return {name: report[name] for name in ("seconds", "tokens", "trainable_parameters")}


def environment():
    """The environment of a script: it imports this checkout, whichever one is installed."""
    return {**os.environ, "PYTHONPATH": str(files.ROOT)}


def script_command(home, count, folder, tested=32):
    """The command of the folder's summarization script for `count` training rows and `tested` test rows."""
    command = [sys.executable, str(home / f"{home.name}_summarization.py"), "--pretrained_ckpt", home.name]
    command += ["--full_tune", "--no_before", "--lora_r", str(SETTINGS["lora_r"]), "--epochs", "1"]
    command += ["--batch_size", str(SETTINGS["rows"]), "--learning_rate", str(SETTINGS["learning_rate"])]
    command += ["--max_train_samples", str(count), "--max_test_samples", str(tested), "--output_dir", f"{folder}/run"]
    return command + ([] if os.environ.get("DATA_DIR") else ["--demo"])


def flops(bench):
    """FLOP/s of training and prefill, compared with the rate of plain matrix products on this machine."""
    import torch

    size, products = 2048, []
    matrix = torch.ones((size, size), dtype=getattr(torch, bench.dtype))
    for _ in range(3 * bench.args.runs):
        began = time.monotonic()
        for _ in range(10):
            matrix @ matrix
        products.append((time.monotonic() - began) / 10)
    rate = 2 * size**3 / min(products)
    prompts, _ = bench.dialogues()
    count = SETTINGS["rows"] * 10
    results = bench.alternating(
        {
            "prefill": lambda _: bench.ours("prefill", prompts=prompts, dtype=bench.dtype),
            "training": lambda _: script(bench.home, count, bench.dtype),
        }
    )
    weights = linear_weights(bench.folder)
    adapter, tokens = (results["training"][0][name] for name in ("trainable_parameters", "tokens"))
    # Matrix products of the linear layers, without attention: a token takes two operations a weight forward, two for
    # the gradients of the inputs, and two more for the gradients of an adapter's weights.
    work = {
        "prefill": 2 * weights * sum(map(len, prompts)),
        "training": (4 * weights + 6 * adapter) * tokens,
    }
    lines = [
        line(
            f"{name}, share of the matrix-product rate",
            [rate] * bench.args.runs,
            [work[name] / duration for duration in seconds(results[name])],
            "FLOP/s",
        )
        for name in work
    ]
    return {"lines": lines}
