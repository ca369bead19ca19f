"""What a click on a run opens: its command, identity, figures, curves, confusions, and its answers if they are here."""

from common.reports import join, runs
from common.reports.page import answers
from common.runs import identity

SCALARS = ("seconds", "tokens", "tokens_per_second", "steps", "loss", "peak_memory_bytes", "trainable_parameters")
RATES = ("seconds", "samples_per_second", "tokens_per_second", "latency_p50_s", "latency_p90_s", "batch_size")
MISTAKES = 12  # pairs of true and predicted class that are listed


def of_record(record, points, rows, own=None):
    """The details of a record. points: most points of a curve; rows: most rows of answers; own: file of own data. What
    has more is thinned, and "curve_points" and "answers" say of how many."""
    training, fields = record["training"] or {}, record["identity"]
    curves, total = thinned(training.get("curves"), points)
    return {
        "command": record["command"],
        "script": record["script"],
        "run": record["id"],
        "seeds": record.get("seeds"),
        "metrics": paired(record),
        "identity": {name: value for name, value in identity.flat(fields).items() if value is not None},
        "wording": {name: text for name, text in fields["wording"].items() if text},
        "deviations": {name: value for name, value in join.deviations(record).items() if name != "script"},
        "training": picked(training, SCALARS),
        "validation": training.get("validation") or [],
        "curves": curves,
        "curve_points": total,
        "inference": picked(record["inference"] or {}, RATES),
        "cost": record["cost"],
        "data": record["data"],
        "environment": packed(record["environment"]),
        "mistakes": {stage: mistakes(each) for stage, each in (record["confusion"] or {}).items()},
        "started_at": record["started_at"],
        "finished_at": record["finished_at"],
        "answers": answers.of_record(record, rows, own),
    }


def paired(record):
    """{metric: [of the base model, of the tuned one]}; None for what was not tested."""
    base, tuned = (stage or {} for stage in runs.stages(record))
    return {name: [base.get(name), tuned.get(name)] for name in tuned | base}


def picked(block, names):
    return {name: block[name] for name in names if block.get(name) is not None}


def packed(environment):
    """The environment with its packages as one text."""
    versions = environment["packages"]
    text = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return {name: value for name, value in environment.items() if name != "packages" and value is not None} | {
        "packages": text
    }


def thinned(curves, points):
    """({name: values}, number of points of the record): at most `points` of the record's own points, evenly spread,
    with the first and the last; (None, 0) without curves."""
    names = [name for name, values in (curves or {}).items() if name == "step" or any(v is not None for v in values)]
    total = min((len(curves[name]) for name in names), default=0)
    if not total or points < 2:
        return None, total
    kept = sorted({round(i * (total - 1) / (points - 1)) for i in range(points)}) if total > points else range(total)
    return {name: [significant(curves[name][i]) for i in kept] for name in names}, total


def significant(value):
    """A number of a curve with five digits: the eye sees three."""
    return value if value is None or isinstance(value, int) else float(f"{value:.5g}")


def mistakes(matrix):
    """The most frequent pairs of a confusion matrix and the number of right rows: {"right", "rows", "pairs": [[true
    class, predicted class, rows]]}."""
    if not runs.is_square(matrix):
        return {"right": None, "rows": None, "pairs": []}
    labels, counts = matrix["labels"], matrix["counts"]
    cells = [(i, j, counts[i][j]) for i in range(len(labels)) for j in range(len(labels))]
    wrong = sorted((cell for cell in cells if cell[0] != cell[1] and cell[2]), key=lambda cell: (-cell[2], cell))
    return {
        "right": sum(count for i, j, count in cells if i == j),
        "rows": sum(count for *_, count in cells),
        "pairs": [[labels[i], labels[j], count] for i, j, count in wrong[:MISTAKES]],
    }
