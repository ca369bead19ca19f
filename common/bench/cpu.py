"""Compare ways to get the same answers on the same weights and rows: they run in turn, each in its own process.

    python -m common bench                          every part, into assets/bench.json
    python -m common bench training --runs 1        one part
    python -m common bench gpu                      training steps of 7B and 13B models, on a CUDA card

Figures are medians. Parts that score or answer rows give each run an equal share of the rows. Ratios do not depend on
the machine's speed, so they can be quoted; the absolute figures are this machine's. The data are SAMSum and 20
Newsgroups if DATA_DIR has them, else the shipped sample.
"""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

from common import checkpoints, data, encoding, evaluation, files, machine, precision
from common.bench import trainings
from common.bench.shared import (
    all_rows,
    competitors_python,
    largest_difference,
    line,
    process,
    same,
    seconds,
)
from common.console import InputError, say
from common.runs import checks, flags, folders, records

RESULT = files.ROOT / "assets" / "bench.json"
MODEL, ENCODER = "smollm2", "minilm"
FEATURES = {"train": 400, "test": 200}  # rows


def main(words):
    """`python -m common bench …`"""
    parser = flags.Parser(prog="python -m common bench", description=__doc__)
    count = flags.positive(int)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--runs", type=count, default=3, help="runs of each way, in turn (default: 3)")
    parser.add_argument("--posts", type=count, default=40, help="number of posts to label (default: 40)")
    parser.add_argument("--dialogues", type=count, default=32, help="number of dialogues to summarize (default: 32)")
    dtypes = ["float32", "bfloat16"]
    parser.add_argument("--dtype", choices=dtypes, help="of scoring and generation (default: as the scripts)")
    parser.add_argument("--without", action="append", default=[], metavar="WAY", help="leave out ways of this name")
    tuned = "folder of a trained classification: score labels with that model, its adapter merged"
    parser.add_argument("--experiment_dir", type=Path, metavar="DIR", help=tuned)
    parser.add_argument("--output", type=Path, default=RESULT, help="JSON file of the figures, written after each part")
    args = parser.parse_args(words)
    checks.check_places(args.output)
    if unknown := set(args.parts) - set(PARTS):
        raise InputError(f"no part {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    if args.runs > min(args.posts, args.dialogues):
        raise InputError(f"every one of {args.runs} runs takes its share of the rows: give it one at least")
    if args.experiment_dir and args.parts != ["labels"]:
        raise InputError("--experiment_dir is for the part `labels` alone")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parts = args.parts or list(PARTS)
    with contextlib.ExitStack() as stack:
        bench = Bench(args, stack)
        for number, name in enumerate(parts):
            say(f"{name}:")
            try:
                figures = PARTS[name][0](bench)
            except KeyboardInterrupt:
                say(f"\nfinished parts are kept. Left, with the same flags: {' '.join(parts[number:])}")
                raise
            for bench_line in figures["lines"]:
                say(f"  {bench_line['what']}: {bench_line['ratio']:.2f}")
            recorded = files.read_json(args.output) if args.output.is_file() else {}
            circumstances = bench.circumstances(name)
            files.write_json(args.output, recorded | {circumstances["command"]: figures | circumstances})
    say(f"figures: {files.display(args.output)}")


class Bench:
    """What the parts share: weights, tokenizer, rows, and processes that run the ways.

    args: of the command line; stack: an ExitStack that removes temporary files."""

    def __init__(self, args, stack):
        import transformers

        self.args = args
        self.dtype = args.dtype or precision.chosen("auto", "bfloat16")[0]
        self.folder, self.trained = str(checkpoints.prepare(checkpoints.find(MODEL))), None
        if args.experiment_dir:
            self.trained = records.run_of(args.experiment_dir)
            self.folder = stack.enter_context(tempfile.TemporaryDirectory())
            merge(self.trained["identity"], args.experiment_dir, self.folder)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder)
        facts, _ = folders.home(MODEL)
        self.home = Path(facts.__file__).parent
        self.wording = folders.load_module(self.home / "prompts.py")

    def circumstances(self, name):
        options = {flag: getattr(self.args, flag) for flag in (*PARTS[name][1], "runs")}
        command = [f"--{flag} {value}" for flag, value in options.items() if value]
        command += [f'--without "{way}"' for way in self.args.without]
        command += [f"--experiment_dir {files.display(self.args.experiment_dir)}"] if self.trained else []
        return {
            "date": records.now()[:10],
            "device": machine.device_name(),
            "cores": os.cpu_count(),
            "runs": self.args.runs,
            "dtype": self.dtype,
            "command": " ".join([name, *command]),
            "packages": records.environment()["packages"],
        }

    def rows(self, task, **limits):
        return data.of_task(task, demo=not os.environ.get("DATA_DIR"), **limits)

    def posts(self):
        """(rows of 20 Newsgroups, prompts as token ids, labels as token ids)."""
        rows = self.rows("classification", max_test_samples=self.args.posts)
        template, prompt_format, max_document_tokens = self.wording.CLASSIFICATION, "chat", 192
        if self.trained:
            fields = self.trained["identity"]
            template, prompt_format = encoding.Template(**fields["wording"]), fields["format"]
            max_document_tokens = fields["settings"]["max_document_tokens"]
        encoder = encoding.Encoder(self.tokenizer, template, prompt_format, max_document_tokens, labels=rows.labels)
        return rows, encoding.prompts(encoder, rows.test), [encoder.answer(label) for label in rows.labels]

    def dialogues(self):
        """(prompts of SAMSum's dialogues as token ids, the token ids that end an answer)."""
        encoder = encoding.Encoder(self.tokenizer, self.wording.SUMMARIZATION, "chat", 512)
        rows = self.rows("summarization", max_test_samples=self.args.dialogues)
        return encoding.prompts(encoder, rows.test), encoder.stop

    def share(self, rows):
        """The number of rows, in words; with several runs also the number of each run."""
        runs = self.args.runs
        return f"{len(rows)}" if runs == 1 else f"{len(rows)} (a run: {len(rows) // runs})"

    def ours(self, way, **task):
        return process(sys.executable, "ours", {"way": way, "folder": self.folder, "batch_size": 16, **task})

    def alternating(self, ways, rows=()):
        """Run the functions `ways` ({name: function of a share of `rows`}) in turn; returns {name: [result of each
        run]}. The first run gets the first share of the rows, and so on. Raises InputError."""
        others = [name for name in ways if name != "here"]
        if unknown := set(self.args.without) - set(others):
            raise InputError(f"--without {', '.join(unknown)}: what can be left out is {', '.join(others)}")
        ways = {name: way for name, way in ways.items() if name not in self.args.without}
        results, runs = {name: [] for name in ways}, self.args.runs
        for run in range(runs):
            share = rows[run * len(rows) // runs : (run + 1) * len(rows) // runs]
            for name, way in ways.items():
                results[name].append(way(share))
                say(f"  {run + 1} of {runs}, {name}: {results[name][-1]['seconds']:.1f} s")
        return results


def merge(trained, run_folder, target):
    """Write the checkpoint of a trained run into the folder `target`, in float32, with its adapter merged into the
    weights. trained: fields of the run's identity. Raises InputError if the run has no classification adapter."""
    import peft
    import torch
    import transformers

    if trained["task"] != "classification" or not (Path(run_folder) / "adapter").is_dir():
        raise InputError(f"{run_folder} holds no adapter of a classification")
    source = checkpoints.prepare(checkpoints.find(trained["checkpoint"]))
    keywords = {"dtype": torch.float32, "use_safetensors": True}
    model = transformers.AutoModelForCausalLM.from_pretrained(source, **keywords)
    merged = peft.PeftModel.from_pretrained(model, Path(run_folder) / "adapter").merge_and_unload()
    merged.save_pretrained(target)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(target)


def labels(bench):
    """Score 20 labels of each post; compare with a whole sequence for each label and with lm-evaluation-harness."""
    posts, prompts, answers = bench.posts()
    python = competitors_python() if "lm-evaluation-harness" not in bench.args.without else None
    label_texts = [bench.tokenizer.decode(answer) for answer in answers]
    gold = [posts.labels.index(row["target"]) for row in posts.test]
    rows = [
        {"prompt": bench.tokenizer.decode(prompt), "choices": label_texts, "gold": gold_label}
        for prompt, gold_label in zip(prompts, gold, strict=True)
    ]
    task = {"answers": answers, "dtype": bench.dtype}
    competitor_task = {"folder": bench.folder, "batch_size": 16, "dtype": bench.dtype}
    # `alternating` splits row numbers, so that every way gets the same shares.
    results = bench.alternating(
        {
            "20 full sequences": lambda share: bench.ours(
                "full_sequences", prompts=[prompts[i] for i in share], **task
            ),
            "lm-evaluation-harness": lambda share: process(
                python, "lm_eval_labels", {"rows": [rows[i] for i in share], **competitor_task}
            ),
            "here": lambda share: bench.ours("shared", prompts=[prompts[i] for i in share], **task),
        },
        range(len(prompts)),
    )
    scores = {name: all_rows(runs) for name, runs in results.items()}
    picks = {name: evaluation.argmax_label(range(len(answers)), chosen) for name, chosen in scores.items()}
    description, others = (
        f"{len(answers)} labels of {bench.share(prompts)} posts",
        [name for name in results if name != "here"],
    )
    return {
        "lines": [line(f"{description}, {name}", seconds(results[name]), seconds(results["here"])) for name in others],
        "largest_difference": {name: largest_difference(scores["here"], scores[name]) for name in others},
        "same_choice": {name: same(picks["here"], picks[name]) for name in others},
        "accuracy": {name: same(gold, chosen) for name, chosen in picks.items()},
        "rows": posts.source,
    }


def generation(bench):
    """Summarize in batches; compare with one dialogue at a time, with and without a cache, with CTranslate2 in batches,
    and with llama.cpp, one at a time and in parallel slots."""
    prompts, stop = bench.dialogues()
    task = {"stop": stop, "max_new_tokens": 100, "dtype": bench.dtype}
    threads = machine.cores()
    cpp = {"file": str(checkpoints.embedded_file(MODEL)), "max_new_tokens": 100, "threads": threads}
    ct2 = {"folder": bench.folder, "stop": stop, "max_new_tokens": 100, "threads": threads, "batch_size": 16}
    ways = {
        "one at a time, cache": lambda share: bench.ours("one_at_a_time", prompts=share, **task),
        "one at a time, no cache": lambda share: bench.ours("without_cache", prompts=share, **task),
        "CTranslate2, float32": lambda share: process(
            competitors_python(), "ct2_answers", {**ct2, "type": "float32", "prompts": share}
        ),
        "CTranslate2, int8": lambda share: process(
            competitors_python(), "ct2_answers", {**ct2, "type": "int8_float32", "prompts": share}
        ),
        "llama.cpp, one at a time": lambda share: process(
            competitors_python(), "cpp_answers", {**cpp, "prompts": share}
        ),
        "llama.cpp, 16 slots": lambda share: process(
            competitors_python(), "cpp_slots", {**cpp, "slots": 16, "prompts": share}
        ),
        "here": lambda share: bench.ours("together", prompts=share, **task),
    }
    results = bench.alternating(ways, prompts)
    texts, description = {name: all_rows(runs) for name, runs in results.items()}, f"{bench.share(prompts)} summaries"
    others = [name for name in results if name != "here"]
    return {
        "lines": [line(f"{description}, {name}", seconds(results[name]), seconds(results["here"])) for name in others],
        # llama.cpp and int8 round weights and inputs differently, so their texts differ
        "same_text": {
            name: same(texts["here"], texts[name]) for name in others if "llama.cpp" not in name and "int8" not in name
        },
    }


def features(bench):
    """A logistic regression on MiniLM's frozen features of reviews; compare with sentence-transformers' encode."""
    rows = bench.rows("sentiment", max_train_samples=FEATURES["train"], max_test_samples=FEATURES["test"])
    task = {"folder": str(checkpoints.prepare(checkpoints.find(ENCODER))), "batch_size": 32, "tokens": 256}
    task |= {"train": [row["text"] for row in rows.train], "targets": [row["target"] for row in rows.train]}
    task |= {"test": [row["text"] for row in rows.test]}
    name, python = "sentence-transformers", competitors_python()
    ways = {
        name: lambda _: process(python, "st_features", task),
        "here": lambda _: process(sys.executable, "ours_features", task),
    }
    results = bench.alternating(ways)
    what = f"features of {len(rows.train) + len(rows.test)} reviews and a regression, {name}"
    picks = {way: runs[0]["results"] for way, runs in results.items()}
    return {
        "lines": [line(what, seconds(results[name]), seconds(results["here"]))],
        "same_choice": {name: same(picks["here"], picks[name])},
        "rows": rows.source,
    }


PARTS = {  # name -> (function, the flags that it uses)
    "training": (trainings.training, ()),
    "step": (trainings.step, ("dtype",)),
    "busy": (trainings.busy, ()),
    "start": (trainings.start, ()),
    "labels": (labels, ("posts", "dtype")),
    "generation": (generation, ("dialogues", "dtype")),
    "features": (features, ()),
    "flops": (trainings.flops, ("dialogues", "dtype")),
}
