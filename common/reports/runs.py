"""Tables of a folder's own runs: scores, sample efficiency, the grid of adapters, free generation, costs."""

from common import budget, evaluation, metrics
from common.console import InputError, duration
from common.reports import cells, join
from common.reports.cells import NOTHING
from common.runs import experiment, identity

SHOWN = {  # task -> metrics, the most important first
    "classification": ("accuracy", "macro_f1"),
    "summarization": ("rouge1", "rouge2", "rougeL"),
    "sentiment": ("accuracy", "accuracy_negative", "accuracy_positive"),
    "instructions": ("rouge1", "bleu", "bertscore_f1", "length"),
}
NONE_YET = "No runs are recorded here yet."
SHARES = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0)  # as in sample_ablate.sh
GRID = {"lora_r": (2, 4, 8, 16), "dropout": (0.1, 0.2, 0.5), "epochs": (2, 5, 10, 20, 30, 50)}  # as in run_lora.sh
NOT_LEARNING = (evaluation.FREE, evaluation.CALIBRATION)  # parts of a test stage; its other parts fit a baseline


def of_task(folder, task):
    return join.merged([record for record in join.own(folder) if record["identity"]["task"] == task])


def stages(record):
    """(metrics of the untrained model, metrics of the tuned one); None if the record has none."""
    if record["identity"]["kind"] == "baseline":
        return record["metrics"], None
    return record["metrics_before"], record["metrics"]


def named(records, without=()):
    """[(label, record)], sorted by label and number of rows."""
    order_of = lambda pair: (pair[0], pair[1]["data"]["n"]["train"], pair[1]["data"]["n"]["test"])  # noqa: E731
    return sorted(zip(join.labels(records, without), records, strict=True), key=order_of)


def scores(folder, task, all_folders=()):
    """A row for each record: scores before → after training and the time it took to learn; for failed runs the reason
    beneath. Baselines of other folders on the same test rows stand beside them. `decoding` shows inferences on
    instructions."""
    records = [record for record in of_task(folder, task) if task != "instructions" or not inference(record)]
    if not records:
        return lacking(folder, task)
    records += baselines(records, folder, task, all_folders)
    first, *others = (metrics.TITLES[name] for name in SHOWN[task])
    body, reasons = [], []
    for name_here, record in named(records, join.THINNED):
        label = name_here if home(record) == folder.name else f"{home(record)}: {name_here}"
        shown = [arrow([cells.figure((stage or {}).get(name)) for stage in stages(record)]) for name in SHOWN[task]]
        if record["status"] != "done":
            reasons.append(f"{label}: {record['status']}, {cells.markdown(record['reason'])}  ")
            shown[0] = record["status"]
        body.append([label, rows(record), shown[0], took(record), *shown[1:]])
    return "\n".join([cells.table(["run", ROWS, f"{first}, base → tuned", "learning", *others], body), *reasons])


def baselines(records, folder, task, all_folders):
    """Baselines of other folders on the test rows of `records`, and on the training rows of one of them if fitted."""
    digests = [record["identity"]["data"]["sha256"] for record in records]
    rows = {split: {each[split] for each in digests} for split in ("train", "test")}
    found = []
    for other in all_folders:
        for record in of_task(other, task) if other.name != folder.name else []:
            own, baseline = record["identity"]["data"]["sha256"], record["identity"]["settings"]["baseline"]
            if baseline and own["test"] in rows["test"] and (baseline == "dummy" or own["train"] in rows["train"]):
                found.append(record)
    return found


def home(record):
    return record["script"].split("/")[0]


ROWS = "rows: train / test"


def rows(record):
    n = record["data"]["n"]
    return f"{n['train']:,} / {n['test']:,}" if fits(record) or inference(record) else f"- / {n['test']:,}"


def arrow(both):
    """ "base → tuned"; either may be missing."""
    base, tuned = both
    if tuned == NOTHING:
        return base
    return f"→ {tuned}" if base == NOTHING else f"{base} → {tuned}"


def inference(record):
    return record["identity"]["kind"] == "inference"


def lacking(folder, task):
    takes = budget.measure_it(folder.name, task)
    return f"{NONE_YET} To measure: {takes}.\n" if takes else f"{NONE_YET}\n"


def seconds(record):
    """The time of a record's training, in words."""
    return timed((record["training"] or {}).get("seconds"), record)


def took(record):
    """The time that a run took to learn, in words."""
    return "none" if learning(record) == 0 else timed(learning(record), record)


def timed(spent, record):
    """Seconds in words, with the number of cores that were used if others were left idle."""
    if spent is None:
        return NOTHING
    threads, cores = (record["environment"].get(name) for name in ("threads", "cpu_count"))
    idle = threads and cores and threads < cores
    return duration(spent) + (f" on {threads} core{'s' * (threads > 1)}" if idle else "")


def sample_efficiency(folder):
    """Accuracy by share of the training rows: a row for each share, a column for runs that are otherwise equal."""
    columns, counts, shown = {}, {}, {"train_sample_fraction", "seed"}
    records = [record for record in of_task(folder, "classification") if not inference(record)]
    records = [record for record in records if by_share(record)]
    for record, label in zip(records, names_without(records, shown), strict=True):
        share = record["identity"]["settings"]["train_sample_fraction"]
        columns.setdefault(label, {}).setdefault(share, []).append(record)
        counts[share] = record["data"]["n"]["train"]
    if not columns:
        trains = f"`bash {folder.name}/sample_ablate.sh`, six trainings"
        takes = costs(folder, "classification", sum(SHARES))
        return f"Not measured here yet. To measure: {trains}{takes}.\n"
    head = ["share of the rows", "trained on", *columns]
    body = []
    for share in sorted(counts):
        row = [f"{share:.1%}", f"{counts[share]:,} rows"]
        for column in columns.values():
            record = join.fullest(column.get(share, []))
            row.append(outcome(record, "accuracy") if record else NOTHING)
        body.append(row)
    return cells.table(head, body)


def fits(record):
    """Whether a run learns from the training rows: a training, or a baseline that fits a regression."""
    fields = record["identity"]
    return fields["kind"] == "training" or fields["settings"]["baseline"] in ("frozen-features", "tfidf", "setfit")


def learning(record):
    """Seconds that a run took to learn: those of its training, or of the parts of its test stage that fit a baseline.
    0 if it learns nothing, None if its record does not say."""
    if record["training"]:
        return record["training"]["seconds"]
    if not fits(record):
        return 0 if record["status"] == "done" and record["identity"]["kind"] == "baseline" else None
    stages = (record["inference"] or {}).get("stages") or {}
    parts = {name: spent for name, spent in stages.items() if ", " in name}
    learned = [spent for name, spent in parts.items() if name.partition(", ")[2] not in NOT_LEARNING]
    return sum(learned) if learned and None not in learned else None


def by_share(record):
    return fits(record) and record["identity"]["settings"]["max_train_samples"] is None


def names_without(records, hidden):
    """Labels of records without the fields `hidden`: runs that differ only in these have the same label."""
    return [join.labels([record], hidden)[0] for record in records]


def outcome(record, metric):
    """A finished record's score with n, else its status."""
    scored = stages(record)[1] or stages(record)[0]
    if record["status"] != "done":
        return record["status"]
    return cells.figure(scored.get(metric), n=True) + (f", {len(record['seeds'])} seeds" if "seeds" in record else "")


def costs(folder, task, trainings):
    """Estimated time and cost of `trainings` trainings at the folder's defaults, in words; "" if they are unknown."""
    checkpoint = folder.facts.VARIANTS[0].checkpoint
    try:
        figures = budget.of_defaults(checkpoint, task)
    except InputError:
        return ""
    seconds, usd = (figures[name] * trainings for name in ("seconds", "usd"))
    return f" ({duration(seconds)} of training, {usd:.2f} USD on {budget.REFERENCE}; estimated)"


def adapters(folder):
    """Results of run_lora.sh: a row for each rank and dropout, a column for each number of epochs."""
    by_cell = grid(folder)
    if not by_cell:
        settings, epochs = join.training_settings(folder.path, "summarization"), GRID["epochs"]
        is_nested = experiment.passes_through_shorter(settings)
        trainings = len(GRID["lora_r"]) * len(GRID["dropout"])
        total = trainings * (max(epochs) if is_nested else sum(epochs))
        takes = costs(folder, "summarization", total / settings.epochs)
        return f"Not measured here yet. To measure: `bash {folder.name}/run_lora.sh`, {total} epochs{takes}.\n"
    epochs = sorted({key[2] for key in by_cell})
    head = ["rank, dropout", *(f"{epoch_count:g} epochs" for epoch_count in epochs)]
    body = []
    for rank, dropout in sorted({key[:2] for key in by_cell}):
        records = [join.fullest(by_cell.get((rank, dropout, epoch_count), [])) for epoch_count in epochs]
        row = [outcome(record, "rouge1") if record else NOTHING for record in records]
        body.append([f"{rank}, {dropout:g}", *row])
    count = next(iter(by_cell.values()))[0]["data"]["n"]["train"]
    return f"ROUGE-1 of the tuned model, trained on {count:,} dialogues:\n\n" + cells.table(head, body)


def grid(folder):
    """{(rank, dropout, epochs): [records]} of run_lora.sh, on the number of training rows that most cells have."""
    by_rows = {}
    for record in of_task(folder, "summarization"):
        settings, differing = record["identity"]["settings"], set(join.deviations(record)) - join.THINNED
        if record["identity"]["kind"] == "training" and settings["lora_r"] and differing and differing <= set(GRID):
            by_cell = by_rows.setdefault(record["data"]["n"]["train"], {})
            by_cell.setdefault(tuple(settings[name] for name in GRID), []).append(record)
    return max(by_rows.values(), key=len, default={})


def generated(folder):
    """Outcomes of free generation in classification, as numbers of rows."""
    body = []
    for label, record in named(of_task(folder, "classification"), join.THINNED):
        for stage, scored in zip(("base", "tuned"), stages(record), strict=True):
            kinds = [(scored or {}).get(f"generated_{name}") for name in metrics.OUTCOMES]
            if any(kinds) and record["status"] == "done":
                n = next(filter(None, kinds))["n"]
                rows = [str(round(m["value"] * m["n"] / 100)) if m and m["value"] is not None else "-" for m in kinds]
                body.append([f"{label}: {stage}, n = {n}", *rows])
    head = ["run and model", *(name.replace("_", " ") for name in metrics.OUTCOMES)]
    return cells.table(head, body) if body else f"{NONE_YET}\n"


def report(folder):
    """Precision, recall and F1 of each class, in %, from the confusion matrices of the sentiment records."""
    head, body = ["run", "model", "class", "precision", "recall", "F1", "rows"], []
    for label, record in named(of_task(folder, "sentiment"), join.THINNED):
        matrices = {stage: each for stage, each in (record["confusion"] or {}).items() if is_square(each)}
        for stage, matrix in matrices.items():
            for name, *shares, rows in metrics.report(matrix):
                short = [NOTHING if share == NOTHING else f"{float(share):.1f}" for share in shares]
                body.append([label, stage, cells.markdown(name), *short, rows])
    return cells.table(head, body) if body else f"{NONE_YET}\n"


def is_square(matrix):
    """Whether a confusion matrix has a row and a column for each label."""
    size = len(matrix["labels"])
    return len(matrix["counts"]) == size and all(len(row) == size for row in matrix["counts"])


def cost(folder):
    """Time, memory and cost of every run: a table of training and one of scoring."""
    records = join.own(folder)
    if not records:
        return f"{NONE_YET}\n"
    trained, scored, devices = [], [], []
    for task in SHOWN:
        for label, record in named(of_task(folder, task), join.THINNED):
            train, test = record["training"] or {}, record["inference"] or {}
            label_cells = [f"{task}: {label}", rows(record)]
            latencies = [test.get(name) for name in ("latency_p50_s", "latency_p90_s")]
            training_cells = [
                seconds(record),
                amount(train.get("tokens_per_second"), "{:.0f}".format),
                amount(train.get("peak_memory_bytes"), lambda peak: f"{peak / 1e9:.1f} GB"),
            ]
            usd = amount(record["cost"]["usd"], "{:.4f} USD".format)
            scoring_cells = [
                amount(test.get("samples_per_second"), "{:.2f} rows/s".format),
                NOTHING if None in latencies else "{:.1f} s / {:.1f} s".format(*latencies),
            ]
            trained += [[*label_cells, *training_cells, usd]] * (training_cells != [NOTHING] * 3)
            scored += [[*label_cells, *scoring_cells, usd]] * (scoring_cells != [NOTHING] * 2)
            devices.append(device(record))
    text = [cells.table(["training", ROWS, "time", "tokens/s", "peak memory", "cost"], trained)] if trained else []
    text += [cells.table(["scoring", ROWS, "speed", "latency p50 / p90", "cost"], scored)] if scored else []
    return "\n".join([*text, f"Measured on: {'; '.join(cells.unique(devices))}.\n"])


def device(record):
    """The device of a run, in words."""
    where = record["environment"]
    cores = f" with {where['cpu_count']} cores" if where["cpu_count"] else ""
    return cells.markdown(where["device"]) + cores


def commands(folder):
    """The commands of the folder's records, each once, as a code block."""
    lines = sorted({record["command"] + others_seeds(record) for record in join.merged(join.own(folder))})
    safe = [line for line in lines if "`" not in line and line == " ".join(line.split())]
    return "\n".join(["```shell", *safe, "```"]) + "\n" if safe else f"{NONE_YET}\n"


def others_seeds(record):
    """A comment with the seeds of further runs of the same command."""
    more = [str(seed) for seed in record.get("seeds", [])[1:]]
    return f"  # and --seed {', '.join(more)}" if more else ""


def amount(value, form):
    return NOTHING if value is None else form(value)


def decoding(folder):
    """Scores of inferences on instructions by decoding, and the scores of an echo of the prompt."""
    records = [record for record in of_task(folder, "instructions") if record["identity"]["kind"] == "inference"]
    records = [record for record in records if record["status"] == "done"]
    if not records:
        return f"Not measured here yet. To measure: `bash {folder.name}/decoding_sweep.sh` behind a training.\n"
    names = SHOWN["instructions"]
    head = ["decoding", "scored on", *(metrics.TITLES[name] for name in names)]
    body = []
    for label, record in sorted(zip(join.labels(records), records, strict=True), key=lambda pair: order(pair[1])):
        decoding_of_record = decoded(record)
        alike = [r for r in records if decoded(r) == decoding_of_record and others(r) == others(record)]
        shown = decoding_of_record if len(alike) == 1 and not others(record) else label
        row = [shown, f"{record['data']['n']['test']} rows"]
        body.append([*row, *(cells.figure(record["metrics"].get(name)) for name in names)])
    newest = max(records, key=lambda record: record["finished_at"])
    echo = [cells.figure(newest["metrics"].get(f"echo_{name}")) for name in names]
    body.append(["an echo of the prompt", f"{newest['data']['n']['test']} rows", *echo])
    return cells.table(head, body)


def others(record):
    """Deviations other than decoding settings and the number of training rows."""
    return set(join.deviations(record)) - join.THINNED - {"temperature", "top_k", "num_beams"}


def decoded(record):
    """The decoding of a record in words: "temperature 0.25, top-k 4, 2 beams", or "greedy"."""
    settings = record["identity"]["settings"]
    words = [
        f"{title} {settings[name]:g}"
        for name, title in (("temperature", "temperature"), ("top_k", "top-k"))
        if settings[name]
    ]
    words += [f"{settings['num_beams']} beams"] if settings["num_beams"] > 1 else []
    return ", ".join(words) or "greedy"


def order(record):
    settings = record["identity"]["settings"]
    return (settings["top_k"] or 0, settings["num_beams"], settings["temperature"] or 0, identity.digest(settings))
