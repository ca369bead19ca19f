"""What a trained model is asked outside a test: one --text, or the rows of a file, whose answers go to another file.

The answers of a file are kept batch by batch in OUTPUT.partial/, so that a killed run goes on with --resume. When
OUTPUT is written, that folder goes. Rows keep their order and all their columns.
"""

import csv
import dataclasses
import io
import json
import os
import shutil

from common import bookkeeping, checkpoints, console, data, evaluation, files, rowfiles
from common.console import InputError, say
from common.runs import claim

FORMATS = (".csv", ".tsv", ".jsonl")
SHOWN = 3  # classes of one --text
SOURCE = "questions.json"  # what a folder of partial answers belongs to
ADDED = {True: ["predicted", "probability", "probabilities"], False: ["answer"]}  # columns, with and without classes


@dataclasses.dataclass(frozen=True)
class Questions:
    """rows: [{"text"}] (instructions may have "input"), none of them empty; numbers: their places in the file;
    temperature: of the probabilities of classes; source: rowfiles.Source of the file, None for a --text."""

    rows: list
    numbers: list
    temperature: float
    source: object = None


def check(args):
    """Raises InputError for flags that do not go together, and for an --output that exists or has no known format."""
    if not (args.input or args.output):
        return
    if args.text or not (args.input and args.output):
        raise InputError("--input and --output go together, without --text: a file of texts and a new file of answers")
    if args.data or args.demo or args.output_dir:
        raise InputError(
            "--input reads rows to answer, --data, --demo and --output_dir are of a test: give one of them"
        )
    output = files.expanded(args.output)
    if output.suffix.lower() not in FORMATS:
        raise InputError(f"--output {output.name}: name a {', a '.join(FORMATS)} file")
    if os.path.exists(output) and not (args.resume and output.is_file()):
        raise InputError(f"{output} exists: name another --output, or add --resume if it is the finished one")
    if not output.parent.is_dir():
        raise InputError(f"no folder {output.parent} (--output)")
    path = files.expanded(args.input)
    if not os.path.isfile(path):
        raise InputError(f"no file {path} (--input)")


def of_run(run):
    """The Questions of a run. Raises InputError."""
    temperature = evaluation.calibration.stored(run.trained)
    if run.text:
        if not run.text.strip():
            raise InputError("--text has nothing to read")
        return Questions([{"text": run.text}], [0], temperature)
    source = rowfiles.opened(files.expanded(run.args.input), run.args.encoding, run.args.delimiter)
    columns = {"text": column_of(run, source)}
    clash = next((name for name in ADDED[bool(run.labels)] if name in source.columns), None)
    if clash:
        raise InputError(f"{source.path.name} has a column {clash}, as the answers would: rename it")
    if run.task == "instructions" and columns["text"] != "input":
        columns["input"] = source.column("input")
    rows, numbers, empty = [], [], []
    for place, (number, row) in enumerate(source.rows()):
        cells = {name: rowfiles.text(row.get(c), source, number, c) for name, c in columns.items() if c is not None}
        if cells["text"].strip():
            rows.append(cells | {"text": cells["text"].strip()})
            numbers.append(place)
        else:
            empty.append(str(number))
    if empty:
        lines = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
        console.warn(f"{source.path.name}: {len(empty)} rows have no text ({source.unit} {lines}): no answer for them")
    return Questions(rows, numbers, temperature, source)


def column_of(run, source):
    """The column with the texts: --text_column, else that of the training, else the file's only one."""
    trained = run.trained_columns.get("text_column")
    for name in filter(None, (run.args.text_column, trained, data.TASKS[run.task][0]["text"])):
        if source.column(name) is not None:
            return source.column(name)
        if name == run.args.text_column:
            break
    else:
        if len(source.columns) == 1:
            return source.columns[0]
    raise InputError(f"{source.path.name} has no column {name}; {source.described()}; name yours with --text_column")


def finished(run, when="before"):
    """Whether --output is there, which `check` lets pass with --resume only; says so."""
    if run.text or not (output := output_of(run)).is_file():
        return False
    say(f"finished {when}, nothing to do\nanswers: {files.display(output)}")
    return True


def output_of(run):
    return files.expanded(run.args.output)


def reply(run, answers):
    """Print answers(run) to --text, or write those to --input into --output."""
    if run.text:
        return say(shown(answers(run)[0]))
    folder, output = run.execution.folder, output_of(run)
    mark = {"id": run.identity.id, "input": checkpoints.sha256(run.questions.source.path)}
    with bookkeeping.disk_errors(output.parent):
        folder.mkdir(exist_ok=True)
        with claim.alone(folder, run.args.resume):
            if finished(run, "meanwhile"):
                return None
            prepare(folder, mark, run.args.resume)
            found = answers(run)
            files.write_text(output, written(run.questions, found, bool(run.labels), output.suffix.lower()))
            shutil.rmtree(folder)
    return say(f"{len(found)} answers\nanswers: {files.display(output)}")


def prepare(folder, mark, resume):
    """Make the folder of partial answers this run's own. Raises InputError if it is another's."""
    existing = os.listdir(folder)
    if existing and SOURCE not in existing:
        raise InputError(f"{folder} holds files that no run wrote: name another --output")
    if existing and files.read_json(folder / SOURCE) != mark and resume:
        raise InputError(f"{folder} has answers to other rows or of another model: leave --resume out to begin anew")
    files.write_json(folder / SOURCE, mark)


def shown(answer):
    """The answer to one text: the likeliest classes with their probability, a line each, or the text."""
    shares = answer["probabilities"]
    if shares is None:
        return answer["answer"]
    likeliest = sorted(shares, key=lambda label: (-shares[label], label))[:SHOWN]
    return "\n".join(f"{label}  {shares[label]:.1%}" for label in likeliest)


def written(questions, found, labelled, suffix):
    """The text of --output: the rows of --input, each with its answer. labelled: whether answers are classes."""
    source, added = questions.source, ADDED[labelled]
    by_place, stream = dict(zip(questions.numbers, found, strict=True)), io.StringIO(newline="")
    writer = csv.writer(stream, delimiter="\t" if suffix == ".tsv" else ",")
    if suffix != ".jsonl":
        writer.writerow([*source.columns, *added])
    for place, (_, row) in enumerate(source.rows(exact=False)):
        cells = cells_of(by_place.get(place), labelled)
        if suffix == ".jsonl":
            stream.write(json.dumps(row | dict(zip(added, cells, strict=True)), ensure_ascii=False, default=str) + "\n")
        else:
            cells = [json.dumps(cell, ensure_ascii=False) if isinstance(cell, dict) else cell for cell in cells]
            writer.writerow(["" if cell is None else cell for cell in [*map(row.get, source.columns), *cells]])
    return stream.getvalue()


def cells_of(answer, labelled):
    """The cells that an answer adds to its row; None for a row without text."""
    if answer is None:
        return [None] * len(ADDED[labelled])
    if not labelled:
        return [answer["answer"]]
    shares = {label: round(share, 6) for label, share in answer["probabilities"].items()}
    return [answer["answer"], shares[answer["answer"]], shares]
