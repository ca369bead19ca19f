"""Pictures from records: `python -m common.plots [FOLDER…] [--check]` draws into assets/ what the READMEs show: the
curves of a training, confusion matrices, scores over the settings of decoding. Pictures whose record is gone go too.
"""

import hashlib
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from common import flags, folders, loadtest, metrics, records
from common.console import exit_code, say

ASSETS = records.ROOT / "assets"
# The settings of the decoding study; one beam is the greedy answer.
AXES = {"temperature": "temperature", "num_beams": "beams", "top_k": "top-k"}
LINES = {"bertscore_f1": "BERTScore F1", "rouge1": "ROUGE-1", "bleu": "BLEU"}
COLOURS = ("#0b6e99", "#c2571a", "#5b5ea6")


@dataclass(frozen=True)
class Picture:
    """One file of assets/. content: all that it shows, as JSON has it; draw(content) makes the figure."""

    kind: str  # "curves", "confusion" or "decoding"
    file: str
    title: str
    content: dict
    draw: object

    @property
    def stamp(self):
        """Changes with the content and with this file, which draws it."""
        text = json.dumps([self.title, self.content], sort_keys=True)
        return hashlib.sha256(text.encode() + Path(__file__).read_bytes()).hexdigest()

    def stands(self):
        path = ASSETS / self.file
        return path.is_file() and self.stamp in path.read_text(encoding="utf-8")

    def write(self):
        import matplotlib

        matplotlib.use("svg")
        matplotlib.rcParams |= {"svg.hashsalt": self.file, "font.size": 9, "axes.spines.top": False}
        matplotlib.rcParams |= {"axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}
        figure, drawn = self.draw(self.content), io.StringIO()
        figure.suptitle(self.title, fontsize=10)
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Description": self.stamp})
        lines = [line.rstrip() for line in drawn.getvalue().splitlines()]
        records.write_text(ASSETS / self.file, "\n".join(lines) + "\n")


def of_folder(folder):
    """The pictures that the folder's records make, in the order of the records."""
    home, found, swept = folder.path.name, [], {}
    for record in folder.records:
        told = f"{record['checkpoint']}, {record['task']}, {record['method']}"
        if record["training"]:
            if record["training"].get("curves") and record["training"]["steps"]:
                content = {name: record["training"][name] for name in ("curves", "validation", "steps")}
                found.append(Picture("curves", f"{home}_{record['name']}_curves.svg", told, content, curves))
            if record.get("confusion"):
                file = f"{home}_{record['name']}_confusion.svg"
                found.append(Picture("confusion", file, told, record["confusion"], confusion))
        axis, value = decoded(record)
        if axis and all(record["metrics"].get(name, metrics.UNKNOWN)["ci95"] for name in LINES):
            points = swept.setdefault(record["checkpoint"], {axis: {} for axis in AXES})
            points[axis][value] = {name: record["metrics"][name] for line in LINES for name in (line, f"echo_{line}")}
    for checkpoint, points in swept.items():
        file = f"{home}_instructions_{checkpoint.rpartition('/')[2]}_decoding.svg"
        title = f"{checkpoint}, held-out instructions: scores with 95 % intervals"
        content = {axis: sorted(values.items()) for axis, values in points.items()}
        found.append(Picture("decoding", file, title, content, decoding))
    return found


def decoded(record):
    """(axis of AXES, value) of a trained adapter's answers; (None, None) for any other record."""
    asked = record["settings"].get("decoding")
    if record["task"] != "instructions" or not asked or record["training"] or not record["method"].startswith("qlora"):
        return None, None
    sampled = [(axis, asked[axis]) for axis in ("temperature", "top_k") if asked[axis]]
    return sampled[0] if sampled else ("num_beams", asked["num_beams"])


def panels(number, width=3.2, height=2.7):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * number, height), layout="constrained")
    return figure, figure.subplots(1, number, squeeze=False)[0]


def curves(content):
    """Loss, gradient norm and learning rate over the steps; the validation rows' loss and accuracy after each epoch."""
    history, validation = content["curves"], content["validation"]
    told = {"loss": "loss", "grad_norm": "gradient norm", "learning_rate": "learning rate"}
    figure, axes = panels(len(told))
    for axis, (name, title) in zip(axes, told.items(), strict=True):
        faint = 0.4 if name == "loss" else 1  # its running mean is drawn over it
        axis.plot(history["step"], history[name], color=COLOURS[0], linewidth=0.8, alpha=faint, label="training")
        axis.set(title=title, xlabel="step")
        axis.set_ylim(bottom=0)
    ends = [content["steps"] * (i + 1) / len(validation) for i in range(len(validation))]
    axes[0].plot(ends, [each["loss"] for each in validation], "o-", color=COLOURS[1], label="validation")
    for end, each in zip(ends, validation, strict=True):
        if each["accuracy"] is not None:
            near = {"textcoords": "offset points", "xytext": (-2, 8), "ha": "right", "color": COLOURS[1]}
            near["bbox"] = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}
            axes[0].annotate(f"{each['accuracy']:.1%}", (end, each["loss"]), **near)
    losses, reach = history["loss"], max(1, len(history["loss"]) // 20)
    around = [losses[max(0, i - reach) : i + reach + 1] for i in range(len(losses))]
    axes[0].plot(
        history["step"], [sum(part) / len(part) for part in around], color=COLOURS[0], label="training, running mean"
    )
    axes[0].legend(frameon=False, fontsize=8, loc="upper right")
    return figure


def confusion(content):
    """Rows of each class by the class they were taken for, before and after; shaded by share of the class."""
    labels = next(iter(content.values()))["labels"]
    size = max(2.7, 0.32 * len(labels))
    figure, axes = panels(len(content), size + 0.6, size)
    for axis, (stage, found) in zip(axes, content.items(), strict=True):
        counts = found["counts"]
        shares = [[n / max(1, sum(row)) for n in row] for row in counts]
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for i, row in enumerate(counts):
            for j, count in enumerate(row):
                axis.text(j, i, count, ha="center", va="center", color="white" if shares[i][j] > 0.6 else "black")
        axis.set(title=stage, xlabel="taken for", ylabel="is")
        axis.set_xticks(range(len(labels)), labels, rotation=90 if len(labels) > 4 else 0)
        axis.set_yticks(range(len(labels)), labels)
        axis.grid(visible=False)
    return figure


def decoding(content):
    """One panel a setting; a line a metric, the echo's score dashed in its colour."""
    figure, axes = panels(len(content))
    for axis, (name, points) in zip(axes, content.items(), strict=True):
        places = range(len(points))
        for colour, (metric, title) in zip(COLOURS, LINES.items(), strict=True):
            found = [scores[metric] for _, scores in points]
            values = [score["value"] for score in found]
            around = [[v - s["ci95"][0] for v, s in zip(values, found, strict=True)]]
            around.append([s["ci95"][1] - v for v, s in zip(values, found, strict=True)])
            axis.errorbar(places, values, yerr=around, color=colour, marker="o", capsize=3, label=title)
            echo = [scores[f"echo_{metric}"]["value"] for _, scores in points]
            axis.plot(places, echo, "--", color=colour, linewidth=1, label=f"{title} of an echo")
        axis.set(title=AXES[name], ylim=(0, 100))
        axis.set_xticks(places, [f"{value:g}" for value, _ in points])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    return figure


def shown(folder, kind):
    """The folder's pictures of one kind, as its README has them."""
    links = [f"![{p.title}](../assets/{p.file})" for p in of_folder(folder) if p.kind == kind]
    return "\n\n".join(links or ["-"]) + "\n"


def of_front():
    """The pictures of the front page, which are of no folder."""
    return [loadtest.picture(records.read(loadtest.SHOWN), "loadtest.svg")] if loadtest.SHOWN.is_file() else []


def main():
    parser = flags.Parser(description=__doc__)
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="model folders (default: all)")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a picture is missing or stale")
    args = parser.parse_args()
    chosen = folders.named(args.folders, folders.everyone())
    pictures = {picture.file: picture for folder in chosen for picture in of_folder(folder)}
    if not args.folders:
        pictures |= {picture.file: picture for picture in of_front()}
    stale = [file for file, picture in pictures.items() if not picture.stands()]
    gone = [p.name for f in chosen for p in ASSETS.glob(f"{f.path.name}_*.svg") if p.name not in pictures]
    if args.check and (stale or gone):
        say(f"stale: {', '.join(stale + gone)}; run python -m common.plots")
        raise SystemExit(1)
    for file in stale:
        pictures[file].write()
    for name in gone:
        (ASSETS / name).unlink()
    say(f"{len(pictures)} pictures, {len(stale)} drawn" + (f", {len(gone)} removed" if gone else ""))


if __name__ == "__main__":
    sys.exit(exit_code(main))
