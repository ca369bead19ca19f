"""The command line of the experiments: every flag once, in groups, with its unit. A flag without a default here has the
value of the script's SETTINGS, which --help shows."""

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

    def add(self, name, keywords, group=None, suffix=""):
        """Add --name, one of the flags below; into a group of this parser, if one is given. suffix: of its help."""
        shown = keywords["help"].replace("%", "%%") + suffix
        (group or self).add_argument(f"--{name}", **{**keywords, "help": shown})

    def _nearest(self, word):
        name = word.split("=")[0]
        near = difflib.get_close_matches(name, self._option_string_actions, n=1)
        return f"{name} (did you mean {near[0]}?)" if near else name

    def error(self, message):
        print(f"error: {console.one_line(message)}; see --help", file=sys.stderr)
        raise SystemExit(console.BAD_INPUT)


def positive(kind, most=float("inf")):
    """An argparse type: a number above 0 and at most `most`. kind: int or float."""

    def parse(text):
        value = kind(text)
        if not 0 < value < float("inf") or value > most:
            raise argparse.ArgumentTypeError(f"{text} is not above 0" + (f" and at most {most:g}" if value > 0 else ""))
        return value

    parse.__name__ = kind.__name__
    return parse


def seed(text):
    """An argparse type: 0 <= seed < 2**32, the range of numpy."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not in 0 <= seed < 2**32")
    return value


def epochs(text):
    """An argparse type: an int if the value is whole, else a float, so that 2 and 2.0 are the same setting."""
    value = positive(float, 10_000)(text)
    return int(value) if value.is_integer() else value


def between(low, high, includes_low=False):
    """An argparse type: a float in low < value <= high or, with includes_low, in low <= value < high."""

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
    """An argparse type: a name, a path or a text that is not empty and is valid UTF-8."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty text names nothing")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise argparse.ArgumentTypeError(f"{text.encode(errors='replace').decode()} is not valid UTF-8")
    return text


def delimiter(text):
    """An argparse type: one character; \\t and `tab` are a tab."""
    text = {"\\t": "\t", "tab": "\t"}.get(text, text)
    if len(text) != 1 or text in '\r\n"':
        raise argparse.ArgumentTypeError(f"{text!r} is not one character")
    return text


def flag(text, **keywords):
    return {"help": text, **keywords}


def switch(text):
    return {"help": text, "action": "store_true"}


N = {"metavar": "N", "type": positive(int, 10**9)}
MODEL = {
    "pretrained_ckpt": flag("hub id, local folder, .gguf file, or an embedded model: smollm2, for encoders minilm",
                            metavar="NAME", type=name),
    "data": flag("own rows: csv, tsv, jsonl, json, parquet, .gz of these, or a folder with train.* and test.*; "
                 "else $DATA_DIR/<data set>/, then the hub", metavar="PATH", type=name),
    "text_column": flag("column of --data with the text", metavar="NAME", type=name),
    "encoding": flag("encoding of --data (default: found by its bytes)", metavar="NAME", type=name),
    "delimiter": flag("delimiter of --data, a csv (default: found by its rows)", metavar="CHAR", type=delimiter),
}  # fmt: skip
TARGET = {
    "classification": {
        "label_column": flag("column of --data with the label", metavar="NAME", type=name),
        "label_names": flag(
            "file with the names of --data's labels: a line each from 0 on, or JSON", metavar="FILE", type=name
        ),
    },
    "summarization": {"summary_column": flag("column of --data with the summary", metavar="NAME", type=name)},
    "instructions": {"answer_column": flag("column of --data with the answer", metavar="NAME", type=name)},
}
TARGET["sentiment"] = TARGET["classification"]
WORDING = {
    "instruction": flag("what the model is asked to do with a text of --data", metavar="TEXT", type=name),
}
READING = {
    "max_document_tokens": flag(
        "cut documents to N tokens; prompts are never cut", metavar="N", type=positive(int, 10**6)
    ),
    "max_test_samples": flag("score N test rows, the same ones for every model", **N),
}
NEW_TOKENS = {"max_new_tokens": flag("most tokens of an answer", metavar="N", type=positive(int, 100_000))}
THINNING = {
    "train_sample_fraction": flag("share of the training rows, 0 < F <= 1; smaller ones are subsets of larger ones",
                                  metavar="F", type=between(0, 1)),
    "max_train_samples": flag("train on at most N rows", **N),
}  # fmt: skip
TUNING = {
    "epochs": flag("passes over the training rows", metavar="N", type=epochs),
    "score_after_epochs": flag("several numbers of epochs, with a record for each: one training passes through them "
                               "all if its learning rate is constant",
                               metavar="N", nargs="+", type=positive(int, 10_000)),
    "learning_rate": flag("peak learning rate of the optimizer", metavar="LR", type=positive(float)),
    "lr_scheduler": flag("schedule of the learning rate", choices=SCHEDULERS),
    "batch_size": flag("rows in each optimizer step", metavar="N", type=positive(int, 100_000)),
}  # fmt: skip
ADAPTER = {
    "lora_r": flag("rank of the adapter", metavar="R", type=positive(int, 65_536)),
    "lora_alpha": flag("the adapter's output is scaled by alpha / rank", metavar="A", type=positive(int, 10**6)),
    "dropout": flag("dropout on the adapter's input, 0 <= P < 1", metavar="P", type=between(0, 1, includes_low=True)),
    "neftune": flag("alpha of NEFTune, noise on the embeddings while training; 5 is usual",
                    metavar="ALPHA", type=positive(float)),
    "full_tune": switch("put adapters on all linear layers but the head, not only on attention"),
    "use_liger_kernel": switch("train with liger-kernel's fused layers (NVIDIA GPU)"),
    "torch_compile": switch("compile the training step (needs a C++ compiler; no gain measured on a CPU)"),
    "report_to": flag("a tracker of transformers: tensorboard, wandb, mlflow, …", metavar="NAME", type=name),
}  # fmt: skip
DECODING = {
    "temperature": flag("sample at temperature T, 0.001 or more", metavar="T", type=between(0.000999, 1000)),
    "top_k": flag("sample from the K most likely tokens", metavar="K", type=positive(int, 10**6)),
    "num_beams": flag("beam search with N beams", metavar="N", type=positive(int, 256)),
}
BERTSCORE = {
    "bertscore_model": flag("encoder of BERTScore: minilm (embedded) or a hub id that bert-score knows; figures of "
                            "different encoders do not compare", metavar="NAME", type=name),
}  # fmt: skip
PROMPTING = {"prompt_type": flag("examples in the prompt: none, one, or several", choices=PROMPT_TYPES)}
UNTRAINED = {
    "baseline": flag("dummy: the most frequent class, the first utterances; tfidf and frozen-features: a logistic "
                     "regression on words or on the untrained encoder's output; setfit: on that of an encoder tuned "
                     "on pairs of texts, for few labels", choices=["dummy", "tfidf", "frozen-features", "setfit"]),
}  # fmt: skip
HEAD = {"random_head": switch("score the model with an untrained class head, drawn by --seed")}
TRAINED = {
    "experiment_dir": flag("folder of a training run (default: the newest one of the task in this folder)",
                           metavar="DIR", type=name),
    "text": flag("answer this one text instead of scoring the test rows", metavar="TEXT", type=name),
    "input": flag("answer the rows of this file: csv, tsv, jsonl, json, parquet, or .gz", metavar="FILE", type=name),
    "output": flag("new csv, tsv or jsonl file for the rows of --input with their answers", metavar="FILE", type=name),
}  # fmt: skip
BEFORE = {"no_before": switch("score only the tuned model, not the base model")}
RUNNING = {
    "demo": switch("run the whole experiment on the embedded model and the sample data, in minutes on 2 cores"),
    "seed": flag("seed of training and sampling; it does not choose the rows", metavar="N", type=seed),
    "precision": flag("dtype of the computation; auto: the published one if it is fast here", choices=PRECISIONS),
    "threads": flag("CPU threads (default: the cores that it may use)", metavar="N", type=positive(int, 4096)),
    "inference_batch_size": flag("most rows scored in one batch", metavar="N", type=positive(int, 100_000)),
    "use_flash_attention": switch("compute attention with the flash-attn package (NVIDIA GPU)"),
    "output_dir": flag("folder of everything that the run writes (default: experiments/ and results/ of the model "
                       "folder)", metavar="DIR", type=name),
    "resume": switch("go on after an interruption; does nothing if the run is finished"),
    "dry_run": flag("print the plan and the memory, time and cost of a training; `plan`: only the plan. Writes nothing",
                    nargs="?", const="budget", choices=["plan", "budget"]),
    "price_per_hour": flag("price of this machine, for the record's cost", metavar="USD", type=positive(float)),
    "instance": flag("name of this machine type, for the record", metavar="NAME", type=name),
}  # fmt: skip

# Kind of script -> its own groups of flags, with their titles.
KINDS = {
    "training": [("fine-tuning", TUNING | ADAPTER | THINNING | BEFORE)],
    "loop": [("fine-tuning", TUNING | THINNING | BEFORE)],
    "baseline": [("prompting", PROMPTING)],
    "untrained": [("baseline", UNTRAINED | THINNING)],
    "inference": [("trained run", TRAINED)],
}


def parser(doc, kind, tasks, settings, writes=True, prompted=False):
    """The Parser of an experiment.

    kind: a key of KINDS; tasks: of the script, if it has several --task_type chooses one; settings: {task: Settings or
    None}, the defaults that --help shows; writes: whether the model generates text; prompted: whether the script also
    scores the untrained model."""
    argument_parser = Parser(description=doc)
    target = {name: keywords for task in tasks for name, keywords in TARGET[task].items()}
    wording = WORDING if writes and kind != "inference" and set(tasks) != {"instructions"} else {}
    groups = [("model and data", MODEL | target | wording | READING | (NEW_TOKENS if writes else {}))]
    groups += KINDS[kind]
    if prompted:
        groups += [("no fine-tuning", PROMPTING | HEAD)]
    if writes and (prompted or "instructions" in tasks):
        groups += [("decoding (default: greedy)", DECODING)]
    if "instructions" in tasks:
        groups += [("scoring", BERTSCORE)]
    groups += [("how it runs", RUNNING)]
    defaults = vars(next(iter(settings.values()))) if len(tasks) == 1 and next(iter(settings.values())) else {}
    for title, flags in groups:
        group = argument_parser.add_argument_group(title)
        for flag_name, keywords in flags.items():
            value = defaults.get(flag_name)
            default = f" (default: {value:g})" if isinstance(value, int | float) and value is not False else ""
            default = f" (default: {value})" if isinstance(value, str) else default
            argument_parser.add(flag_name, keywords, group, default)
        if title == "model and data" and len(tasks) > 1:
            group.add_argument("--task_type", choices=tasks, default=tasks[0], help=f"(default: {tasks[0]})")
    argument_parser.set_defaults(**{"precision": "auto", "report_to": "none", "task_type": tasks[0]})
    return argument_parser
