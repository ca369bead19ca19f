"""`python -m common look FILE` says what is in a file of rows before anything is trained: its columns, which rows would
be dropped and why, classes and lengths, how one row looks to a model, what cheap baselines reach, and which three
commands make sense next, with their time and memory here. It keeps the test rows, so that later runs share them.
"""

import contextlib
import os
import time
from pathlib import Path

from common import console
from common.console import InputError, say
from common.runs import flags

TASKS = ("classification", "summarization", "instructions")


def parser():
    """The command line. Flags that the scripts have mean the same here."""
    parser = flags.Parser(prog="python -m common look", description=__doc__)
    parser.add_argument("file", metavar="FILE", type=flags.name, help="a file, or a folder with train.* and test.*")
    parser.add_argument("--task", choices=TASKS, help="what the rows are for (default: guessed from the columns)")
    shared = {name: flags.MODEL[name] for name in ("text_column", "encoding", "delimiter", "pretrained_ckpt")}
    for task in TASKS:
        shared |= flags.TARGET[task]
    shared |= flags.WORDING | {"max_document_tokens": flags.READING["max_document_tokens"]}
    for name, keywords in shared.items():
        words = keywords["help"].replace("--data's", "the file's").replace("--data", "the file").replace("%", "%%")
        parser.add_argument(f"--{name}", **{**keywords, "help": words})
    parser.add_argument("--html", metavar="PAGE", type=flags.name, help="write a page with all of it")
    parser.add_argument("--no_save", action="store_true", help="do not write FILE.look.json and FILE.split.json")
    return parser


def main(words):
    args = parser().parse_args(words)
    args.file = os.path.expanduser(args.file)
    look(args, Path(args.file))


def look(args, path):
    """Look at the rows in `path`, print what is found, write the files. Raises InputError."""
    from common.look import advice, baselines, kept, page, report

    began = time.monotonic()
    if args.html:
        page.check(args.html, path)
    if not args.no_save:
        kept.check(path)
    if args.pretrained_ckpt:
        advice.check_writer(args.pretrained_ckpt)
    sources = opened(path, args)
    choice = chosen(args, next(iter(sources.values())))
    kept.check_columns(path, choice.columns)
    found = surveyed(args, sources, choice)
    read_seconds = time.monotonic() - began
    record = report.about(path, sources, choice, found)
    show = lambda *parts: [say(report.part(name, record)) for name in parts]  # noqa: E731
    show("file", "columns", "dropped", "classes", "doubles")
    is_sampled, more = kept.is_sampled(found), reading(args, sources)
    with kept.sampled(found, choice) if is_sampled else contextlib.nullcontext(path) as read:
        rows = loaded(choice, read, more if not is_sampled else [])
        record["splits"] = {"rows": rows.n, "sampled": is_sampled, "how": rows.source, "kept_in": None}
        if not is_sampled and not args.no_save and len(sources) == 1:
            split = kept.write_split(path, rows, choice)
            record["splits"]["kept_in"] = split and split.name
        show("splits")
        record["baselines"] = []
        for each in baselines.of(rows):
            record["baselines"].append(each)
            say(report.baseline(each))
        record["verdict"] = baselines.sentence(record["baselines"], choice.role) if record["baselines"] else None
        record["seconds"] = {"baselines": round(time.monotonic() - began, 1)}
        show("verdict")
        advisor = advice.Advisor(args, choice, read, more, 2 * read_seconds)
        measured(advisor, record, rows, show)
    record["seconds"]["all"] = round(time.monotonic() - began, 1)
    finish(args, path, record)


def opened(path, args):
    """{split: rowfiles.Source} of a file ("all") or a folder. Raises InputError."""
    from common import data, rowfiles

    if not path.exists():
        raise InputError(f"no file or folder {path}")
    found = data.split_files(path) if path.is_dir() else {"all": path}
    return {split: rowfiles.opened(file, args.encoding, args.delimiter) for split, file in found.items()}


def chosen(args, source):
    from common.look import guess

    targets = {"classification": args.label_column, "summarization": args.summary_column}
    targets["instructions"] = args.answer_column
    if args.label_names and not args.label_column and not args.task:
        args.task = "classification"
    return guess.choose(source, guess.profiles(source), args.task, args.text_column, targets)


def surveyed(args, sources, choice):
    from common import data
    from common.look import kept, survey

    names = data.names_of_labels(args.label_names) if args.label_names and choice.labelled else None
    first = next(iter(sources.values()))
    size = kept.sample_size(survey.mean_characters(first, choice))
    found = survey.survey(sources, choice, names, size)
    if not found.used:
        reasons = found.dropped or "the file has no rows"
        raise InputError(f"no usable row in {first.path.name} (text: {choice.columns['text']}): {reasons}")
    return found


def reading(args, sources):
    """Flags with which a script reads the file as it was read here."""
    words = ["--encoding", args.encoding] if args.encoding else []
    if not words and any(source.encoding == "cp1252" for source in sources.values()):
        words = ["--encoding", "cp1252"]  # guessed with a warning; named, the scripts are silent
    words += ["--delimiter", args.delimiter] if args.delimiter else []
    return words + (["--label_names", args.label_names] if args.label_names else [])


def loaded(choice, read, more):
    """The rows as a training reads them, data.Data. read: the file, the folder or a sample of it; more: flags that say
    how to read it."""
    from common import data

    how = {name.removeprefix("--"): value for name, value in zip(more[::2], more[1::2], strict=True)}
    named = {f"{role}_column": name for role, name in choice.named.items()}
    with console.silenced():  # `look` describes them itself
        return data.of_task(choice.task, path=str(read), **named, **how)


def measured(advisor, record, rows, show):
    """Add tokens, the example and the commands to the record, and show each when it is known."""
    from common.look import measures
    from common.runs.run import quiet_libraries

    steps = advisor.steps()
    writer = advisor.writing(steps)
    quiet_libraries(writer.checkpoint)
    readers = [step.run for step in steps if step.run.is_encoder and step.run.kind == "training"]
    record["tokens"] = [measures.lengths(run, rows) for run in [writer, *readers]]
    show("tokens")
    record["example"] = measures.example(writer, rows)
    show("example")
    record["commands"] = advisor.commands(steps, record["rows"]["used"])
    show("commands")


def finish(args, path, record):
    """Write FILE.look.json and the page."""
    from common import files
    from common.look import kept, page

    if not args.no_save and kept.write_record(path, record):
        say(f"kept in {files.display(kept.record_path(path))}")
    if args.html:
        page.write(args.html, record)
        say(f"page: {args.html}")
