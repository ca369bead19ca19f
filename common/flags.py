"""The command line: every flag that more than one script has, declared once, grouped, with unit and default.

A default that depends on the model or the checkpoint is None here and filled in by
`experiment.resolve`, which also prints what was chosen.
"""

import argparse
import difflib
import sys

from common import console


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
        print(f"error: {message}; see --help", file=sys.stderr)
        raise SystemExit(console.BAD_INPUT)


def positive(kind):
    """An argparse type: an int or a float above 0."""

    def parse(text):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    parse.__name__ = kind.__name__
    return parse


def seed(text):
    """0 <= seed < 2**32, what numpy takes."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not in 0 <= seed < 2**32")
    return value


def number(text):
    """2 and 2.0 are one setting: an int where that is exact, else a float."""
    value = float(text)
    return int(value) if value.is_integer() else value


def fraction(text):
    """0 < f <= 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in 0 < fraction <= 1")
    return value


def probability(text):
    """0 <= p < 1, as dropout takes it."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not in 0 <= p < 1")
    return value


def base(description):
    """The flags of every script: checkpoint, data, what is written where, how it runs."""
    parser = Parser(description=description)
    what = parser.add_argument_group("model and data")
    what.add_argument(
        "--pretrained_ckpt",
        metavar="NAME",
        help="hub id, local folder, .gguf file, or an embedded name: smollm2, for encoders minilm (default: model.py)",
    )
    what.add_argument(
        "--data",
        metavar="PATH",
        help="own rows: csv, jsonl, json or parquet, or a folder with train.* and test.* "
        "(default: $DATA_DIR/<dataset>/, then the hub)",
    )
    what.add_argument("--text_column", metavar="NAME", help="column with the text, for --data")
    what.add_argument(
        "--max_document_tokens",
        type=positive(int),
        metavar="N",
        help="cut documents, never prompts, after N tokens (default: model.py or the checkpoint)",
    )
    what.add_argument(
        "--max_test_samples",
        type=positive(int),
        metavar="N",
        help="score on N test rows, the same ones for every model (default: all)",
    )
    how = parser.add_argument_group("how it runs")
    how.add_argument(
        "--demo",
        action="store_true",
        help="the whole job on the embedded model and the sample data, in minutes on 2 cores",
    )
    how.add_argument("--seed", type=seed, default=42, metavar="N", help="(default: 42)")
    how.add_argument(
        "--inference_batch_size",
        type=positive(int),
        metavar="N",
        help="rows scored at a time (default: model.py or the checkpoint)",
    )
    how.add_argument(
        "--use_flash_attention",
        action="store_true",
        help="attention by the flash-attn package (NVIDIA GPU only)",
    )
    how.add_argument(
        "--output_dir",
        metavar="DIR",
        help="adapter, checkpoints, predictions and record go here (default: experiments/ and results/ "
        "of the model's folder)",
    )
    how.add_argument(
        "--resume",
        action="store_true",
        help="go on after an interruption; a finished run is left as it is",
    )
    how.add_argument(
        "--dry_run",
        nargs="?",
        const="budget",
        choices=["plan", "budget"],
        help="print the resolved plan and, of a training, what it takes: memory, time, cost; `plan`: the plan alone. "
        "Nothing is written",
    )
    how.add_argument(
        "--price_per_hour",
        type=positive(float),
        metavar="USD",
        help="price of this machine, to write the run's cost into the record (default: unknown)",
    )
    how.add_argument("--instance", metavar="NAME", help="name of this machine type, for the record")
    return parser


def training(description, adapter=True):
    """`base` plus what fine-tuning takes; without `adapter` nothing of what TRL's and transformers' trainers do."""
    parser = base(description)
    tune = parser.add_argument_group("fine-tuning")
    if adapter:
        adapters(tune)
    else:
        parser.set_defaults(lora_r=None, dropout=None, neftune=None, full_tune=False, report_to="none", loop=True)
    tune.add_argument("--epochs", type=positive(number), metavar="N", help="passes over the data (default: model.py)")
    tune.add_argument("--learning_rate", type=positive(float), metavar="LR", help="(default: model.py)")
    tune.add_argument(
        "--batch_size",
        type=positive(int),
        metavar="N",
        help="rows an optimizer step (default: model.py or the checkpoint)",
    )
    thinned(tune)
    tune.add_argument(
        "--no_before",
        action="store_true",
        help="do not score the base model beside the tuned one",
    )
    return parser


def adapters(group):
    """Adds what an adapter and its trainer take."""
    group.add_argument(
        "--lora_r",
        type=positive(int),
        metavar="R",
        help="rank of the adapter (default: 64; an encoder has none and is trained whole)",
    )
    group.add_argument("--dropout", type=probability, metavar="P", help="on the adapter's input (default: 0.1)")
    group.add_argument(
        "--neftune",
        type=positive(float),
        metavar="ALPHA",
        help="NEFTune: uniform noise on the embeddings while training, 5 is usual (default: none)",
    )
    group.add_argument(
        "--full_tune",
        action="store_true",
        help="adapters on all linear layers but the head (default: attention only, or the checkpoint's own)",
    )
    group.add_argument(
        "--use_liger_kernel",
        action="store_true",
        help="liger-kernel's fused layers while training (NVIDIA GPU, `pip install liger-kernel`)",
    )
    group.add_argument(
        "--torch_compile",
        action="store_true",
        help="compile training's passes (C++ compiler): minutes at the start, and no gain seen on a CPU",
    )
    group.add_argument(
        "--report_to",
        default="none",
        metavar="NAME",
        help="tracker that transformers knows: tensorboard, wandb, mlflow, … (default: none)",
    )


def thinned(group):
    """Adds what chooses the training rows."""
    group.add_argument(
        "--train_sample_fraction",
        type=fraction,
        default=1.0,
        metavar="F",
        help="share of the training rows, 0 < F <= 1, stratified; smaller ones are subsets of larger ones "
        "(default: 1.0)",
    )
    group.add_argument(
        "--max_train_samples", type=positive(int), metavar="N", help="at most N training rows (default: all)"
    )


def inference(description):
    """`base` plus what a trained adapter needs."""
    parser = base(description)
    use = parser.add_argument_group("trained adapter")
    use.add_argument(
        "--experiment_dir",
        metavar="DIR",
        help="folder that a training script of this folder wrote (default: the newest of this task)",
    )
    use.add_argument("--text", metavar="TEXT", help="answer this one text instead of scoring the test rows")
    return parser


def baseline(description):
    """`base` plus task and prompt of an untrained model."""
    parser = base(description)
    prompt = parser.add_argument_group("prompting")
    prompt.add_argument(
        "--task_type",
        choices=["classification", "summarization"],
        default="classification",
        help="(default: classification)",
    )
    prompt.add_argument(
        "--prompt_type",
        choices=["zero-shot", "one-shot", "few-shot"],
        default="zero-shot",
        help="examples in the prompt: none, one, or several (default: zero-shot)",
    )
    return parser


def untrained(description, tasks=("classification", "summarization")):
    """`base` plus task and kind of an encoder's baseline."""
    parser = base(description)
    what = parser.add_argument_group("baseline")
    what.add_argument("--task_type", choices=tasks, default=tasks[0], help=f"(default: {tasks[0]})")
    what.add_argument(
        "--baseline",
        choices=["dummy", "frozen-features"],
        default="frozen-features",
        help="dummy: the most frequent class, the first utterances; frozen-features: a logistic regression on "
        "the untrained encoder's output (default: frozen-features)",
    )
    thinned(what)
    return parser


def decoding(parser):
    """Adds how answers are written, where that is what is studied."""
    how = parser.add_argument_group("decoding (default: greedy)")
    how.add_argument("--temperature", type=positive(float), metavar="T", help="sample at this temperature")
    how.add_argument("--top_k", type=positive(int), metavar="K", help="sample from the K likeliest tokens")
    how.add_argument("--num_beams", type=positive(int), default=1, metavar="N", help="beam search (default: 1)")
    return parser


def instructions(parser):
    """Adds what a study of decoding varies, and the column of the answers."""
    decoding(parser).add_argument("--answer_column", metavar="NAME", help="column with the answer, for --data")
    parser.add_argument(
        "--bertscore_model",
        default="minilm",
        metavar="NAME",
        help="encoder of BERTScore: minilm, embedded, or a hub id that the bert-score package knows, such as "
        "roberta-large; figures of different encoders do not compare (default: minilm)",
    )
    parser.set_defaults(task_type="instructions")
    return parser


def prompted_sentiment(parser):
    """Adds to a training script's flags those that ask the untrained model instead."""
    how = decoding(sentiment(parser)).add_argument_group("no fine-tuning")
    how.add_argument(
        "--prompt_type",
        choices=["zero-shot", "one-shot", "few-shot"],
        help="score the untrained model: no example in the prompt, one, or several",
    )
    how.add_argument(
        "--random_head",
        action="store_true",
        help="score a two-class head that nobody trained, drawn by --seed: what the source's zero-shot figures are of",
    )
    return parser


def classification(parser):
    """Adds the flags of labelled data."""
    parser.add_argument("--label_column", metavar="NAME", help="column with the label, for --data")
    parser.set_defaults(task_type="classification")
    return parser


def sentiment(parser):
    """Adds the flags of reviews with a sentiment."""
    parser.add_argument("--label_column", metavar="NAME", help="column with the label, for --data")
    parser.set_defaults(task_type="sentiment")
    return parser


def summarization(parser):
    """Adds the flags of data with summaries."""
    parser.add_argument("--summary_column", metavar="NAME", help="column with the summary, for --data")
    parser.set_defaults(task_type="summarization")
    return parser
