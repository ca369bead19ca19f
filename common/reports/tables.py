"""`python -m common tables [FOLDER…] [--check]` rewrites the text between the markers of the READMEs.

`<!-- table:NAME -->` … `<!-- /table -->` holds a table of the folder's published.csv, or one of GENERATED, BESIDE or
FRONT below; `<!-- figure:WORDS -->` … `<!-- /figure -->` holds a figure within a sentence (front.py). Nobody types a
number into a README by hand.
"""

import functools
import re

from common import files
from common.console import InputError, say
from common.reports import calibration, comparisons, effects, front, plots, protocol, published, runs, speed
from common.runs import flags, folders

# A marker between backticks is an example in a text, not a marker.
MARKERS = re.compile(r"^(<!-- table:([\w-]+) -->\n)(.*?)(<!-- /table -->)", re.DOTALL | re.MULTILINE)
FIGURES = re.compile(r"(?<!`)(<!-- figure:([^\n]+?) -->)(.*?)(<!-- /figure -->)", re.DOTALL)
BEGUN = {"table": re.compile(r"^<!-- table:", re.MULTILINE), "figure": re.compile(r"(?<!`)<!-- figure:")}

# Tables of a folder, and those that show other folders' records beside it.
BESIDE = {f"runs-{task}": functools.partial(runs.scores, task=task) for task in runs.SHOWN}
BESIDE |= {f"compared-{task}": functools.partial(comparisons.table, task=task) for task in runs.SHOWN}
GENERATED = {f"protocol-{task}": functools.partial(protocol.table, task=task) for task in runs.SHOWN}
GENERATED |= {
    "sample-efficiency": runs.sample_efficiency,
    "run-lora": runs.adapters,
    "generated": runs.generated,
    "report": runs.report,
    "decoding": runs.decoding,
    "cost": runs.cost,
    "commands": runs.commands,
}
GENERATED |= {
    f"picture-{kind}": functools.partial(plots.shown, kind=kind) for kind in ("curves", "confusion", "decoding", "heat")
}
TITLES = {"classification": "20 Newsgroups", "summarization": "SAMSum", "sentiment": "IMDB", "instructions": "Alpaca"}
FURTHER = {"classification": [runs.generated], "sentiment": [runs.report], "instructions": [runs.decoding]}
FRONT = {
    "models": front.models,
    "budget": front.budgets,
    "bench": speed.benchmarks,
    "bench-step": speed.steps,
    "bench-gpu": speed.cards,
    "loadtest": speed.load,
    "stress": speed.stress,
    "calibration": calibration.table,
    "advice": calibration.advice,
    "factors": effects.table,
    "picture-factors": plots.of_factors,
    "picture-front": plots.of_front_page,
    "pictures": plots.of_all_folders,
}


def everything(folder, all_folders):
    """All tables and pictures of a folder's records, by task, with headings; one line without records."""
    text = []
    for task, title in TITLES.items():
        if runs.of_task(folder, task):
            text += [f"### {title}", runs.scores(folder, task, all_folders)]
            text += [make(folder) for make in FURTHER.get(task, [])]
            text += [plots.shown(folder, kind, task) for kind in ("curves", "confusion")]
    if not text:
        return "None yet: the commands above make them.\n"
    text += ["### Time, memory, cost", runs.cost(folder), "The commands that made these:", runs.commands(folder)]
    return "\n\n".join(part.strip() for part in text if part.strip())


def folder_table(folder, name, all_folders):
    if name == "runs":
        return everything(folder, all_folders)
    if name in BESIDE:
        return BESIDE[name](folder, all_folders=all_folders)
    return GENERATED[name](folder) if name in GENERATED else published.table(folder, name, all_folders)


def front_table(name, all_folders):
    if name not in FRONT:
        raise InputError(f"there is no table {name}; there are: {', '.join(FRONT)}")
    return FRONT[name](all_folders)


def rendered(path, make, figure):
    """The text of the README at `path` with new tables from make(name) and new figures from figure(words). Raises
    InputError for a marker without its end."""
    text = path.read_text(encoding="utf-8")
    for pattern, kind in ((MARKERS, "table"), (FIGURES, "figure")):
        if len(pattern.findall(text)) != len(BEGUN[kind].findall(text)) or nested(pattern, text, kind):
            raise InputError(f"{files.display(path)}: a <!-- {kind}:… --> without its <!-- /{kind} -->")
    text = MARKERS.sub(lambda match: f"{match[1]}\n{make(match[2]).strip()}\n\n{match[4]}", text)
    return FIGURES.sub(lambda match: f"{match[1]}{figure(match[2])}{match[4]}", text)


def nested(pattern, text, kind):
    """Whether a marker begins before the end of another one, whose own end is then missing."""
    return any(BEGUN[kind].search(match[3]) for match in pattern.finditer(text))


def pages(chosen, all_folders):
    """[(path of a README, function from a table's name to its text)] of the chosen model folders, of the packages in
    common/, and of the front page."""
    documents = [
        (folder.path / "README.md", functools.partial(folder_table, folder, all_folders=all_folders))
        for folder in chosen
        if (folder.path / "README.md").is_file()
    ]
    make = functools.partial(front_table, all_folders=all_folders)
    others = [*sorted(files.ROOT.glob("common/*/README.md")), files.ROOT / "README.md"]
    return documents + [(path, make) for path in others]


def main(words):
    parser = flags.Parser(prog="python -m common tables", description=__doc__)
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="model folders (default: all)")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a README is stale")
    args = parser.parse_args(words)
    all_folders = folders.all_folders()
    documents = pages(folders.named(args.folders, all_folders), all_folders)
    figure = functools.partial(front.figure, all_folders=all_folders)
    # Make all texts before writing any, so that an invalid record changes no README.
    new = {path: rendered(path, make, figure) for path, make in documents}
    stale = [path for path, text in new.items() if text != path.read_text(encoding="utf-8")]
    if args.check and stale:
        names = ", ".join(str(path.relative_to(files.ROOT)) for path in stale)
        say(f"stale: {names}; run python -m common tables")
        return 1
    for path in stale:
        files.write_text(path, new[path])
    return say(f"{len(documents)} READMEs, {len(stale)} {'stale' if args.check else 'rewritten'}")
