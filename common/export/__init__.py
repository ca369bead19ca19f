"""Take a trained run elsewhere: `python -m common export RUN --to adapter|merged|gguf|ollama`.

adapter  the adapter with tokenizer, generation config and model card, for peft
merged   the adapter merged into its base model in 16 bits, for transformers; scored before and after
gguf     that model as one file, for llama.cpp; needs llama.cpp's converter
ollama   the same file with a Modelfile
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from common import console, files
from common.console import InputError, say
from common.runs import flags

KINDS = ("adapter", "merged", "gguf", "ollama")
READING = ("encoding", "delimiter", "label_names")  # how --data is read
MARK = "export.json"  # in every folder that this verb wrote: the run, the kind, and size and digest of every file


def parser():
    made = flags.Parser(prog="python -m common export", description=__doc__)
    made.add_argument("run", metavar="RUN", help="record of a trained run, or its folder in experiments/")
    made.add_argument("--to", choices=KINDS, default="adapter", help="what to make (default: adapter)")
    made.add_argument("--output", metavar="DIR", type=flags.name, help="where to (default: RUN's folder/export/KIND)")
    made.add_argument(
        "--rows", type=whole, default=100, metavar="N",
        help="score N test rows before and after merging; 0: none (default: 100)",
    )  # fmt: skip
    made.add_argument("--data", metavar="PATH", type=flags.name, help="own data that the run was tested on")
    for name in READING:
        made.add(name, (flags.MODEL | flags.TARGET["classification"])[name])
    made.add_argument("--type", choices=("f16", "bf16", "q8_0"), default="f16", help="of the GGUF (default: f16)")
    made.add_argument(
        "--converter", metavar="PATH", type=flags.name, help="llama.cpp's convert_hf_to_gguf.py, or its folder"
    )
    made.add_argument(
        "--push_to_hub", metavar="OWNER/NAME", type=flags.name, help="upload it, with the token in HF_TOKEN"
    )
    made.add_argument("--dry_run", action="store_true", help="list the files; write and send nothing")
    return made


def whole(text):
    """An argparse type: a whole number, 0 or more."""
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def main(words):
    args = parser().parse_args(words)
    from common.export import gguf, hub, trained

    run = trained.find(args.run)
    folder = files.expanded(args.output).resolve() if args.output else run.folder / "export" / args.to
    check_kind(run, args.to)
    script = gguf.converter(args.converter) if args.to in ("gguf", "ollama") and not args.dry_run else None
    sends = made_before(folder, run, args) if args.push_to_hub else False
    if not sends:
        check_place(folder)
    if args.push_to_hub:
        (hub.check_name if args.dry_run else hub.check)(args.push_to_hub)
    if args.dry_run:
        return say(plan(run, folder, args, sends))
    if not sends:
        make(run, folder, args, script)
    if args.push_to_hub:
        hub.push(folder, args.push_to_hub, MARK)


def check_kind(run, kind):
    """Raises InputError if the run cannot become an export of this kind."""
    if kind == "adapter" and not run.has_adapter:
        raise InputError("every weight of this run was trained, there is no adapter: --to merged")
    if run.is_encoder and kind in ("gguf", "ollama"):
        raise InputError(f"this run trained an encoder, which reads and cannot write: --to merged instead of {kind}")


def check_place(folder):
    """Raises InputError if something is at `folder` that no export wrote, or that was changed since."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{files.display(folder)} is a file: name another --output")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    reason = "holds files that no export wrote"
    if (folder / MARK).is_file():
        changed = differing(folder)
        if not changed:
            return
        reason = f"holds {changed[0]}, which is not as the export wrote it"
    raise InputError(f"{files.display(folder)} {reason}: name another --output; nothing is removed")


def differing(folder):
    """Names in an export's folder that are missing, new or changed, sorted. Raises InputError for a mark that no export
    wrote."""
    written = marked(folder)["files"]
    present = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    present.pop(MARK)
    changed = {name for name in present if name in written and digest(present[name]) != written[name]}
    return sorted(present.keys() ^ written.keys() | changed)


def marked(folder):
    """The fields of an export's mark. Raises InputError if it is not valid."""
    mark = files.read_json(folder / MARK)
    if not isinstance(mark, dict) or not isinstance(mark.get("files"), dict):
        raise InputError(f"{files.display(folder / MARK)} is not as an export writes it: name another --output")
    return mark


def digest(path):
    """[bytes, sha256] of a file."""
    from common import checkpoints

    return [path.stat().st_size, checkpoints.sha256(path)]


def made_before(folder, run, args):
    """Whether `folder` is an export of this run, kind and type, so that it can be sent as it is, edits included."""
    return (folder / MARK).is_file() and marked(folder) | {"files": None} == mark_of(run, args)


def mark_of(run, args):
    """The mark without its files."""
    kind = f"{args.to} {args.type}" if args.to in ("gguf", "ollama") else args.to
    return {"run": run.id, "weights": digest(run.weights)[1], "kind": kind, "files": None}


def plan(run, folder, args, sends):
    """What would be written and sent, as text. sends: whether `folder` exists and is sent as it is."""
    from common.export import card, weights

    if sends:
        sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.name != MARK}
    else:
        sizes = weights.planned(run, args.to) | {"README.md": len(card.text(run, args.to, file="FILE").encode())}
        if "GGUF" in sizes:
            sizes[file_name(run, args)] = sizes.pop("GGUF")
    lines = [[f"{'in' if sends else 'would be written to'} {files.display(folder)}", "size"]]
    lines += [[name, megabytes(size)] for name, size in sorted(sizes.items())]
    repo = args.push_to_hub
    sent = f"\nwould be sent to https://huggingface.co/{repo} (private if it is new)" if repo else ""
    return f"{console.columns(lines)}{sent}\nnothing was written or sent"


def megabytes(size):
    if size is None:
        return "-"
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def file_name(run, args):
    """The name of the GGUF file."""
    return f"{run.folder.name}-{args.type}.gguf"


def make(run, folder, args, script):
    """Write the export into `folder`, in place of an older one. It is complete or not there: it is written into a
    temporary folder beside its place and then renamed."""
    from common import data
    from common.runs.run import quiet_libraries

    at_hand = not args.rows or data.at_hand(run.task, args.data, run.source == "sample")
    quiet_libraries(run.checkpoint, at_hand and not args.push_to_hub)
    with temporary(folder.parent) as scratch:
        made = scratch / "made"
        write(run, made, args, script)
        for path in made.iterdir():  # safetensors writes files that no one else may read
            path.chmod((made / "README.md").stat().st_mode)
        written = {path.name: digest(path) for path in sorted(made.iterdir())}
        files.write_json(made / MARK, mark_of(run, args) | {"files": written})
        if folder.is_dir():
            os.rename(folder, scratch / "before")
        os.rename(made, folder)
    say(f"written: {files.display(folder)}")


@contextlib.contextmanager
def temporary(parent):
    """Context with a new folder in `parent`, which is made and, if nothing else came into it, removed again."""
    missing = [path for path in (parent, *parent.parents) if not path.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=parent, prefix=".export-") as scratch:
            yield Path(scratch)
    finally:
        with contextlib.suppress(OSError):  # the first folder that holds something
            for path in missing:
                path.rmdir()


def write(run, made, args, script):
    """Write the files of an export into the new folder `made`."""
    from common.export import card, gguf, trained, weights

    if args.to == "adapter":
        weights.write_adapter(run, made)
        return files.write_text(made / "README.md", card.text(run, "adapter"))
    scores = name = None
    if run.has_adapter and args.rows:
        trained.check_machine(run)
        reading = {name: getattr(args, name) for name in READING}
        scorer = weights.Scores(run, trained.test_rows(run, args.rows, args.data, **reading))
        scores = {"rows": len(scorer.rows.test), "precision": scorer.precision, "before": scorer.before()}
    model = made if args.to == "merged" else made.with_name("merged")
    weights.write_merged(run, model)
    if scores:
        scores["after"] = scorer.after(model)
        say(f"\n{console.columns(card.compared(scores))}\n")
    if args.to != "merged":
        made.mkdir()
        name = file_name(run, args)
        gguf.convert(script, model, made / name, args.type)
        shutil.rmtree(model)
    if args.to == "ollama":
        files.write_text(made / "Modelfile", gguf.modelfile(run, run.tokenizer(), name))
    files.write_text(made / "README.md", card.text(run, args.to, scores, name))
