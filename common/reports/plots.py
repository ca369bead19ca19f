"""`python -m common plots [FOLDER…] [--check]` draws the pictures of the READMEs into assets/.

A folder has curves of its trainings, confusion matrices, and scores by decoding setting. The front page has accuracy by
number of training rows, scores before and after training, and score by cost. Pictures show only recorded or published
figures; the command removes a picture whose records are gone.
"""

import hashlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

from common import files, metrics
from common.console import say
from common.reports import cells, comparisons, drawings, effects, join, published, runs
from common.runs import flags, folders

ASSETS = files.ROOT / "assets"
OTHERS = ("loadtest.svg",)  # the load test draws this one
ROWS = 10_664  # training rows of the study's 20 Newsgroups
CURVES = ("step", "loss", "grad_norm", "learning_rate")


@dataclass(frozen=True)
class Picture:
    """One picture in assets/. content: JSON value with everything that it shows, texts escaped; draw: function of the
    content that returns a matplotlib Figure."""

    kind: str
    file: str
    title: str
    content: object
    draw: object

    @property
    def stamp(self):
        """Hash of the title, the content and the source of drawings.py; a picture with another stamp is stale."""
        text = json.dumps([self.title, self.content], sort_keys=True)
        return hashlib.sha256(text.encode() + Path(drawings.__file__).read_bytes()).hexdigest()

    def stands(self):
        path = ASSETS / self.file
        return path.is_file() and self.stamp in path.read_text(encoding="utf-8")

    def write(self):
        import matplotlib

        style = {"svg.hashsalt": self.file, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
        with matplotlib.rc_context(style | {"axes.grid": True, "grid.alpha": 0.25}):
            figure, drawn = self.draw(self.content), io.StringIO()
            figure.suptitle(cells.plain(self.title), fontsize=10)
            figure.savefig(drawn, format="svg", metadata={"Date": None, "Description": self.stamp})
        lines = [line.rstrip() for line in drawn.getvalue().splitlines()]
        files.write_text(ASSETS / self.file, "\n".join(lines) + "\n")


def of_folder(folder):
    """The Pictures of a folder: for each task, of the declared run of each method."""
    pictures = []
    for task in runs.SHOWN:
        records = declared(folder, task)
        name = f"{folder.name}_{task}"
        curves = {
            cells.plain(label): {**record["training"]["curves"], "validation": record["training"]["validation"]}
            for label, record in records
            if drawable(record)
        }
        if curves:
            pictures.append(Picture("curves", f"{name}_curves.svg", f"{folder.name}, {task}", curves, drawings.curves))
        matrices = {
            f"{cells.plain(label)}: {stage}": {**each, "labels": list(map(cells.plain, each["labels"]))}
            for label, record in records[:1]
            for stage, each in (record["confusion"] or {}).items()
            if runs.is_square(each)
        }
        if matrices:
            title = f"{folder.name}, {task}: classes of the test rows"
            pictures.append(Picture("confusion", f"{name}_confusion.svg", title, matrices, drawings.confusion))
    cells_of_grid = heat(folder)
    if cells_of_grid:
        title = f"{folder.name}: ROUGE-1 by rank and dropout of the adapter"
        pictures.append(Picture("heat", f"{folder.name}_summarization_heat.svg", title, cells_of_grid, drawings.heat))
    points = decoded(folder)
    if points:
        title = f"{folder.name}, held-out instructions: scores with 95 % intervals"
        pictures.append(Picture("decoding", f"{folder.name}_decoding.svg", title, points, drawings.decoding))
    return pictures


def heat(folder):
    """{epochs: [[rank, dropout, ROUGE-1]]} of run_lora.sh, for numbers of epochs with four cells or more."""
    panels = {}
    for (rank, dropout, epochs), records in sorted(runs.grid(folder).items()):
        score = (join.fullest(records)["metrics"] or {}).get("rouge1")
        if score and score["value"] is not None:
            panels.setdefault(f"{epochs:g} epochs", []).append([rank, dropout, score["value"]])
    return {title: points for title, points in panels.items() if len(points) >= 4}


def declared(folder, task):
    """[(method, record)] of the declared runs of a task, at most four, the script's own method first."""
    methods = cells.unique(join.method(record) for record in runs.of_task(folder, task) if join.trains(record))
    usual = join.usual_method(folder, task)
    records = [
        (method, join.declared(folder, task, method)) for method in sorted(methods, key=lambda m: (m != usual, m))
    ]
    return [(method, record) for method, record in records if record][:4]


def drawable(record):
    """Whether a record has complete curves of its training."""
    training = record["training"] or {}
    curves = training.get("curves") or {}
    lengths = {len(curves.get(name, [])) for name in CURVES}
    return len(lengths) == 1 and lengths != {0} and bool(training.get("steps")) and "validation" in training


def decoded(folder):
    """{axis: [(value, scores)]} of one adapter's answers by decoding setting; empty if there are none. The adapter is
    the one with the most decoding settings."""
    by_adapter = {}
    for record in runs.of_task(folder, "instructions"):
        scores = record["metrics"] or {}
        shown = {n: scores.get(n, metrics.UNKNOWN) for line in drawings.LINES for n in (line, f"echo_{line}")}
        complete = all(score["value"] is not None and (score["ci95"] or "echo" in n) for n, score in shown.items())
        if record["identity"]["kind"] == "inference" and record["status"] == "done" and complete:
            axis, value = axis_of(record["identity"]["settings"])
            points = by_adapter.setdefault(record["identity"]["trained"]["id"], {name: {} for name in drawings.AXES})
            points[axis][value] = shown
    most_decoded = max(by_adapter.values(), key=lambda points: sum(map(len, points.values())), default={})
    return {axis: sorted(values.items()) for axis, values in most_decoded.items() if values}


def axis_of(settings):
    """(axis, value) of a record's settings: the sampling setting, else the number of beams."""
    sampling = [(axis, settings[axis]) for axis in ("temperature", "top_k") if settings[axis]]
    return sampling[0] if sampling else ("num_beams", settings["num_beams"])


def of_front(all_folders):
    """The Pictures of several folders that have something to show."""
    contents = [
        ("data", "How much data: 20 Newsgroups", sample_efficiency(all_folders), drawings.sample_efficiency),
        (
            "tuned",
            "Before and after fine-tuning, with 95 % intervals",
            base_to_tuned(all_folders),
            drawings.base_to_tuned,
        ),
        (
            "cost",
            "Seconds of learning against score, with 95 % intervals",
            cost_quality(all_folders),
            drawings.cost_quality,
        ),
        ("factors", "What moved the numbers, with 95 % intervals", effects.content(), drawings.factors),
    ]
    names = {"data": "sample_efficiency.svg", "tuned": "base_to_tuned.svg", "cost": "cost_quality.svg"}
    names["factors"] = "factors.svg"
    return [Picture(kind, names[kind], title, content, draw) for kind, title, content, draw in contents if content]


def sample_efficiency(all_folders):
    """[{label, suspect, measured, points: [[rows, accuracy, low, high]]}] of the published and the measured curves.
    Published curves with equal figures appear once."""
    curves = {}
    for line in published.lines_of(all_folders, task="classification", metric="accuracy"):
        if line["train_sample_fraction"] and line["value"]:
            rows = float(line["train_sample_fraction"]) * ROWS
            curve = curves.setdefault((line["table"], line["column"]), {"suspect": bool(line["suspect"]), "points": []})
            curve["points"].append([rows, float(line["value"]), None, None])
    published_curves, seen = [], set()
    for (table, column), curve in sorted(curves.items(), key=lambda item: item[1]["suspect"]):
        figures = tuple(point[1] for point in curve["points"])
        if figures not in seen and len(figures) > 1:
            seen.add(figures)
            label = f"{table.partition('-')[0]}: {column}"
            published_curves.append({"label": cells.plain(label), "measured": False, **curve})
    return published_curves + measured_curves(all_folders)


def measured_curves(all_folders):
    curves = {}
    for folder in all_folders:
        for record in learned(folder, "classification"):
            score = record["metrics"].get("accuracy")
            if score and score["ci95"]:
                label = cells.plain(f"{folder.name}, {join.method(record)}: measured")
                curve = curves.setdefault(label, {"label": label, "measured": True, "suspect": False, "points": []})
                curve["points"].append([record["data"]["n"]["train"], score["value"], *score["ci95"]])
    return [{**curve, "points": sorted(curve["points"])} for curve in curves.values()]


def learned(folder, task):
    """The finished runs of a task that learn from the study's rows, or from a part of them, with their script's own
    settings; of a method's runs on as many rows the one with the most test rows."""
    found = {}
    for record in runs.of_task(folder, task):
        if record["status"] == "done" and runs.fits(record) and set(join.deviations(record)) <= join.THINNED:
            found.setdefault((join.method(record), record["data"]["n"]["train"]), []).append(record)
    return [join.fullest(records) for records in found.values()]


def base_to_tuned(all_folders):
    """[[label, base metric, tuned metric]] of the declared runs that have both."""
    lines = []
    for folder in all_folders:
        for task, (metric, *_) in runs.SHOWN.items():
            for method, record in declared(folder, task):
                both = [(stage or {}).get(metric) or metrics.UNKNOWN for stage in before_and_after(record, folder)]
                if all(each["value"] is not None and each["ci95"] for each in both):
                    rows = f"{record['data']['n']['train']:,} rows"
                    label = f"{folder.name}, {task} ({metrics.TITLES[metric]}), {method}, {rows}"
                    lines.append([cells.plain(label), *both])
    return lines


def before_and_after(record, folder):
    """runs.stages of a record. A training that did not score the untrained model is shown beside the folder's run that
    did, on the same rows: a zero-shot prompt, or a regression on the encoder's features."""
    before, after = runs.stages(record)
    if after and not before:
        task, untrained = record["identity"]["task"], ("zero-shot", "frozen-features")
        others = [each for each in runs.of_task(folder, task) if join.method(each) in untrained]
        found = join.fullest([each for each in others if comparisons.comparable(record, each, task)])
        before = found and found["metrics"]
    return before, after


def cost_quality(all_folders):
    """{task and metric: {label: [[seconds of learning, metric]]}} of the runs that are `learned`."""
    panels = {}
    for folder in all_folders:
        for task, (metric, *_) in runs.SHOWN.items():
            for record in learned(folder, task):
                seconds, score = runs.learning(record), record["metrics"].get(metric)
                if seconds and score and score["value"] is not None and score["ci95"]:
                    curves = panels.setdefault(f"{task}: {metrics.TITLES[metric]}", {})
                    label = cells.plain(f"{folder.name}, {join.method(record)}")
                    curves.setdefault(label, []).append([seconds, score])
    return {
        title: {label: sorted(points, key=lambda point: point[0]) for label, points in curves.items()}
        for title, curves in panels.items()
    }


def shown(folder, kind, task=""):
    """Markdown of the folder's pictures of one kind, of one task or, without `task`, of all tasks."""
    pictures = [p for p in of_folder(folder) if p.kind == kind and f"_{task}" in p.file]
    return "\n\n".join(f"![{cells.markdown(p.title)}](../assets/{p.file})" for p in pictures)


def of_front_page(all_folders):
    """Markdown of the front page's picture."""
    return (
        "\n".join(f"![{p.title}](assets/{p.file})" for p in of_front(all_folders) if p.kind == "data")
        or "No picture yet."
    )


def drawn(path):
    """Whether this command drew a picture: then it has a stamp. Other pictures are never removed."""
    return re.search(r"<dc:description>[0-9a-f]{64}<", path.read_text(encoding="utf-8", errors="replace")) is not None


def of_factors(all_folders):
    """Markdown of the picture of effect sizes."""
    pictures = [picture for picture in of_front(all_folders) if picture.kind == "factors"]
    return "\n".join(f"![{p.title}](../../assets/{p.file})" for p in pictures) or "No picture yet."


def of_all_folders(all_folders):
    """Markdown of the other pictures of several folders, for the README of this package."""
    pictures = [picture for picture in of_front(all_folders) if picture.kind in ("tuned", "cost")]
    return "\n\n".join(f"![{p.title}](../../assets/{p.file})" for p in pictures) or "No picture yet."


def main(words):
    parser = flags.Parser(prog="python -m common plots", description=__doc__)
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="model folders (default: all)")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a picture is missing or stale")
    args = parser.parse_args(words)
    all_folders = folders.all_folders()
    chosen = folders.named(args.folders, all_folders)
    pictures = {picture.file: picture for folder in chosen for picture in of_folder(folder)}
    if not args.folders:
        pictures |= {picture.file: picture for picture in of_front(all_folders)}
    stale = [file for file, picture in pictures.items() if not picture.stands()]
    patterns = [f"{folder.name}_*.svg" for folder in chosen] if args.folders else ["*.svg"]
    current = {*pictures, *OTHERS}
    paths = [path for pattern in patterns for path in sorted(ASSETS.glob(pattern))]
    orphaned = [path for path in paths if path.name not in current and drawn(path)]
    if args.check and (stale or orphaned):
        say(f"stale: {', '.join([*stale, *(path.name for path in orphaned)])}; run python -m common plots")
        return 1
    for file in stale:
        pictures[file].write()
    for path in orphaned:
        path.unlink()
    return say(f"{len(pictures)} pictures, {len(stale)} drawn" + (f", {len(orphaned)} removed" if orphaned else ""))
