"""One run of one script: its settings resolved, its machine checked, its places named.

Settings come from, in this order: the flags, the demo, the checkpoint's own (checkpoints.py), the model
folder's facts (model.py). What was chosen is printed before anything runs and stands in the record.
"""

import argparse
import hashlib
import json
import os
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from common import checkpoints, console, generation, machine, records
from common.console import InputError, say

PROMPT_BUDGET = 2048  # tokens a few-shot prompt may take: within every window here, and a CPU's patience
QUANTIZATION = "nf4 + double quantization"  # what loading.py does, for training and scoring alike
TUNABLE = ("lora_r", "dropout", "epochs", "learning_rate", "batch_size")  # flags that make a run another one


def start(main, args, facts, wording, kind):
    """Run `main(run)` with everything decided; returns the exit code.

    facts, wording: the folder's model.py and prompts.py. kind: "training", "baseline" or "inference".
    """
    return console.exit_code(prepare_and_run, main, args, facts, wording, kind)


def prepare_and_run(main, args, facts, wording, kind):
    run = resolve(args, facts, wording, kind)
    if args.dry_run:
        return say(run.plan())
    if args.resume and run.finished():
        say(f"finished before, nothing to do\nrecord: {records.display(run.record_path)}")
        return None
    machine.check(run)
    quiet_libraries(run)
    run.settings["precision"] = machine.precision(facts.PRECISION)
    run.environment = records.environment()
    say(run.plan())
    if run.text:
        from common import evaluation

        return say(evaluation.answer(run))
    return main(run)


@dataclass
class Run:
    """What the stages of a script hand to each other."""

    args: object
    facts: object
    wording: object
    kind: str
    task: str
    method: str
    setting: str
    checkpoint: checkpoints.Checkpoint
    settings: dict
    folder: Path  # adapter, checkpoints, predictions; ignored by git
    record_path: Path
    experiment: Path | None = None  # the trained run that an inference script uses
    started_at: str = field(default_factory=records.now)
    environment: dict | None = None  # as it was when the run started: code can change while it runs
    truncated: dict = field(default_factory=dict)
    training: dict | None = None
    data_sha256: str | None = None

    @property
    def trains(self):
        return self.kind == "training"

    @property
    def text(self):
        """The one text that an inference script is asked to answer, or None."""
        return vars(self.args).get("text")

    @property
    def stages(self):
        """Which models the test stage scores."""
        return {
            "training": ["tuned"] if vars(self.args).get("no_before") else ["base", "tuned"],
            "baseline": ["base"],
            "inference": ["tuned"],
        }[self.kind]

    @cached_property
    def tokenizer(self):
        from common import loading

        return loading.tokenizer(self.checkpoint)

    @property
    def template(self):
        if self.kind == "baseline":
            return self.wording.BASELINE[self.task, self.args.prompt_type]
        return getattr(self.wording, self.task.upper())

    def encoder(self, labels, train=()):
        """Prompts and answers as token ids, for this run's wording, format and document length.

        labels: class names, empty for free text; train: rows that few-shot examples are taken from."""
        from common import encoding

        return encoding.Encoder(
            self.tokenizer,
            self.template,
            self.settings["format"],
            self.settings["max_document_tokens"],
            PROMPT_BUDGET,
            labels,
            encoding.shots(train, labels, self.template.shots),
        )

    def model(self):
        """The 4-bit base model, with the trained adapter on it where the script uses one."""
        from common import loading

        model = loading.base(self.checkpoint, self.settings["precision"], self.args.use_flash_attention)
        if self.experiment:
            model = loading.with_adapter(model, self.experiment / "adapter")
        if not self.text:
            self.keep_settings()
        return model

    def keep_settings(self):
        """Write what this folder's files belong to; refuse to resume something else."""
        path = self.folder / "settings.json"
        mine = {
            "checkpoint": self.checkpoint.name,
            "task": self.task,
            "method": self.method,
            "setting": self.setting,
            "settings": self.settings,
            "data_sha256": self.data_sha256,
        }
        if self.args.resume and path.is_file() and records.read(path) != mine:
            raise InputError(
                f"{self.folder} holds a run with other settings or data; drop --resume or name another --output_dir"
            )
        records.write_json(path, mine)

    def finished(self):
        if not self.record_path.is_file():
            return False
        record = records.read(self.record_path)
        found = {name: value for name, value in record["settings"].items() if name != "precision"}
        return record["status"] == "done" and found == self.settings

    def plan(self):
        """What will be done, resolved, before it is done."""
        rows = [
            ("plan", f"{self.facts.NAME}, {self.task}: {self.method}" + (f" ({self.setting})" if self.setting else ""))
        ]
        rows += [("checkpoint", f"{self.checkpoint.name} ({self.checkpoint.source})")]
        rows += [(name, str(value)) for name, value in self.settings.items() if value is not None]
        rows += [("scores", " and ".join(f"the {stage} model" for stage in self.stages))]
        state = " (finished)" if self.finished() else ""
        rows += [("files", records.display(self.folder)), ("record", records.display(self.record_path) + state)]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"  {name.ljust(width)}  {value}" for name, value in rows)


def resolve(args, facts, wording, kind):
    """The Run that the flags ask for. Reads no data and loads nothing."""
    task = args.task_type
    trained, experiment = {}, None
    if kind == "inference":
        experiment = find_experiment(args, facts, task)
        trained = records.read(experiment / "settings.json")
        if trained.get("task") != task:
            raise InputError(f"{experiment} was trained for {trained.get('task')}, this script is for {task}")
    name = args.pretrained_ckpt or trained.get("checkpoint") or ("smollm2" if args.demo else facts.CHECKPOINT)
    checkpoint = checkpoints.find(name, revision=facts.REVISION if name == facts.CHECKPOINT else None)
    settings = {n: v for n, v in trained.get("settings", {}).items() if n != "precision"} or choose(
        args, facts, checkpoint, task, kind
    )
    if kind == "inference":
        asked = {
            n: vars(args)[n]
            for n in ("max_document_tokens", "inference_batch_size", "max_test_samples")
            if vars(args)[n]
        }
        settings = {**settings, **asked, "data": data_name(args)}
        method, setting = trained["method"], trained["setting"]
    elif kind == "baseline":
        method, setting = args.prompt_type, ""
    else:
        method, setting = method_name(args), setting_name(args, facts, checkpoint, settings)
    home = Path(facts.__file__).resolve().parent
    label = "_".join(
        [
            *(["inference"] if experiment else []),
            task,
            checkpoint.label,
            method.replace("+", "-"),
            stamp([kind, settings, checkpoint.name]),
        ]
    )
    if args.output_dir:
        folder = Path(args.output_dir).expanduser()
        record_path = folder / "record.json"
    else:
        folder = home / "experiments" / label
        record_path = folder / "record.json" if args.demo else home / "results" / f"{label}.json"
    return Run(args, facts, wording, kind, task, method, setting, checkpoint, settings, folder, record_path, experiment)


def choose(args, facts, checkpoint, task, kind):
    """Every setting of a run, by the order of precedence in this file's first lines."""
    from_folder = {
        "format": facts.FORMAT,
        "targets": facts.ATTENTION_TARGETS,
        "lora_r": 64,
        "dropout": 0.1,
        "lora_alpha": facts.LORA_ALPHA,
        "learning_rate": facts.LEARNING_RATE,
        "lr_scheduler": "cosine",
        "batch_size": facts.BATCH_SIZE,
        "device_batch_size": facts.DEVICE_BATCH_SIZE,
        "inference_batch_size": facts.INFERENCE_BATCH_SIZE,
        "epochs": facts.EPOCHS,
        "max_document_tokens": facts.MAX_DOCUMENT_TOKENS,
    }
    found = from_folder | checkpoint.settings | (checkpoint.demo if args.demo else {})
    given = {name: value for name, value in vars(args).items() if name in found and value is not None}
    found = {name: value[task] if isinstance(value, dict) else value for name, value in found.items()} | given
    shared = ("format", "inference_batch_size", "max_document_tokens")
    settings = {name: found[name] for name in shared}
    settings["max_new_tokens"] = generation.MAX_NEW_TOKENS[task]
    settings["quantization"] = QUANTIZATION
    settings["data"] = data_name(args)
    settings["max_test_samples"] = args.max_test_samples
    if kind != "training":
        return settings
    if args.full_tune:
        found["targets"] = found["targets"] if found["targets"] == "all-linear" else facts.ALL_TARGETS
    settings |= {name: found[name] for name in from_folder if name not in shared}
    for name in ("neftune", "train_sample_fraction", "max_train_samples", "seed"):
        settings[name] = vars(args)[name]
    return settings


def data_name(args):
    """Which data a run is of, as far as the flags tell."""
    return args.data or ("sample" if args.demo else "standard")


def method_name(args):
    """As in the published tables: qlora, qlora+neftune, qlora+all-modules, qlora+neftune+all-modules."""
    return "qlora" + ("+neftune" if args.neftune else "") + ("+all-modules" if args.full_tune else "")


def setting_name(args, facts, checkpoint, settings):
    """What sets a run apart from the method's default on all rows: the key of a table's row."""
    parts = []
    if args.task_type == "classification" or args.train_sample_fraction < 1:
        parts.append(f"train_sample_fraction={args.train_sample_fraction:g}")
    if args.max_train_samples:
        parts.append(f"max_train_samples={args.max_train_samples}")
    unasked = argparse.Namespace(**{**vars(args), **dict.fromkeys(TUNABLE)})
    usual = choose(unasked, facts, checkpoint, args.task_type, "training")
    parts += [f"{name}={settings[name]}" for name in TUNABLE if settings[name] != usual[name]]
    return " ".join(parts)


def stamp(value):
    """Ten letters that differ when any setting differs."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def find_experiment(args, facts, task):
    """The trained run to use: --experiment_dir, or the newest of this task in the folder's experiments/."""
    if args.experiment_dir:
        folder = Path(args.experiment_dir).expanduser()
        if not (folder / "settings.json").is_file() or not (folder / "adapter").is_dir():
            raise InputError(f"{folder} holds no trained run (settings.json and adapter/): train one first")
        return folder
    found = []
    for path in (Path(facts.__file__).resolve().parent / "experiments").glob("*/adapter/adapter_model.safetensors"):
        folder = path.parent.parent
        if (folder / "settings.json").is_file() and records.read(folder / "settings.json").get("task") == task:
            found.append((path.stat().st_mtime, folder))
    if not found:
        script = Path(sys.argv[0]).name.replace("_inference", "")
        raise InputError(f"nothing trained yet for {task}: run {script} first, or name a folder with --experiment_dir")
    return max(found)[1]


def quiet_libraries(run):
    """Keep loaders' bars and hints off the screen, and everything off the network if nothing is needed
    from it. Must come before transformers is imported."""
    data_at_hand = run.args.data or run.args.demo or os.environ.get("DATA_DIR")
    if run.checkpoint.source != "hub" and data_at_hand:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import warnings

    import transformers

    warnings.filterwarnings("ignore", category=FutureWarning)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
