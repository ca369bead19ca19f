"""Training steps of the true 7B and 13B shapes on this machine's CUDA card, beside stock TRL.

    python -m common bench gpu              every cell that assets/bench_gpu.json lacks for this card
    python -m common bench gpu --again      all of them anew

Weights are random, of the shapes that the folders' model.py states: nothing is downloaded. A cell is a model, LoRA on
bfloat16 weights or QLoRA on NF4, and a row's length; here and TRL with its defaults take turns, each in a process of
its own, on the same rows (7 of 8 tokens are a prompt's). In QLoRA's cells both sides keep the weights in 4 bits, though
scripts here keep them dequantised where the memory allows. Peak memory is what tensors took at most. The share of the
card's matrix-product rate counts the products of the linear layers alone, recomputed ones not: four operations a weight
and six an adapter's weight for every token. Making the 13B weights takes 26 GB of memory and of disk for a while.
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
from common.runs import flags, folders, records

RESULT = files.ROOT / "assets" / "bench_gpu.json"
KINDS = {"LoRA bf16": False, "QLoRA NF4": True}  # -> whether in 4 bits
LENGTHS = {512: 8, 2048: 2}  # tokens a row -> rows a step
SIDES = {"TRL": "trl_sft", "here": "ours_sft"}
STEPS = 8


def main(words):
    """`python -m common bench gpu …`"""
    parser = flags.Parser(prog="python -m common bench gpu", description=__doc__)
    parser.add_argument("--runs", type=flags.positive(int), default=3, help="runs of each side, in turn (default: 3)")
    parser.add_argument("--again", action="store_true", help="measure cells that have figures as well")
    parser.add_argument("--output", type=Path, default=RESULT, help="where the figures go, cell by cell")
    args = parser.parse_args(words)
    import torch

    if not torch.cuda.is_available():
        raise InputError("this takes a CUDA card, and there is none; python -m common bench measures on a CPU")
    card = machine.device_name()
    known = files.read_json(args.output) if args.output.is_file() else {}
    kept = known if known.get("card") == card and not args.again else {"cells": {}}
    kept |= {"card": card, "date": records.now()[:10], "runs": args.runs, "rate": rate()}
    kept["packages"] = records.environment()["packages"]
    wanted = [cell for cell in cells() if key(*cell) not in kept["cells"]]
    say(f"{len(cells())} cells, {len(cells()) - len(wanted)} finished, {len(wanted)} to run, {args.runs} runs a side")
    checkpoints.cache().mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(cell[0] for cell in wanted):
        with tempfile.TemporaryDirectory(dir=checkpoints.cache()) as folder:  # gone after Ctrl-C as well
            random_weights(shapes()[name], folder)
            for cell in (each for each in wanted if each[0] == name):
                kept["cells"][key(*cell)] = measured(Path(folder), *cell[1:], args.runs, kept["rate"])
                files.write_json(args.output, kept)
    say(f"figures: {files.display(args.output)}")


def cells():
    return [(name, kind, length) for name in shapes() for kind in KINDS for length in LENGTHS]


def key(name, kind, length):
    return f"{name}, {kind}, {length} tokens"


def shapes():
    """{name: architecture} of the variants that their folder's model.py names for this bench."""
    return {
        variant.name: variant.shape
        for facts in folders.facts()
        for variant in facts.VARIANTS
        if variant.name == vars(facts).get("BENCH_GPU")
    }


def measured(folder, kind, length, runs, peak_rate):
    """{side: medians of tokens_per_second and mfu, peak_bytes, unpacked; or {"error"}} of a cell."""
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
    return {side: medians(seen, weights, peak_rate) for side, seen in results.items()}


def answer(script, task, earlier):
    """What a competitor's script says; {"error"} if the card's memory is not enough, and then not tried again."""
    if earlier and "error" in earlier[-1]:
        return earlier[-1]
    try:
        return process(sys.executable, script, task)
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        return {"error": "out of memory"}


def medians(seen, weights, peak_rate):
    if "error" in seen[-1]:
        return {"error": seen[-1]["error"]}
    speed = statistics.median(run["tokens"] / run["seconds"] for run in seen)
    return {
        "tokens_per_second": speed,
        "mfu": speed * (4 * weights + 6 * seen[-1]["trained"]) / peak_rate,
        "peak_bytes": seen[-1]["peak_bytes"],
        "unpacked": seen[-1]["unpacked"],
    }


def rows(length, count, vocabulary):
    """`count` rows of random tokens, an eighth of each the answer; ids from 3 on: the first ones are special."""
    chance, answer = random.Random(0), length // 8
    return [
        {
            "input_ids": [chance.randrange(3, vocabulary) for _ in range(length)],
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
    """Puts a checkpoint of that architecture into `folder`, with random weights in bfloat16 and the embedded model's
    tokenizer: there is one to be had without a hub, and rows are ids already."""
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
