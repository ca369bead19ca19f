"""`make bench`: how this project's ways compare with what people would use instead: a table of ratios.

    python -m common.bench                          every part, into assets/bench.json and the front README's table
    python -m common.bench training --runs 1        one part

Every line is a ratio of two ways to the same answers on the same weights and rows, run in turn, each in a process of
its own; medians. Where rows are scored or answered, every run has its share of them. The machine's speed cancels out,
so ratios can be quoted; the figures beside them are this machine's.
Data are SAMSum and 20 Newsgroups where DATA_DIR has them, else the shipped sample. Rivals (rivals/requirements.txt) are
installed into an environment of their own, on top of the libraries that the project runs with: the same torch,
transformers and trl.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from common import checkpoints, console, data, encoding, evaluation, flags, folders, machine, records
from common.console import INTERRUPTED, InputError, say

RESULT = records.ROOT / "assets" / "bench.json"
REQUIRED = Path(__file__).parent / "rivals" / "requirements.txt"
# Of training, with adapters on every linear layer; the learning rate is that of the folders, as in the source.
SETTINGS = {"rows": 8, "steps": 5, "lora_r": 64, "learning_rate": 2e-4}


def main():
    parser = flags.Parser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--runs", type=flags.positive(int), default=3, help="runs of each way, in turn (default: 3)")
    parser.add_argument(
        "--posts", type=flags.positive(int), default=40, help="posts whose labels are scored (default: 40)"
    )
    parser.add_argument(
        "--dialogues", type=flags.positive(int), default=32, help="dialogues that are summarized (default: 32)"
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        help="what scoring and writing compute in (default: what scripts here do)",
    )
    parser.add_argument("--without", action="append", default=[], metavar="WAY", help="leave out ways of this name")
    parser.add_argument("--output", type=Path, default=RESULT, help="where the figures go, part by part")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        raise InputError(f"no part {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    if args.runs > min(args.posts, args.dialogues):
        raise InputError(f"every one of {args.runs} runs takes its share of the rows: give it one at least")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    bench, wanted = Bench(args), args.parts or list(PARTS)
    for number, name in enumerate(wanted):
        say(f"{name}:")
        try:
            found = PARTS[name][0](bench)
        except KeyboardInterrupt:
            say(f"\ninterrupted; finished parts are kept. Left, with the same flags: {' '.join(wanted[number:])}")
            raise SystemExit(INTERRUPTED) from None
        for line in found["lines"]:
            say(f"  {line['what']}: {line['ratio']:.2f}")
        kept = records.read(args.output) if args.output.is_file() else {}
        told = bench.circumstances(name)
        records.write_json(args.output, kept | {told["command"]: found | told})
    say(f"figures: {records.display(args.output)}")


class Bench:
    """What the parts share: weights, tokenizer, rows, and processes to run ways in."""

    def __init__(self, args):
        import transformers

        self.args = args
        self.dtype = args.dtype or machine.precision()
        self.folder = str(checkpoints.prepare(checkpoints.find("smollm2")))
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
        # Any folder that tunes adapters will do: all of them run the same code on the stand-in.
        self.home = next(path.parent for path in folders.files() if folders.load_module(path).LORA_R)
        self.wording = folders.load_module(self.home / "prompts.py")

    def circumstances(self, name):
        asked = {flag: getattr(self.args, flag) for flag in (*PARTS[name][1], "runs")}
        words = [f"--{flag} {value}" for flag, value in asked.items() if value]
        words += [f'--without "{way}"' for way in self.args.without]
        return {
            "date": records.now()[:10],
            "device": machine.device_name(),
            "cores": os.cpu_count(),
            "runs": self.args.runs,
            "dtype": self.dtype,
            "command": " ".join([name, *words]),
            "packages": records.environment()["packages"],
        }

    def rows(self, dataset, labelled, **limits):
        asked = {"data": None, "text_column": None, "max_train_samples": None, "max_test_samples": None}
        asked |= {"train_sample_fraction": 1.0, "demo": not os.environ.get("DATA_DIR")}
        return data.load(dataset, argparse.Namespace(**asked), labelled, limits)

    def posts(self):
        """(20 Newsgroups' rows, prompts, the labels' ids)."""
        found = self.rows(data.NEWSGROUPS, True, test=self.args.posts)
        encoder = encoding.Encoder(self.tokenizer, self.wording.CLASSIFICATION, "chat", 192, 2048, found.labels)
        prompts = [encoder.prompt(row["text"]) for row in found.test]
        return found, prompts, [encoder.answer(label) for label in found.labels]

    def dialogues(self):
        """(prompts of SAMSum's dialogues, what ends an answer)."""
        encoder = encoding.Encoder(self.tokenizer, self.wording.SUMMARIZATION, "chat", 512, 2048)
        found = self.rows(data.SAMSUM, False, test=self.args.dialogues)
        return [encoder.prompt(row["text"]) for row in found.test], encoder.stop

    def share(self, rows):
        """In words, how many rows there are."""
        runs = self.args.runs
        return f"{len(rows)}" if runs == 1 else f"{len(rows)} (a run: {len(rows) // runs})"

    def ours(self, way, **task):
        return process(sys.executable, "ours", {"way": way, "folder": self.folder, "batch_size": 16, **task})

    def alternating(self, ways, rows=()):
        """{name: what each run found} of functions run in turn. Where there are rows, each run is called with its share
        of them: the first, the second, …"""
        rivals = [name for name in ways if name != "here"]
        if unknown := set(self.args.without) - set(rivals):
            raise InputError(f"--without {', '.join(unknown)}: what can be left out is {', '.join(rivals)}")
        ways = {name: way for name, way in ways.items() if name not in self.args.without}
        found, runs = {name: [] for name in ways}, self.args.runs
        for run in range(runs):
            share = rows[run * len(rows) // runs : (run + 1) * len(rows) // runs]
            for name, way in ways.items():
                found[name].append(way(share))
                say(f"  {run + 1} of {runs}, {name}: {found[name][-1]['seconds']:.1f} s")
        return found


def process(python, rival, task):
    """What a script of common/rivals prints for `task`."""
    script = Path(__file__).parent / "rivals" / f"{rival}.py"
    environment = {**os.environ, "PYTHONPATH": str(records.ROOT)}
    done = subprocess.run(
        [python, str(script)], input=json.dumps(task), env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{script.name} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def rivals():
    """Path of a Python that has the rivals beside this project's libraries; made once."""
    home = checkpoints.cache() / "rivals"
    python, done, wanted = home / "bin" / "python", home / "installed.txt", REQUIRED.read_text()
    if not done.is_file() or done.read_text() != wanted:
        say(f"  installing {', '.join(wanted.split())} into {home}, once (some of it is compiled: minutes)")
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
        site = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
        (Path(site) / "project.pth").write_text(sysconfig.get_paths()["purelib"])
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIRED)], check=True)
        done.write_text(wanted)
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
    """What was found in every row, from runs that had a share of the rows each."""
    return [each for run in runs for each in run["found"]]


def training(bench):
    """(a) tokens a second, padding not counted, of a stock TRL script and of the summarization script; (f) the latter's
    time outside training and testing."""
    count = SETTINGS["rows"] * SETTINGS["steps"] * 2
    encoder = encoding.Encoder(bench.tokenizer, bench.wording.SUMMARIZATION, "chat", 512, 2048)
    found = bench.rows(data.SAMSUM, False, train=count)
    pairs = [(bench.tokenizer.decode(encoder.prompt(row["text"])), row["target"]) for row in found.train]
    task = {
        "folder": bench.folder,
        "rows": [{"prompt": prompt, "completion": answer} for prompt, answer in pairs],
        "batch_size": SETTINGS["rows"],
        "steps": SETTINGS["steps"],
        "lora_r": SETTINGS["lora_r"],
        "learning_rate": SETTINGS["learning_rate"],
        "quantised": True,
    }
    ways = {
        "TRL, defaults": lambda _: process(sys.executable, "trl_sft", {**task, "defaults": True}),
        "TRL, no recomputation": lambda _: process(sys.executable, "trl_sft", {**task, "defaults": False}),
        "here": lambda _: script(bench.home, count),
    }
    seen = bench.alternating(ways)
    rate = {name: [run["tokens"] / run["seconds"] for run in runs] for name, runs in seen.items()}
    lines = [line(f"training, {name}", rate[name], rate["here"], "tokens/s") for name in seen if name != "here"]
    outside = statistics.median(run["outside"] for run in seen["here"])
    return {"lines": lines, "outside": outside, "rows": found.source}


def script(home, count):
    """What the record of a folder's summarization script says, on the embedded model."""
    path = home / f"{home.name}_summarization.py"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(path), "--pretrained_ckpt", "smollm2", "--full_tune", "--no_before"]
        command += ["--lora_r", str(SETTINGS["lora_r"]), "--batch_size", str(SETTINGS["rows"])]
        command += ["--learning_rate", str(SETTINGS["learning_rate"])]
        command += ["--max_train_samples", str(count), "--max_test_samples", "32", "--output_dir", folder]
        command += [] if os.environ.get("DATA_DIR") else ["--demo"]
        began = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        wall, record = time.monotonic() - began, records.read(Path(folder) / "record.json")
    told = record["training"]
    outside = 1 - (told["seconds"] + record["inference"]["seconds"]) / wall
    return {**{name: told[name] for name in ("seconds", "tokens", "trainable_parameters")}, "outside": outside}


def labels(bench):
    """(c) scoring 20 labels a post, against a whole sequence a label and against lm-evaluation-harness."""
    found, prompts, answers = bench.posts()
    python = rivals()
    spelled = [bench.tokenizer.decode(answer) for answer in answers]
    gold = [found.labels.index(row["target"]) for row in found.test]
    rows = [
        {"prompt": bench.tokenizer.decode(prompt), "choices": spelled, "gold": right}
        for prompt, right in zip(prompts, gold, strict=True)
    ]
    task = {"answers": answers, "dtype": bench.dtype}
    theirs = {"folder": bench.folder, "batch_size": 16, "dtype": bench.dtype}
    # One number a row: what each way makes of it is looked up, so that all take the same shares.
    seen = bench.alternating(
        {
            "20 full sequences": lambda at: bench.ours("full_sequences", prompts=[prompts[i] for i in at], **task),
            "lm-evaluation-harness": lambda at: process(
                python, "lm_eval_labels", {"rows": [rows[i] for i in at], **theirs}
            ),
            "here": lambda at: bench.ours("shared", prompts=[prompts[i] for i in at], **task),
        },
        range(len(prompts)),
    )
    scores = {name: all_rows(runs) for name, runs in seen.items()}
    picks = {name: evaluation.likeliest(range(len(answers)), each) for name, each in scores.items()}
    what, others = f"{len(answers)} labels of {bench.share(prompts)} posts", [name for name in seen if name != "here"]
    return {
        "lines": [line(f"{what}, {name}", seconds(seen[name]), seconds(seen["here"])) for name in others],
        "largest_difference": {name: largest_difference(scores["here"], scores[name]) for name in others},
        "same_choice": {name: same(picks["here"], picks[name]) for name in others},
        "accuracy": {name: same(gold, each) for name, each in picks.items()},
        "rows": found.source,
    }


def largest_difference(first, second):
    return max(abs(a - b) for pair in zip(first, second, strict=True) for a, b in zip(*pair, strict=True))


def same(first, second):
    """Share of places where two lists agree."""
    return sum(a == b for a, b in zip(first, second, strict=True)) / len(first)


def generation(bench):
    """(b) and (d): summaries in batches against one at a time with a cache, without, and by llama.cpp."""
    prompts, stop = bench.dialogues()
    python, task = rivals(), {"stop": stop, "max_new_tokens": 100, "dtype": bench.dtype}
    theirs = {"file": str(checkpoints.embedded_file("smollm2")), "max_new_tokens": 100, "threads": os.cpu_count()}
    ways = {
        "one at a time, cache": lambda share: bench.ours("one_at_a_time", prompts=share, **task),
        "one at a time, no cache": lambda share: bench.ours("without_cache", prompts=share, **task),
        "llama.cpp, one at a time": lambda share: process(python, "cpp_answers", {**theirs, "prompts": share}),
        "here": lambda share: bench.ours("together", prompts=share, **task),
    }
    seen = bench.alternating(ways, prompts)
    texts, what = {name: all_rows(runs) for name, runs in seen.items()}, f"{bench.share(prompts)} summaries"
    others = [name for name in seen if name != "here"]
    return {
        "lines": [line(f"{what}, {name}", seconds(seen[name]), seconds(seen["here"])) for name in others],
        # llama.cpp computes with weights and inputs of its own rounding
        "same_text": {name: same(texts["here"], texts[name]) for name in others if "llama.cpp" not in name},
    }


def flops(bench):
    """(e) share of the machine's measured matrix-product rate that training and prefill reach."""
    import torch

    peak = {"seconds": [], "size": 2048}
    matrix = torch.ones((peak["size"], peak["size"]), dtype=getattr(torch, machine.precision()))
    for _ in range(3 * bench.args.runs):
        began = time.monotonic()
        for _ in range(10):
            matrix @ matrix
        peak["seconds"].append((time.monotonic() - began) / 10)
    rate = 2 * peak["size"] ** 3 / min(peak["seconds"])
    prompts, _ = bench.dialogues()
    count = SETTINGS["rows"] * SETTINGS["steps"] * 2
    seen = bench.alternating(
        {
            "prefill": lambda _: bench.ours("prefill", prompts=prompts, dtype=bench.dtype),
            "training": lambda _: script(bench.home, count),
        }
    )
    weights = linear_weights(bench.folder)
    adapter, tokens = (seen["training"][0][name] for name in ("trainable_parameters", "tokens"))
    # Products alone, without attention: two operations a weight forward, two for the gradients of what goes in, and
    # for an adapter two more for its own.
    work = {
        "prefill": 2 * weights * sum(map(len, prompts)),
        "training": (4 * weights + 6 * adapter) * tokens,
    }
    lines = [
        line(
            f"{name}, share of the matrix-product rate",
            [rate] * bench.args.runs,
            [work[name] / each for each in seconds(seen[name])],
            "FLOP/s",
        )
        for name in work
    ]
    return {"lines": lines}


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


PARTS = {  # with the flags that each heeds
    "training": (training, ()),
    "labels": (labels, ("posts", "dtype")),
    "generation": (generation, ("dialogues", "dtype")),
    "flops": (flops, ("dialogues",)),
}


if __name__ == "__main__":
    sys.exit(console.exit_code(main))
