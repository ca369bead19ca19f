"""The page as one text: page.html with its style, its scripts, the data, and a policy that forbids everything else."""

import base64
import hashlib
import json
import re
from pathlib import Path

from common import files, metrics
from common.console import InputError
from common.reports.page import choices as chosen
from common.reports.page import details, picture, tested
from common.runs import folders

HERE = Path(__file__).parent
SCRIPTS = ("page.js", "plot.js", "run.js")
LIMIT = 2_000_000  # bytes of a page
# Most points of a curve and most rows of answers for each run; the first pair that fits the limit is used.
SIZES = ((200, 200), (100, 60), (40, 20), (15, 5), (0, 0))
MARK = '<meta name="generator" content="python -m common report">'


def content(experiments=False):
    """({"choices", "datasets", "tests", "reference", "titles", "left_out"}, the records of the measured choices)."""
    left_out = []
    all_folders = folders.all_folders(left_out)
    found, records = [], []
    for folder in all_folders:
        own, merged = chosen.of_folder(folder)
        found, records = found + own, records + merged
        left_out += foreign(folder, own)
    if experiments:
        licences = {name: vars(each.facts).get("LICENSE") for each in all_folders for name in each.checkpoints}
        paths = sorted(files.ROOT.glob("*/experiments/*/record.json"))
        own, merged = chosen.of_experiments(folders.valid(paths, left_out), licences)
        found, records = found + own, records + merged
    found = chosen.titled(found + chosen.of_published(all_folders))
    shown = {"choices": found, "datasets": chosen.datasets(found), "tests": tested.tests(all_folders)}
    shown |= {"reference": chosen.reference(), "titles": metrics.TITLES}
    return shown | {"left_out": [text.replace(f"{files.ROOT}/", "") for text in left_out]}, records


def foreign(folder, own):
    """A line for each valid record in the folder's results/ that is no run of its checkpoints on the study's rows."""
    shown = {path for choice in own for path in choice["record"]}
    paths = [chosen.place(record["file"]) for record in folder.records]
    why = "not a run of one of this folder's checkpoints on the study's rows"
    return [f"{path}: {why}" for path in paths if path not in shown]


def page(experiments=False, own=None):
    """(the page as text, its content). own: file or folder of own data, whose texts stand beside answers. Raises
    InputError if the page is over LIMIT whatever is left out."""
    shown, records = content(experiments)
    for points, rows in SIZES:
        opened = {chosen.place(record["file"]): details.of_record(record, points, rows, own) for record in records}
        text = assembled({**shown, "details": opened})
        if len(text.encode()) <= LIMIT:
            return text, {**shown, "details": opened}
    brief = {path: {"command": each["command"], "metrics": each["metrics"]} for path, each in opened.items()}
    text = assembled({**shown, "details": brief})
    if len(text.encode()) > LIMIT:
        raise InputError(f"{len(records):,} runs do not fit {LIMIT / 1e6:g} MB: leave --experiments out")
    return text, {**shown, "details": brief}


def assembled(value):
    """The page with `value` as its data. Everything that is interpreted is in the page's own files: `value` is JSON
    with every "<" escaped, so that no text of it can end the element that holds it."""
    style = (HERE / "page.css").read_text(encoding="utf-8")
    script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    data = json.dumps(files.finite(value), separators=(",", ":")).replace("<", "\\u003c")
    policy = f"default-src 'none'; script-src '{digest(script)}'; style-src '{digest(style)}'"
    policy += "; base-uri 'none'; form-action 'none'"
    parts = {"POLICY": policy, "MARK": MARK, "STYLE": style, "SCRIPT": script, "DATA": data}
    template = (HERE / "page.html").read_text(encoding="utf-8")
    return re.sub(r"%(POLICY|MARK|STYLE|SCRIPT|DATA)%", lambda match: parts[match[1]], template)


def digest(text):
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def is_ours(path):
    """Whether the file at `path` is a page of this command."""
    with open(path, encoding="utf-8", errors="replace") as stream:
        return MARK in stream.read(4000)


def stamp(shown):
    """Hash of the figures that the picture shows; a picture with another one is stale."""
    pictured = [choice for choice in shown["choices"] if choice["dataset"] == picture.DATASET]
    text = json.dumps([pictured, shown["tests"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
