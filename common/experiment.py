"""One run of one script: its settings resolved, its machine checked, its places named.

What was chosen is printed before anything runs and stands in the record.
"""

import hashlib
import json
import logging
import os
import sys
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from common import checkpoints, console, machine, memory, records, settings
from common.console import InputError, say

PROMPT_BUDGET = 2048  # tokens a few-shot prompt may take: within every window here, and a CPU's patience


def start(main, args, facts, wording, kind):
    """Run `main(run)` with everything decided; returns the exit code.

    facts, wording: the folder's model.py and prompts.py. kind: "training", "baseline" or "inference".
    """
    return console.exit_code(prepare_and_run, main, args, facts, wording, kind)


def prepare_and_run(main, args, facts, wording, kind):
    run = resolve(args, facts, wording, kind)
    if args.dry_run:
        say(run.plan())
        return say(budgeted(run)) if run.trains and args.dry_run != "plan" else None
    if args.resume and run.finished():
        say(f"finished before, nothing to do\nrecord: {records.display(run.record_path)}")
        return None
    machine.check(run)
    memory.keep_freed()
    quiet_libraries(run.checkpoint, run.args.data or run.args.demo or os.environ.get("DATA_DIR"))
    whole = run.trains and not run.settings["lora_r"]
    run.settings["precision"] = machine.run_precision(facts.PRECISION, whole)
    run.environment = records.environment()
    say(run.plan())
    if run.text:
        from common import encoders, evaluation

        return say((encoders if run.is_encoder else evaluation).answer(run))
    return main(run)


def budgeted(run):
    """What the run takes, as text. The libraries that count it are loaded for this alone."""
    quiet_libraries(run.checkpoint)
    from common import budget

    return budget.report(run)


@dataclass
class Run:
    """What the stages of a script hand to each other."""

    args: object
    facts: object
    variant: checkpoints.Variant  # of the folder's: the one to run or, for a stand-in, the first
    wording: object
    kind: str
    task: str
    method: str
    setting: str
    checkpoint: checkpoints.Checkpoint
    settings: dict  # settings.choose
    folder: Path  # adapter, checkpoints, predictions; ignored by git
    record_path: Path
    experiment: Path | None = None  # the trained run that an inference script uses
    started_at: str = field(default_factory=records.now)
    environment: dict | None = None  # as it was when the run started: code can change while it runs
    truncated: dict = field(default_factory=dict)
    training: dict | None = None
    estimate: dict | None = None  # budget.before
    confusion: dict = field(default_factory=dict)  # stage -> {"labels", "counts"}, where classes are few
    data_sha256: str | None = None

    @property
    def trains(self):
        return self.kind == "training"

    @property
    def is_encoder(self):
        return self.settings["format"] == "encoder"

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
            encoding.shots(train, labels, encoding.SHOTS.get((self.task, self.method), 0)),
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
        setting = f" ({self.setting})" if self.setting else ""
        rows = [("plan", f"{self.variant.name}, {self.task}: {self.method}{setting}")]
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
    usual = vars(facts).get("DEFAULTS", {}).get(task, facts.VARIANTS[0].checkpoint)
    first = next(variant for variant in facts.VARIANTS if variant.checkpoint == usual)
    name = args.pretrained_ckpt or trained.get("checkpoint")
    name = name or (checkpoints.stand_in(first.format) if args.demo else first.checkpoint)
    own = next((each for each in facts.VARIANTS if name in (each.checkpoint, local_copy(name, each))), None)
    checkpoint, variant = checkpoints.find(name, own and own.revision), own or first
    if kind == "inference":
        method = trained["method"]
        setting = " ".join(filter(None, [trained["setting"], settings.decoding_name(args)]))
        chosen = settings.of_trained(trained, args)
    else:
        chosen = settings.choose(args, facts, variant, checkpoint, kind)
        method = settings.method(args, chosen, kind)
        setting = settings.name(args, facts, variant, checkpoint, chosen, kind)
    home = Path(facts.__file__).resolve().parent
    label = "_".join(
        [
            *(["inference"] if experiment else []),
            task,
            checkpoint.label,
            method.replace("+", "-"),
            stamp([kind, chosen, checkpoint.name]),
        ]
    )
    if args.output_dir:
        folder = Path(args.output_dir).expanduser()
        record_path = folder / "record.json"
    else:
        folder = home / "experiments" / label
        record_path = folder / "record.json" if args.demo else home / "results" / f"{label}.json"
    return Run(
        args, facts, variant, wording, kind, task, method, setting, checkpoint, chosen, folder, record_path, experiment
    )


def local_copy(name, variant):
    """`name` if it is a folder that is called like the variant: a copy of it, with its format."""
    return name if Path(name).is_dir() and Path(name).name == Path(variant.checkpoint).name else None


def stamp(value):
    """Ten letters that differ when any setting differs."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def find_experiment(args, facts, task):
    """The trained run to use: --experiment_dir, or the newest of this task in the folder's experiments/."""
    if args.experiment_dir:
        folder = Path(args.experiment_dir).expanduser()
        if not (folder / "settings.json").is_file() or not (
            (folder / "adapter").is_dir() or (folder / "model").is_dir()
        ):
            raise InputError(f"{folder} holds no trained run (settings.json and adapter/ or model/): train one first")
        return folder
    found = []
    home = Path(facts.__file__).resolve().parent / "experiments"
    for path in [*home.glob("*/adapter/adapter_model.safetensors"), *home.glob("*/model/model.safetensors")]:
        folder = path.parent.parent
        if (folder / "settings.json").is_file() and records.read(folder / "settings.json").get("task") == task:
            found.append((path.stat().st_mtime, folder))
    if not found:
        script = Path(sys.argv[0]).name.replace("_inference", "")
        raise InputError(f"nothing trained yet for {task}: run {script} first, or name a folder with --experiment_dir")
    return max(found)[1]


def quiet_libraries(checkpoint, data_at_hand=True):
    """Keep loaders' bars and hints off the screen, and everything off the network if nothing is needed
    from it. Must come before transformers is imported."""
    if checkpoint.source != "hub" and data_at_hand:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # hints about optional kernels
    import transformers

    warnings.filterwarnings("ignore", category=FutureWarning)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
