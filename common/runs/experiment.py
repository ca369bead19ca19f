"""One experiment: it makes a run from the script's settings, the flags and the checkpoint's home folder.

The home folder of a checkpoint is the model folder that lists it. A setting has the value of a flag; without the flag
that of the home folder's script; without such a script that of the script that runs.
"""

import dataclasses
import functools
import itertools
import os
import sys
from pathlib import Path

from common import checkpoints, console, data, encoding, files, processes
from common.console import InputError, say
from common.runs import checks, flags, folders, identity, questions, records, run
from common.settings import Settings

LISTED = 30  # classes: the prompt of own data names as many; of more it says that the answer is a class's name


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A script's description of its experiment.

    file, doc: the script's __file__ and __doc__; kind: a key of flags.KINDS; settings: its Settings, or {task:
    Settings} if --task_type chooses; facts, wording: the folder's model.py and prompts.py; variant: the default
    checkpoint (default: the first in model.py); demo, adapter: settings that --demo and --lora_r change; shots: {task:
    {prompt type: number of examples}}; prompted: whether the script can also score the untrained model."""

    file: str
    doc: str
    task: str
    kind: str
    settings: object
    facts: object
    wording: object
    variant: checkpoints.Variant | None = None
    demo: dict = dataclasses.field(default_factory=dict)
    adapter: dict = dataclasses.field(default_factory=dict)
    shots: dict = dataclasses.field(default_factory=dict)
    prompted: bool = False

    @property
    def home(self):
        """The script's folder. `facts` can be of another folder, if the checkpoint is borrowed from it."""
        return Path(self.file).resolve().parent

    @property
    def script(self):
        return f"{self.home.name}/{Path(self.file).name}"

    @property
    def by_task(self):
        return self.settings if isinstance(self.settings, dict) else {self.task: self.settings}

    @property
    def first(self):
        return self.variant or self.facts.VARIANTS[0]

    def start(self, main, answers=None):
        """Run main(run) or, with --text or --input, print or write answers(run); returns the exit code."""
        return console.exit_code(self.execute, main, answers)

    def execute(self, main, answers):
        args = self.arguments()
        if args.dry_run == "budget" and self.kind_of(args) == "training":
            # common/budget is in a higher layer than this file, so it runs as a command.
            sys.stdout.flush()
            words = ["-m", "common", "budget", self.file, *sys.argv[1:]]
            os.execv(sys.executable, [sys.executable, *words])  # noqa: S606
        runs, code = self.resolve_all(), None
        if args.dry_run:
            return say("\n".join(this_run.plan() for this_run in runs))
        if args.resume and all(this_run.finished() for this_run in runs):
            return say(f"finished before, nothing to do\nrecord: {files.display(runs[-1].record_path)}")
        checks.check_machine(runs[-1])
        if runs[-1].data is None and not runs[-1].asks:
            runs = self.resolve_all(fetch=True)
        for this_run in runs:
            if not (args.resume and this_run.finished()):
                code = run.perform(this_run, main, answers)
        return code

    @functools.cached_property
    def parser(self):
        writes = self.first.format != "encoder"
        return flags.parser(self.doc, self.kind, list(self.by_task), self.by_task, writes, self.prompted)

    def arguments(self, words=None):
        return self.parser.parse_args(words)

    def kind_of(self, args):
        """The kind of the run: "training", "baseline" or "inference"."""
        if self.prompted and (args.prompt_type or args.random_head):
            return "baseline"
        return {"loop": "training", "untrained": "baseline"}.get(self.kind, self.kind)

    def resolve_all(self, words=None, fetch=False):
        """[run.Run] of a command line: with --score_after_epochs one for each number of epochs, which continues the one
        before where that gives the same. Arguments are those of `resolve`. Raises InputError."""
        args = self.arguments(words)
        ends = sorted(set(vars(args).get("score_after_epochs") or ()))
        if not ends:
            return [self.resolve(words, fetch)]
        if args.epochs or args.output_dir:
            raise InputError("--score_after_epochs makes a run for each number: leave --epochs and --output_dir out")
        if self.kind_of(args) != "training":
            raise InputError("--score_after_epochs is for trainings: leave it out")
        if processes.count() > 1:
            raise InputError("--score_after_epochs trains by one process: give one number of --epochs")
        runs = [self.resolve(words, fetch, epochs) for epochs in ends]
        for shorter, longer in itertools.pairwise(runs if passes_through_shorter(runs[-1].settings) else ()):
            shorter.execution = dataclasses.replace(shorter.execution, goes_on=True)
            longer.execution = dataclasses.replace(longer.execution, goes_on_from=shorter.execution.folder)
        return runs

    def resolve(self, words=None, fetch=False, epochs=None):
        """The run.Run of a command line. Loads no model; reads the rows if they are on this machine or, with `fetch`,
        from the hub. words: the command line (default: sys.argv); epochs: in place of its --epochs. Raises
        InputError."""
        args = self.arguments(words)
        if epochs:
            args.epochs = epochs
        task, trained = args.task_type, None
        if self.kind == "inference":
            questions.check(args)
            trained = trained_run(self, task, args.experiment_dir, sources_of(args))
        name = args.pretrained_ckpt or (trained and trained.checkpoint)
        name = name or (checkpoints.stand_in(self.first.format) if args.demo else self.first.checkpoint)
        checkpoint, variant, home = self.located(name)
        kind = self.kind_of(args)
        settings = with_flags(trained.settings if trained else self.chosen(task, home, args), args, home.facts, kind)
        checks.check_baseline(settings.baseline, task)
        if checkpoint.name == variant.checkpoint:
            checks.check_context(settings, variant)
        target = next((vars(args)[flag] for flag in flags.TARGET[task] if flag.endswith("_column")), None)
        rows = {"path": args.data, "demo": args.demo, "text_column": args.text_column, "target_column": target}
        rows |= {name: vars(args).get(name) for name in ("encoding", "delimiter", "label_names")}
        rows |= {limit: getattr(settings, limit) for limit in identity.LIMITS}
        asks = vars(args).get("text") or vars(args).get("input")
        reads_rows = fetch or (not asks and data.at_hand(task, args.data, args.demo))
        data_rows = data.of_task(task, **rows) if reads_rows else None
        run_identity = identity.Identity(
            kind=kind,
            task=task,
            checkpoint=checkpoint.name,
            revision=checkpoint.revision,
            format=trained.format if trained else variant.format,
            wording=self.worded(task, args, trained, data_rows),
            data=data_fields(data_rows, rows, task),
            settings=settings.fields(),
            precision=args.precision,
            trained=trained and {"id": trained.id, "sha256": trained.sha256},
        )
        return run.Run(self, home.facts, args, run_identity, settings, checkpoint, variant, rows, data_rows, trained)

    def worded(self, task, args, trained, data_rows):
        """The wording of a run, as fields of encoding.Template: that of the folder's prompts.py or, for own data, of
        --instruction. A model that was trained on own data is asked in the words of its training."""
        wording = dataclasses.asdict(getattr(self.wording, task.upper()))
        if trained and trained.source == "own":
            return trained.wording
        if trained and trained.wording != wording:
            console.warn("prompts.py says something else than when this model was trained: it is asked in other words")
        instruction = vars(args).get("instruction")
        if instruction and not args.data:
            raise InputError("--instruction is for own rows: it needs --data")
        if trained or not args.data or self.first.format == "encoder" or task == "instructions":
            return wording
        listed = len(data_rows.labels) <= LISTED
        return dataclasses.asdict(encoding.own_template(instruction, data.TASKS[task][1], listed))

    def located(self, name):
        """(Checkpoint, Variant, Experiment of its home folder) of the checkpoint called `name`. This folder is the home
        of checkpoints that no folder lists, and of local copies of its variants, which it knows by their name."""
        variants = [variant for variant in self.facts.VARIANTS if name == variant.checkpoint or is_copy(name, variant)]
        if variants:
            return checkpoints.find(name, variants[0].revision), variants[0], self
        home_folder = folders.home(name)
        if not home_folder:
            variant = self.first
            if variant.format == "chat" and Path(name).is_dir() and not has_chat_template(Path(name)):
                variant = dataclasses.replace(variant, format="plain")
            return checkpoints.find(name), variant, self
        facts, variant = home_folder
        if (variant.format == "encoder") != (self.first.format == "encoder"):
            kinds = ("an encoder", "a model that writes")
            own, other = kinds if self.first.format == "encoder" else kinds[::-1]
            usable = checkpoints.stand_in(self.first.format)
            raise InputError(f"these scripts are for {own}, {name} is {other}; embedded: {usable}")
        folder = Path(facts.__file__).parent
        script = folder / Path(self.file).name.replace(self.home.name, folder.name, 1)
        home_experiment = folders.experiment(script) if script.is_file() else self
        return checkpoints.find(name, variant.revision), variant, dataclasses.replace(home_experiment, facts=facts)

    def chosen(self, task, home, args):
        """Settings of the home folder's script with the changes of --demo, --lora_r or --prompt_type; `with_flags`
        applies the other flags."""
        settings = home.by_task.get(task) or self.by_task[task]
        prompt_type = vars(args).get("prompt_type")
        if prompt_type or vars(args).get("random_head"):
            settings = settings.untuned()
        if prompt_type:
            return settings.replaced({"prompt_type": prompt_type, "shots": self.shots[task][prompt_type]})
        if settings.targets:
            facts = home.facts
            settings = settings.replaced(
                {"targets": facts.ALL_TARGETS if settings.full_tune else facts.ATTENTION_TARGETS}
            )
        if vars(args).get("lora_r") and settings.lora_r is None:
            settings = settings.replaced(home.adapter.get(task, home.adapter))
        if args.demo and self.kind in ("training", "loop"):
            settings = settings.replaced(home.demo.get(task, home.demo))
        return settings


def passes_through_shorter(settings):
    """Whether a training passes through the results of the same training with fewer epochs: not if the learning rate
    depends on their number or the best epoch is kept."""
    return settings.lr_scheduler == "constant" and settings.keep == "last" and settings.trainer == "SFTTrainer"


def is_copy(name, variant):
    """Whether `name` is a local folder with the variant's name."""
    return Path(name).is_dir() and Path(name).resolve().name == Path(variant.checkpoint).name


def has_chat_template(folder):
    """Whether the tokenizer in a model's folder has a chat template."""
    config = folder / "tokenizer_config.json"
    in_config = config.is_file() and '"chat_template"' in config.read_text(encoding="utf-8", errors="replace")
    return in_config or (folder / "chat_template.jinja").is_file()


def with_flags(settings, args, facts, kind):
    """`settings` with the values of the flags. Raises InputError for flags that contradict each other or have no
    effect. facts: the home folder's model.py; kind: "training", "baseline" or "inference"."""
    names = Settings.names()
    given = {n: v for n, v in vars(args).items() if n in names and v is not None and v is not False}
    if settings.lora_r is None and not given.get("lora_r") and kind == "training":
        for name in ("dropout", "lora_alpha", "full_tune"):
            if name in given:
                raise InputError(f"--{name} is the adapter's: it needs --lora_r")
    if kind == "inference":  # do not take over the number of test rows from the training
        given = {"max_test_samples": None} | given
    if given.get("full_tune"):
        given["targets"] = facts.ALL_TARGETS
    if vars(args).get("random_head"):
        given["head"] = "random"
    if vars(args).get("random_head") and vars(args).get("prompt_type"):
        raise InputError("--random_head reads no answer to a prompt: leave --prompt_type out")
    if kind == "baseline":
        for name in (*flags.TUNING, *flags.ADAPTER):
            if name in given:
                raise InputError(f"--{name} is a training's: leave it out, or --prompt_type and --random_head")
    settings = settings.replaced(given)
    if settings.num_beams > 1 and settings.samples:
        raise InputError("--num_beams searches, --temperature and --top_k sample: give one of the two")
    if settings.bertscore_model:
        checks.check_encoder(settings.bertscore_model)
    return settings


def data_fields(data_rows, request, task):
    """The `data` field of an identity. data_rows: what common/data.py read, None (then without digests) if nothing;
    request: the arguments for common/data.py."""
    columns = {"text_column": request["text_column"], "target_column": request["target_column"]}
    if data_rows is None:
        return {
            "name": data.TASKS[task][0]["name"],
            **columns,
            "sha256": dict.fromkeys(("train", "validation", "test")),
        }
    return {"name": data_rows.name, **columns, "sha256": data_rows.sha256}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A training run that an inference script uses."""

    folder: Path
    id: str
    sha256: str  # of the weights
    checkpoint: str
    format: str
    wording: dict
    source: str  # of its training rows: "sample", "study" or "own"
    columns: dict  # {"text_column", "target_column"} that it was trained on, None for the data set's own
    settings: Settings


def sources_of(args):
    """Sources of training rows ("sample", "study", "own") among which an inference without --experiment_dir looks for
    its training: the source of the rows to score; for --text and --input any but the sample."""
    if args.demo:
        return ("sample",)
    if args.text or args.input:
        return ("study", "own")
    return ("own",) if args.data else ("study",)


def trained_run(experiment, task, folder, sources):
    """The Trained in `folder`; without a folder, the newest one of the task under the home's experiments/ that was
    trained on rows from one of `sources`. Raises InputError."""
    if folder:
        folder = files.expanded(folder)
        if not records.weights_of(folder) or not (folder / "run.json").is_file():
            raise InputError(f"{folder} holds no trained run (run.json and adapter/ or model/): train one first")
        run_json = records.run_of(folder)
        if run_json["identity"]["task"] != task:
            raise InputError(f"{folder} was trained for {run_json['identity']['task']}, this script is for {task}")
    else:
        runs = []
        for path in sorted((experiment.home / "experiments").glob(f"{task}_*/run.json")):
            file, run_json = records.weights_of(path.parent), records.run_of(path.parent)
            if file and run_json["source"] in sources and run_json["identity"]["kind"] == "training":
                runs.append((file.stat().st_mtime, path.parent, run_json))
        if not runs:
            script = Path(experiment.file).name.replace("_inference", "")
            raise InputError(
                f"nothing trained yet for {task}: run {script} first, or name a folder with --experiment_dir"
            )
        _, folder, run_json = max(runs, key=lambda candidate: candidate[0])
    fields = run_json["identity"]
    settings, digest = Settings().replaced(fields["settings"]), checkpoints.sha256(records.weights_of(folder))
    details = (fields[name] for name in ("checkpoint", "format", "wording"))
    return Trained(folder, run_json["id"], digest, *details, run_json["source"], fields["data"], settings)
