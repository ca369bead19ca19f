"""One run: its name, its folder, its plan, its start and its record."""

import contextlib
import dataclasses
import functools
import logging
import os
import re
import shlex
import warnings

from common import console, data, encoding, files, machine, metrics, precision, processes, qlora, training
from common.console import Failed, InputError, say
from common.runs import claim, identity, questions, records
from common.settings import Execution

STAGES = {"training": ("base", "tuned"), "baseline": ("base",), "inference": ("tuned",)}
PLACES = (
    "score_after_epochs",
    "data",
    "encoding",
    "delimiter",
    "label_names",
    "output_dir",
    "resume",
    "dry_run",
    "experiment_dir",
    "price_per_hour",
    "instance",
    "threads",
)


class Run:
    """One run of an experiment. A script passes its attributes to the stages, which do not change them.

    rows: arguments for common/data.py; data: the rows, None before they are read; trained: folder of the training that
    an inference uses, else None.
    """

    def __init__(self, experiment, facts, args, run_identity, settings, checkpoint, variant, rows, data_rows, trained):
        self.experiment, self.facts, self.args, self.identity = experiment, facts, args, run_identity
        self.settings, self.checkpoint, self.variant = settings, checkpoint, variant
        self.rows, self.data = rows, data_rows
        self.task, self.kind, self.format = run_identity.task, run_identity.kind, run_identity.format
        self.template = encoding.Template(**run_identity.wording)
        self.method, self.text = identity.method(run_identity.fields()), vars(args).get("text")
        self.asks = bool(self.text or vars(args).get("input"))  # for answers, not for a test
        self.trained, self.trained_columns = trained and trained.folder, trained.columns if trained else {}
        self.started_at, self.environment = records.now(), None
        inference = "inference_" if run_identity.kind == "inference" else ""
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", checkpoint.label).strip("-.") or "model"
        label = f"{inference}{run_identity.task}_{name}_{self.method.replace('+', '-')}_{run_identity.id}"
        folder = files.expanded(args.output_dir) if args.output_dir else experiment.home / "experiments" / label
        # Tables show the records in results/: runs of this folder's own checkpoints on the study's own rows.
        own = any(checkpoint.name == own_variant.checkpoint for own_variant in experiment.facts.VARIANTS)
        shown = own and (not data_rows or data_rows.kind == "study") and not args.output_dir
        self.record_path = experiment.home / "results" / f"{label}.json" if shown else folder / "record.json"
        if self.asks:
            folder = None if self.text else files.expanded(f"{args.output}.partial")
        kernels = ("use_flash_attention", "use_liger_kernel", "torch_compile")
        self.execution = Execution(
            folder=folder,
            resume=args.resume,
            precision=args.precision,
            inference_batch_size=args.inference_batch_size or facts.INFERENCE_BATCH_SIZE,
            stages=STAGES[run_identity.kind][1 if self.trains and args.no_before else 0 :],
            report_to=args.report_to,
            **{name: vars(args).get(name, False) for name in kernels},
        )

    @functools.cached_property
    def tokenizer(self):
        return qlora.tokenizer(self.checkpoint)

    @functools.cached_property
    def questions(self):
        """The questions.Questions of --text or --input."""
        return questions.of_run(self)

    @property
    def labels(self):
        """Class names of the training that an inference uses; empty if answers are free text. Raises InputError."""
        return training.trained_labels(self.trained)

    @property
    def is_encoder(self):
        return self.format == "encoder"

    @property
    def trains(self):
        return self.kind == "training"

    def plan(self):
        """The plan of the run as text: the value of every setting, and where the record will be."""
        rows = [("plan", f"{self.variant.name}, {self.task}: {self.method}")]
        rows += [("checkpoint", f"{self.checkpoint.name} ({self.checkpoint.source})")]
        rows += [("format", self.format), ("precision", self.identity.precision)]
        rows += [("data", self.data.source if self.data else f"{self.identity.data['name']} (hub)")]
        settings = {name: value for name, value in self.settings.fields().items() if value is not None}
        rows += [(n, " ".join(v) if isinstance(v, list) else str(v)) for n, v in settings.items() if v is not False]
        rows += [("scores", " and ".join(f"the {stage} model" for stage in self.execution.stages))]
        if self.data:
            state = " (finished)" if self.finished() else ""
            rows += [("files", files.display(self.execution.folder))]
            rows += [("record", files.display(self.record_path) + state)]
        else:
            rows += [("record", "named once the rows are read: they are part of what a run is")]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"  {name.ljust(width)}  {value}" for name, value in rows)

    def recorded(self):
        """The record of this run, without a full check; None if there is none. One that is not whole is passed over
        with a warning: the run will write it anew."""
        if not self.data or not os.path.isfile(self.record_path):  # also False for a name that is too long
            return None
        try:
            record = files.read_json(self.record_path)
            is_whole = {"status", "id", "reason", "training", "inference"} <= set(record)
        except (InputError, TypeError):
            is_whole = False
        if not is_whole:
            return console.warn(f"{files.display(self.record_path)} is not a whole record: this run starts anew")
        return record if record["id"] == self.identity.id else None

    def finished(self):
        """Whether the record of this run exists and has the status "done"."""
        record = self.recorded()
        return bool(record) and record["status"] == "done"

    def finish(self, rows, truncated, scores, report=None):
        """The last stage of every script: write the record, print its small table and its path.

        rows: from common/data.py; truncated: {split: number of documents that were cut}; scores: {"base", "tuned",
        "inference", "confusion", "row_scores"} of the test stage; report: {"training", "estimate"} of a training.
        """
        tuned = scores["tuned"]
        record = self.record(rows, report) | {
            "metrics": tuned or scores["base"],
            "metrics_before": scores["base"] if tuned else None,
            "confusion": scores["confusion"] or None,
            "row_scores": scores["row_scores"],
            "inference": scores["inference"],
        }
        record["data"]["truncated"] = dict(truncated)
        self.write(record)
        say(small(record))
        say(f"record: {files.display(self.record_path)}")

    def write(self, record):
        """Add the cost and the time of the end to the record, validate and write it. Raises InputError."""
        seconds = (record["training"] or {}).get("seconds") or 0
        seconds += sum(spent or 0 for spent in ((record["inference"] or {}).get("stages") or {}).values())
        price = self.args.price_per_hour
        record["cost"]["usd"] = round(price * seconds / 3600, 6) if price else None
        record["finished_at"] = records.now()
        record = files.finite(record)
        records.validate(record)
        files.write_json(self.record_path, record)

    def record(self, rows, report=None):
        """The record without scores. rows: from common/data.py; report: {"training", "estimate"} of a training."""
        training, estimate = (report or {}).get("training"), (report or {}).get("estimate")
        return {
            "schema_version": records.SCHEMA_VERSION,
            "status": "done",
            "reason": None,
            "id": self.identity.id,
            "identity": self.identity.fields(),
            "model": self.variant.name,
            "script": self.experiment.script,
            "command": self.command(),
            "data": {
                "source": rows.source,
                "kind": rows.kind,
                "n": rows.n,
                "dropped": rows.dropped,
                "truncated": {},
            },
            **dict.fromkeys(("metrics", "metrics_before", "confusion", "row_scores")),
            "training": training,
            "estimate": compared(estimate, training),
            "inference": None,
            "cost": {"usd": None, "price_per_hour": self.args.price_per_hour, "instance": self.args.instance},
            "environment": self.environment,
            "started_at": self.started_at,
            "finished_at": records.now(),
        }

    def command(self):
        """The command that repeats this run, without the flags in PLACES, which concern this machine only."""
        defaults, words = vars(self.experiment.arguments([])), []
        for name, value in vars(self.args).items():
            if value != defaults[name] and name not in PLACES:
                words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return console.masked(shlex.join(["python", self.experiment.script, *words]))


def compared(estimate, training):
    """The estimate with its errors against the measurement: 0.1 is 10 % too much; None if either is unknown."""
    if not estimate:
        return None
    error = {}
    for name in ("peak_memory_bytes", "seconds"):
        measured = (training or {}).get(name)
        error[name] = estimate[name] / measured - 1 if measured and estimate[name] else None
    return {**estimate, "peak_error": error["peak_memory_bytes"], "seconds_error": error["seconds"]}


def small(record):
    """The scores of one record before and after training, as a table for the terminal."""
    before = record["metrics_before"]
    rows = [["metric (%, 95 % interval)", *(["base"] if before else []), "tuned" if record["training"] else "model"]]
    for name, metric in record["metrics"].items():
        earlier = [metrics.figure(before.get(name))] if before else []
        rows.append([metrics.TITLES.get(name, name), *earlier, metrics.figure(metric)])
    lines = [
        f"{record['data']['n']['test']} test rows of {record['data']['source']}, {record['identity']['checkpoint']}"
    ]
    if training := record["training"]:
        speed, peak = training["tokens_per_second"], training["peak_memory_bytes"]
        lines.append(
            f"trained on {record['data']['n']['train']} rows in {console.duration(training['seconds'] or 0)}, "
            f"{speed or 0:.0f} tokens/s, peak {(peak or 0) / 1e9:.1f} GB"
        )
    if written := counts(record["metrics"]):
        lines.append(f"free generation, rows: {written}")
    for stage, matrix in (record["confusion"] or {}).items():
        if len(matrix["labels"]) == 2:
            lines += ["", console.columns([[stage, "precision", "recall", "F1", "rows"], *metrics.report(matrix)])]
    return "\n".join(["", console.columns(rows), *lines, ""])


def counts(scores):
    """The generated_* metrics as numbers of answers in words: "right 12, not a label 3, …"."""
    written = {name.replace("_", " "): scores.get(f"generated_{name}") for name in metrics.OUTCOMES}
    return ", ".join(f"{name} {round(each['value'] * each['n'] / 100)}" for name, each in written.items() if each)


# Starting


def perform(run, main, answers):
    """Run main(run) in the run's folder or, with --text or --input, print or write answers(run). If main raises Failed,
    write a record with the status and the reason."""
    if run.asks and questions.finished(run):
        return None
    if run.asks and not run.questions.rows:
        raise InputError(f"{run.args.input} has no texts to answer")
    quiet_libraries(run.checkpoint, run.asks or data.at_hand(run.task, run.args.data, run.args.demo))
    import torch

    machine.keep_freed()
    if run.args.threads:
        torch.set_num_threads(run.args.threads)
    trains_all = run.trains and run.settings.lora_r is None
    with processes.first_goes_first():  # the others find its measurement
        used, why = precision.chosen(run.args.precision, run.facts.PRECISION, trains_all, run.variant.shape)
    run.execution = dataclasses.replace(run.execution, precision=used)
    if run.asks:
        return questions.reply(run, answers)
    run.environment = records.environment() | {"threads": machine.threads()}
    run.environment |= {"precision": used, "precision_reason": why}
    if processes.count() > 1:
        run.environment["processes"] = processes.count()
    say(run.plan())
    with contextlib.nullcontext() if processes.rank() else claim.claimed(run):
        if run.args.resume and run.finished():  # by the process that this one has waited for
            return say(f"finished meanwhile, nothing to do\nrecord: {files.display(run.record_path)}")
        try:
            return main(run)
        except Failed as failure:
            run.write(run.record(run.data) | {"status": failure.status, "reason": console.one_line(failure.reason)})
            say(f"record: {files.display(run.record_path)}")
            raise


def quiet_libraries(checkpoint, data_at_hand=True):
    """Hide the progress bars and hints of the libraries, and set them offline if the run needs no download. Call it
    before transformers is imported."""
    if checkpoint.source != "hub" and data_at_hand:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # hints about optional kernels
    import transformers

    warnings.filterwarnings("ignore", category=FutureWarning)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
