"""The command line of the experiments: every flag once, grouped, with unit. A default that is not stated here is the
script's own, which stands in its SETTINGS and in its --help."""

import argparse
import difflib
import sys

from common import console

PROMPT_TYPES = ["zero-shot", "one-shot", "few-shot"]
PRECISIONS = ["auto", "float32", "bfloat16", "float16"]
SCHEDULERS = ["constant", "linear", "cosine", "constant_with_warmup"]


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors that suggest the nearest flag or choice; no abbreviations."""

    def __init__(self, **keywords):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **keywords)

    def parse_args(self, args=None, namespace=None):
        namespace, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error("unknown " + ", ".join(self._nearest(word) for word in unknown))
        return namespace

    def _nearest(self, word):
        name = word.split("=")[0]
        near = difflib.get_close_matches(name, self._option_string_actions, n=1)
        return f"{name} (did you mean {near[0]}?)" if near else name

    def error(self, message):
        print(f"error: {console.one_line(message)}; see --help", file=sys.stderr)
        raise SystemExit(console.BAD_INPUT)


def positive(kind, most=float("inf")):
    """An argparse type: an int or a float above 0 and at most `most`."""

    def parse(text):
        value = kind(text)
        if not 0 < value < float("inf") or value > most:
            raise argparse.ArgumentTypeError(f"{text} is not above 0" + (f" and at most {most:g}" if value > 0 else ""))
        return value

    parse.__name__ = kind.__name__
    return parse


def seed(text):
    """0 <= seed < 2**32, what numpy takes."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not in 0 <= seed < 2**32")
    return value


def epochs(text):
    """2 and 2.0 are one setting: an int where that is exact, else a float."""
    value = positive(float, 10_000)(text)
    return int(value) if value.is_integer() else value


def between(low, high, includes_low=False):
    """An argparse type: a float above `low`, or from it on, and up to `high`; 1 as a lower bound's partner is excluded
    for probabilities, which reach 1 from below."""

    def parse(text):
        value = float(text)
        inside = low <= value < high if includes_low else low < value <= high
        if not inside:
            relation = f"{low:g} <= value < {high:g}" if includes_low else f"{low:g} < value <= {high:g}"
            raise argparse.ArgumentTypeError(f"{text} is not in {relation}")
        return value

    parse.__name__ = "float"
    return parse


def name(text):
    """A name, a path or a text: anything but an empty one, or bytes that are no text."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty text names nothing")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise argparse.ArgumentTypeError(f"{text.encode(errors='replace').decode()} is not valid UTF-8")
    return text


def flag(text, **keywords):
    return {"help": text, **keywords}


def switch(text):
    return {"help": text, "action": "store_true"}


N = {"metavar": "N", "type": positive(int, 10**9)}
MODEL = {
    "pretrained_ckpt": flag("hub id, local folder, .gguf file, smollm2, or for encoders minilm",
                            metavar="NAME", type=name),
    "data": flag("own rows: csv, tsv, jsonl, json, parquet, .gz of these, or a folder with train.* and test.*; "
                 "else $DATA_DIR/<data set>/, then the hub", metavar="PATH", type=name),
    "text_column": flag("column of --data with the text", metavar="NAME", type=name),
}  # fmt: skip
TARGET = {
    "classification": {"label_column": flag("column of --data with the label", metavar="NAME", type=name)},
    "summarization": {"summary_column": flag("column of --data with the summary", metavar="NAME", type=name)},
    "instructions": {"answer_column": flag("column of --data with the answer", metavar="NAME", type=name)},
}
TARGET["sentiment"] = TARGET["classification"]
READING = {
    "max_document_tokens": flag("cut documents, never prompts, after N tokens", metavar="N", type=positive(int, 10**6)),
    "max_test_samples": flag("score N test rows, the same ones for every model", **N),
}
NEW_TOKENS = {"max_new_tokens": flag("tokens of an answer, at most", metavar="N", type=positive(int, 100_000))}
THINNING = {
    "train_sample_fraction": flag("share of the training rows, 0 < F <= 1; smaller ones are subsets of larger ones",
                                  metavar="F", type=between(0, 1)),
    "max_train_samples": flag("train on N rows at most", **N),
}  # fmt: skip
TUNING = {
    "epochs": flag("passes over the training rows", metavar="N", type=epochs),
    "learning_rate": flag("of the optimizer", metavar="LR", type=positive(float)),
    "lr_scheduler": flag("how the learning rate runs", choices=SCHEDULERS),
    "batch_size": flag("rows an optimizer step", metavar="N", type=positive(int, 100_000)),
}
ADAPTER = {
    "lora_r": flag("rank of the adapter", metavar="R", type=positive(int, 65_536)),
    "lora_alpha": flag("the adapter's output is scaled by alpha / rank", metavar="A", type=positive(int, 10**6)),
    "dropout": flag("on the adapter's input, 0 <= P < 1", metavar="P", type=between(0, 1, includes_low=True)),
    "neftune": flag("NEFTune: noise on the embeddings while training; 5 is usual",
                    metavar="ALPHA", type=positive(float)),
    "full_tune": switch("adapters on all linear layers but the head, not on attention alone"),
    "use_liger_kernel": switch("liger-kernel's fused layers while training (NVIDIA GPU)"),
    "torch_compile": switch("compile training's passes (needs a C++ compiler; no gain seen on a CPU)"),
    "report_to": flag("tracker that transformers knows: tensorboard, wandb, mlflow, …", metavar="NAME", type=name),
}  # fmt: skip
DECODING = {
    "temperature": flag("sample at this temperature, from 0.001", metavar="T", type=between(0.000999, 1000)),
    "top_k": flag("sample from the K likeliest tokens", metavar="K", type=positive(int, 10**6)),
    "num_beams": flag("beam search", metavar="N", type=positive(int, 256)),
}
BERTSCORE = {
    "bertscore_model": flag("encoder of BERTScore: minilm, embedded, or a hub id that bert-score knows; figures of "
                            "different encoders do not compare", metavar="NAME", type=name),
}  # fmt: skip
PROMPTING = {"prompt_type": flag("examples in the prompt: none, one, or several", choices=PROMPT_TYPES)}
UNTRAINED = {
    "baseline": flag("dummy: the most frequent class, the first utterances; frozen-features: a logistic regression on "
                     "the untrained encoder's output", choices=["dummy", "frozen-features"]),
}  # fmt: skip
HEAD = {"random_head": switch("score a class head that nobody trained, drawn by --seed")}
TRAINED = {
    "experiment_dir": flag("folder of a training run (default: this folder's newest of the task)",
                           metavar="DIR", type=name),
    "text": flag("answer this one text instead of scoring the test rows", metavar="TEXT", type=name),
}  # fmt: skip
BEFORE = {"no_before": switch("do not score the base model beside the tuned one")}
RUNNING = {
    "demo": switch("the whole job on the embedded model and the sample data, in minutes on 2 cores"),
    "seed": flag("of training and sampling; rows never depend on it", metavar="N", type=seed),
    "precision": flag("what is computed in; auto: as published where that is fast here", choices=PRECISIONS),
    "inference_batch_size": flag("rows scored at once, at most", metavar="N", type=positive(int, 100_000)),
    "use_flash_attention": switch("attention by the flash-attn package (NVIDIA GPU)"),
    "output_dir": flag("everything that the run writes goes here (default: experiments/ and results/ of the folder)",
                       metavar="DIR", type=name),
    "resume": switch("go on after an interruption; a finished run is left as it is"),
    "dry_run": flag("print the plan and what a training takes: memory, time, cost; `plan`: the plan alone. Nothing is "
                    "written", nargs="?", const="budget", choices=["plan", "budget"]),
    "price_per_hour": flag("price of this machine, for the record's cost", metavar="USD", type=positive(float)),
    "instance": flag("name of this machine type, for the record", metavar="NAME", type=name),
}  # fmt: skip

# Of a kind of script: titles of groups and what stands in them.
KINDS = {
    "training": [("fine-tuning", TUNING | ADAPTER | THINNING | BEFORE)],
    "loop": [("fine-tuning", TUNING | THINNING | BEFORE)],
    "baseline": [("prompting", PROMPTING)],
    "untrained": [("baseline", UNTRAINED | THINNING)],
    "inference": [("trained run", TRAINED)],
}


def parser(doc, kind, tasks, settings, writes=True, prompted=False):
    """The Parser of an experiment. kind: a key of KINDS; tasks: of which --task_type chooses where there are several;
    settings: {task: Settings or None}, for the defaults that --help shows; writes: the model writes text;
    prompted: the script also scores the untrained model."""
    made = Parser(description=doc)
    target = {name: each for task in tasks for name, each in TARGET[task].items()}
    groups = [("model and data", MODEL | target | READING | (NEW_TOKENS if writes else {}))]
    groups += KINDS[kind]
    if prompted:
        groups += [("no fine-tuning", PROMPTING | HEAD)]
    if writes and (prompted or "instructions" in tasks):
        groups += [("decoding (default: greedy)", DECODING)]
    if "instructions" in tasks:
        groups += [("scoring", BERTSCORE)]
    groups += [("how it runs", RUNNING)]
    usual = vars(next(iter(settings.values()))) if len(tasks) == 1 and next(iter(settings.values())) else {}
    for title, flags in groups:
        group = made.add_argument_group(title)
        for each, keywords in flags.items():
            value = usual.get(each)
            default = f" (default: {value:g})" if isinstance(value, int | float) and value is not False else ""
            default = f" (default: {value})" if isinstance(value, str) else default
            group.add_argument(f"--{each}", **{**keywords, "help": keywords["help"].replace("%", "%%") + default})
        if title == "model and data" and len(tasks) > 1:
            group.add_argument("--task_type", choices=tasks, default=tasks[0], help=f"(default: {tasks[0]})")
    made.set_defaults(**{"precision": "auto", "report_to": "none", "task_type": tasks[0]})
    return made
