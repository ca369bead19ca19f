"""Compare training steps of 7B and 13B models on this machine's CUDA card with stock TRL.

    python -m common bench gpu              every cell that assets/bench_gpu.json lacks for this card
    python -m common bench gpu --again      every cell, measured again

Nothing is downloaded: weights are random and have the shapes in the folders' model.py. A cell is a model, a method
(LoRA on bfloat16 weights or QLoRA on NF4) and a row length in tokens. This project and TRL with its defaults take turns
on the same rows, each in its own process; 7 of 8 tokens belong to the prompt. In QLoRA's cells both sides keep the
weights in 4 bits, although scripts here dequantise them if the memory allows it. Peak memory is the highest sum of
tensors. The share of the card's matrix-product rate counts the linear layers, without recomputation: for each token
four operations a frozen weight and six an adapter's weight. The 13B weights take 26 GB of memory and disk for a while.
"""

import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import checkpoints, files, machine
from common.bench.shared import linear_weights, process
from common.console import InputError, say
from common.runs import checks, flags, folders, records

RESULT = files.ROOT / "assets" / "bench_gpu.json"
KINDS = {"LoRA bf16": False, "QLoRA NF4": True}  # method -> whether the weights are in 4 bits
LENGTHS = {512: 8, 2048: 2}  # tokens a row -> rows a step
SIDES = {"TRL": "trl_sft", "here": "ours_sft"}
STEPS = 8


def main(words):
    """`python -m common bench gpu …`"""
    parser = flags.Parser(prog="python -m common bench gpu", description=__doc__)
    parser.add_argument("--runs", type=flags.positive(int), default=3, help="runs of each side, in turn (default: 3)")
    parser.add_argument("--again", action="store_true", help="measure also the cells that have figures")
    parser.add_argument("--output", type=Path, default=RESULT, help="JSON file of the figures, written after each cell")
    args = parser.parse_args(words)
    checks.check_places(args.output)
    import torch

    if not torch.cuda.is_available():
        raise InputError("this takes a CUDA card, and there is none; python -m common bench measures on a CPU")
    card = machine.device_name()
    recorded = files.read_json(args.output) if args.output.is_file() else {}
    results = recorded if recorded.get("card") == card and not args.again else {"cells": {}}
    results |= {"card": card, "date": records.now()[:10], "runs": args.runs, "rate": rate()}
    results["packages"] = records.environment()["packages"]
    cells_to_run = [cell for cell in cells() if key(*cell) not in results["cells"]]
    finished = len(cells()) - len(cells_to_run)
    say(f"{len(cells())} cells, {finished} finished, {len(cells_to_run)} to run, {args.runs} runs a side")
    checkpoints.cache().mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(cell[0] for cell in cells_to_run):
        with tempfile.TemporaryDirectory(dir=checkpoints.cache()) as folder:  # Ctrl-C removes it, too
            random_weights(shapes()[name], folder)
            for cell in (candidate for candidate in cells_to_run if candidate[0] == name):
                results["cells"][key(*cell)] = measured(Path(folder), *cell[1:], args.runs, results["rate"])
                files.write_json(args.output, results)
    say(f"figures: {files.display(args.output)}")


def cells():
    return [(name, kind, length) for name in shapes() for kind in KINDS for length in LENGTHS]


def key(name, kind, length):
    return f"{name}, {kind}, {length} tokens"


def shapes():
    """{name: architecture} of the variants that a folder's model.py names as BENCH_GPU."""
    return {
        variant.name: variant.shape
        for facts in folders.facts()
        for variant in facts.VARIANTS
        if variant.name == vars(facts).get("BENCH_GPU")
    }


def measured(folder, kind, length, runs, peak_rate):
    """The figures of a cell: {side: what `medians` returns}. folder: of the random weights; kind: a key of KINDS;
    length: tokens a row; runs: of each side; peak_rate: FLOP/s of the card's matrix products."""
    count, results = LENGTHS[length], {side: [] for side in SIDES}
    task = {
        "folder": str(folder),
        "rows": rows(length, count * STEPS, files.read_json(folder / "config.json")["vocab_size"]),
        "batch_size": count,
        "steps": STEPS,
        "lora_r": 64,
        "learning_rate": 2e-4,
        "quantised": KINDS[kind],
        "defaults": True,
    }
    for _ in range(runs):
        for side, script in SIDES.items():
            results[side].append(answer(script, task, results[side]))
            say(f"  {kind}, {length} tokens, {side}: {results[side][-1].get('seconds', 'out of memory')}")
    weights = linear_weights(folder)
    return {side: medians(runs_of_side, weights, peak_rate) for side, runs_of_side in results.items()}


def answer(script, task, earlier_runs):
    """The result of a side's script; {"error"} if the card's memory is not enough. After an error the script does not
    run again. earlier_runs: the side's results so far."""
    if earlier_runs and "error" in earlier_runs[-1]:
        return earlier_runs[-1]
    try:
        return process(sys.executable, script, task)
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        return {"error": "out of memory"}


def medians(runs, weights, peak_rate):
    if "error" in runs[-1]:
        return {"error": runs[-1]["error"]}
    speed = statistics.median(run["tokens"] / run["seconds"] for run in runs)
    return {
        "tokens_per_second": speed,
        "mfu": speed * (4 * weights + 6 * runs[-1]["trained"]) / peak_rate,
        "peak_bytes": runs[-1]["peak_bytes"],
        "unpacked": runs[-1]["unpacked"],
    }


def rows(length, count, vocabulary):
    """`count` rows of `length` random token ids, the last eighth of each the answer. Ids below 3 are special tokens."""
    generator, answer = random.Random(0), length // 8
    return [
        {
            "input_ids": [generator.randrange(3, vocabulary) for _ in range(length)],
            "completion_mask": [0] * (length - answer) + [1] * answer,
        }
        for _ in range(count)
    ]


def rate():
    """FLOP/s of a large bfloat16 matrix product on the card."""
    import torch

    size, seconds = 8192, []
    matrix = torch.randn((size, size), dtype=torch.bfloat16, device="cuda")
    for _ in range(5):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(20):
            matrix @ matrix
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - began) / 20)
    del matrix
    torch.cuda.empty_cache()
    return 2 * size**3 / min(seconds)


def random_weights(shape, folder):
    """Write a checkpoint with random bfloat16 weights into `folder`; shape: arguments of AutoConfig.for_model. It gets
    the embedded model's tokenizer, which needs no hub: the rows are token ids, so any tokenizer will do."""
    import huggingface_hub
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(**shape)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    device, weights = "cuda" if torch.cuda.is_available() else "cpu", {}
    for name, value in model.state_dict().items():
        weight = torch.ones_like(value, device=device)  # a norm's
        weights[name] = (weight.normal_(0, 0.02) if value.ndim > 1 else weight).cpu()
    huggingface_hub.save_torch_state_dict(weights, folder, max_shard_size="4GB")
    config.architectures, config.dtype = [type(model).__name__], "bfloat16"
    config.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(checkpoints.prepare(checkpoints.find("smollm2"))).save_pretrained(folder)
    return folder
