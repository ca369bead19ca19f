"""Base and tuned answers of a run, from the folder that the run left on this machine. Records do not hold them.

Questions and references are read again from the data set or the sample; they are shown only if the hash of the test
rows is that of the record.
"""

import contextlib
import json

from common import console, data
from common.console import InputError
from common.evaluation.kept import is_scores, row_scores
from common.reports import runs
from common.runs import identity, records

CHARACTERS = 500  # most of a text that is shown
LABELS = ("{}-labels", "{}-scores", "{}-head")  # names of predictions that hold a score for every label
STAGES = ("base", "tuned")


def of_record(record, most, own=None):
    """{"rows": [[number, question, reference, base answer, tuned answer, base score, tuned score]], "total", "scored",
    "labelled"} of the first `most` test rows; None if the run's folder is not here. Scores are percentages or None.
    own: file or folder of own data, for the questions of runs on it."""
    folder, n = records.folder(record["file"]), record["data"]["n"]["test"]
    found = {stage: stage_answers(folder, stage, record, n) for stage in STAGES}
    if not most or not any(found.values()):
        return None
    texts, wanted = questions(folder, record, n, own)
    labelled = bool(record["confusion"])
    scores = {stage: scored(record, stage, found[stage], wanted if labelled else None, n) for stage in STAGES}
    rows = []
    for i in range(min(n, most)):
        answers = [shortened(found[stage][i]) if found[stage] else None for stage in STAGES]
        rows.append([i, shortened(texts[i]), shortened(wanted[i]), *answers, *(scores[stage][i] for stage in STAGES)])
    metric = runs.SHOWN[record["identity"]["task"]][0]
    return {"rows": rows, "total": n, "labelled": labelled, "scored": "accuracy" if labelled else metric}


def stage_answers(folder, stage, record, n):
    """The answer of each of the `n` test rows in one stage, None where it is missing; None without such a file."""
    labels = ((record["confusion"] or {}).get(stage) or {}).get("labels")
    if labels:
        for name in LABELS:
            rows = predictions(folder / f"predictions-{name.format(stage)}.jsonl", n)
            if rows:
                return [label(row, labels) for row in rows]
    rows = predictions(folder / f"predictions-{stage}-answers.jsonl", n)
    return rows and [row.get("text") if isinstance(row.get("text"), str) else None for row in rows]


def label(row, labels):
    """The label with the highest score; the first of equal ones."""
    if not is_scores(row) or len(row["scores"]) != len(labels):
        return None
    return labels[max(range(len(labels)), key=row["scores"].__getitem__)]


def predictions(path, n):
    """[{…} of each row] of a file by evaluation.kept.Predictions; {} for rows of torn lines. None without any."""
    if not path.is_file():
        return None
    found = [{} for _ in range(n)]
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError, IndexError, RecursionError):
            batch = json.loads(line.decode())
            for row, value in zip(batch["rows"], batch["found"], strict=True):
                if row >= 0 and isinstance(value, dict):
                    found[row] = value
    return found if any(found) else None


def questions(folder, record, n, own):
    """(texts, references) of the test rows, None for what is not known here."""
    rows = test_rows(record, own)
    if rows and len(rows) == n:
        return [row["text"] for row in rows], [row["target"] for row in rows]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
        if len(lines) == n:
            return [str(line["prompt"]) for line in lines], [str(line["reference"]) for line in lines]
    return [None] * n, [None] * n


def test_rows(record, own):
    """The test rows of a record, read again without the hub; None if they are not here or not the same."""
    fields, kind = record["identity"], record["data"]["kind"]
    path = own if kind == "own" else None
    if (kind == "own") != bool(path) or not data.at_hand(fields["task"], path, kind == "sample"):
        return None
    try:
        with console.silenced():
            rows, same = identity.rows_again(fields, kind, path)
    except (InputError, OSError):
        return None
    return rows.test if same else None


def scored(record, stage, answers, wanted, n):
    """The score of each row in one stage: that of the record, else whether the answer is the label that was wanted."""
    recorded = ((record.get("row_scores") or {}).get(stage) or {}).get(runs.SHOWN[record["identity"]["task"]][0])
    if recorded:
        values = row_scores(recorded).tolist()
        if len(values) == n:
            return values
    if answers and wanted and None not in wanted:
        pairs = zip(answers, wanted, strict=True)
        return [None if answer is None else 100.0 * (answer == right) for answer, right in pairs]
    return [None] * n


def shortened(text):
    return text if text is None or len(text) <= CHARACTERS else text[:CHARACTERS] + " …"
