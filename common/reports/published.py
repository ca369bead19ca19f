"""Tables of published figures: the figures as a study printed them, notes on their errors, and beside them the figures
measured here with the same model, method and settings."""

from common import budget, files
from common.console import InputError
from common.reports import cells, join
from common.reports.cells import NOTHING

DAGGER = "† not to be relied on, for the reason given."
SERVING = (
    "To measure it, serve a trained run and offer load to it ([how](../common/serving/README.md)): "
    "`python -m common serve`, `python -m common loadtest`."
)


def table(folder, name, all_folders):
    """A table of the folder's published.csv, by its fields `row` and `column`. Without any measured figure it ends in a
    line that says how to measure one. Raises InputError if there is no table `name`."""
    lines = [line for line in folder.published if line["table"] == name]
    if not lines:
        raise InputError(f"{folder.name}/published.csv has no table {name}")
    cell = {(line["row"], line["column"]): line for line in lines}
    rows, columns = (cells.unique(line[name] for line in lines) for name in ("row", "column"))
    notes = cells.unique(line["note"] for line in lines if line["note"])
    head, body = [lines[0]["head"]], [[row] for row in rows]
    for column in columns:
        if any(line["value"] or line["note"] for line in lines if line["column"] == column):
            head.append(f"published: {column}")
            for row in body:
                row.append(quoted(cell.get((row[0], column)), notes))
    is_measured = False
    for title, experiments in measured_columns(rows, columns, cell):
        figures = [measured(line, all_folders) for line in experiments]
        if set(figures) != {NOTHING}:
            is_measured = True
            head.append(f"measured: {title}")
            for row, figure in zip(body, figures, strict=True):
                row.append(figure)
    # Drop rows without a figure: they were not published, and not measured yet.
    body = [row for row in body if set(row[1:]) != {NOTHING}]
    text = [cells.table(head, body), *beneath(folder, lines, notes)]
    if not is_measured:
        text.append(f"{'Not measured here yet. ' if len(head) > 1 else ''}{to_measure(folder, lines)}\n")
    return "\n".join(filter(None, text))


def quoted(line, notes):
    """A published figure as it was printed, with its marks; "-" without one. notes: notes of the table, in order."""
    if not line:
        return NOTHING
    mark = f" <sup>{cells.letter(notes.index(line['note']))}</sup>" if line["note"] else ""
    return (line["value"] or NOTHING) + (" †" if line["suspect"] else "") + mark


def measured_columns(rows, columns, cell):
    """Yield (title, [line or None for each row]), one column for each list of distinct experiments. Two published
    columns about the same experiments share one measured column, whose title leaves out their source."""
    same_experiments = {}
    for column in columns:
        lines = [cell.get((row, column)) for row in rows]
        same_experiments.setdefault(tuple(experiment(line) for line in lines), []).append((column, lines))
    for group in same_experiments.values():
        column, lines = group[0]
        yield (column.rpartition(", ")[0] or column) if len(group) > 1 else column, lines


def experiment(line):
    """The fields that two lines about the same experiment have in common, as a tuple; None for None."""
    names = ("task", "model", "method", *join.NAMED, "epoch", "metric")
    return line and tuple(line[name] for name in names)


def beneath(folder, lines, notes):
    """[text beneath a table]: the meaning of its marks, the folders of cited figures, and the published sources."""
    text = [DAGGER] if any(line["suspect"] for line in lines) else []
    text += [f"<sup>{cells.letter(i)}</sup> {note}" for i, note in enumerate(notes)]
    homes = cells.unique(line["home"] for line in lines if line["home"] != folder.name)
    if homes:
        links = ", ".join(f"[{home}](../{home}/README.md)" for home in homes)
        text.append(f"Other models' figures are cited; they are at home in {links}.")
    printed = cells.unique(line["source"] for line in lines if line["value"])
    if printed:
        text.append("Published in: " + "; ".join(map(document, printed)) + ".")
    return ["  \n".join(text) + "\n"] if text else []


def document(name):
    """Markdown link to a published document. name: a `source` of published.csv."""
    protocols = files.read_json(files.ROOT / "common" / "reports" / "protocols.json")
    study = protocols["studies"][protocols["documents"][name]]
    return f"[{study['name']}]({study['link']}), {name}"


def measured(line, all_folders):
    """The measured figure of a published line, with n and, if the line is about a share of the training rows, their
    number. It is "OOM" or "failed" if the run ended so, "-" without a record."""
    if not line:
        return NOTHING
    variants = join.variants(all_folders)
    merge = list if line["seed"] else join.merged  # a line that names a seed is about one run
    records = [r for folder in all_folders for r in merge(join.own(folder)) if join.is_of(r, line, variants)]
    figures = [(record, value(record, line)) for record in records]
    record = join.fullest([record for record, text in figures if text != NOTHING])
    if record is None:
        return NOTHING
    rows = f", {record['data']['n']['train']:,} rows" if line["train_sample_fraction"] and join.trains(record) else ""
    return dict((r["id"], text) for r, text in figures)[record["id"]] + rows


def value(record, line):
    """A record's figure for a published line: a score, the loss of an epoch, or the time or cost of the training."""
    metric = line["metric"]
    if record["status"] != "done":
        return record["status"]
    training, device = record["training"] or {}, record["environment"]["device"]
    if line["epoch"]:
        return epoch_loss(training, int(line["epoch"]), metric)
    if metric == "train_hours":
        seconds = training.get("seconds")
        return NOTHING if seconds is None else f"{seconds / 3600:.2f}, {cells.markdown(device)}"
    if metric == "train_cost_usd":
        usd = record["cost"]["usd"]
        return NOTHING if usd is None else f"{usd:.3f}, {cells.markdown(device)}"
    scores = record["metrics_before"] if line["method"] == join.UNTUNED else record["metrics"]
    return cells.figure((scores or {}).get(metric), n=True)


def epoch_loss(training, epoch, metric):
    """Mean training loss over an epoch's steps or, if metric is "validation_loss", the validation loss after it."""
    validation, losses = training.get("validation") or [], training.get("losses") or []
    if epoch > len(validation):
        return NOTHING
    if metric == "validation_loss":
        loss = validation[epoch - 1]["loss"]
        return NOTHING if loss is None else f"{loss:.4f}"
    steps = len(losses) // len(validation)
    part = [loss for loss in losses[(epoch - 1) * steps : epoch * steps] if loss is not None]
    return f"{sum(part) / len(part):.4f}" if part else NOTHING


def to_measure(folder, lines):
    """One line with the command that measures a table, and its budget."""
    task, tuned = lines[0]["task"], {"qlora", "lora", "full-finetune", join.UNTUNED}
    if task == "serving":
        return SERVING
    own = [line for line in lines if line["model"] in join.variants([folder])]
    if not own:
        return "No folder here runs these models: their figures are quoted alone."
    if not any(line["method"].partition("+")[0] in tuned for line in own):
        return f"To measure it: `bash {folder.name}/baseline_inference.sh --task_type {task}`, on a GPU."
    command = budget.measure_it(folder.name, task)
    return f"To measure it: {command}." if command else "No script here trains for it."


def lines_of(all_folders, **fields):
    """Published lines, each from its home folder only, whose fields have these values."""
    return [
        line
        for folder in all_folders
        for line in folder.published
        if line["home"] == folder.name and all(line[name] == value for name, value in fields.items())
    ]
