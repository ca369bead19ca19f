"""The predictions of a test stage, in files that survive a kill, the rows' scores, and the time that it took."""

import json
import math

from common import console, files


class Timing:
    """(seconds, rows) of every batch, for the record's "inference" block."""

    def __init__(self):
        self.batches, self.tokens, self.parts = [], None, {}

    def beside(self, name):
        """The Timing of another part of the same stage. `seconds` includes it, `block` does not."""
        return self.parts.setdefault(name, Timing())

    def seconds(self, stage):
        """{name: seconds} of the stage and its other parts."""
        own = {stage: sum(seconds for seconds, _ in self.batches)}
        return own | {f"{stage}, {name}": part.seconds("")[""] for name, part in self.parts.items()}

    def block(self, n):
        """The record's "inference" block for `n` rows. A row's latency is the time of its batch; batch_size is that of
        the largest batch. Only generated tokens count as tokens per second."""
        if not self.batches:
            rates = ("samples_per_second", "tokens_per_second")
            return dict.fromkeys(("seconds", *rates, "latency_p50_s", "latency_p90_s", "batch_size"))
        latencies = sorted(seconds for seconds, rows in self.batches for _ in range(rows))
        total = max(sum(seconds for seconds, _ in self.batches), 1e-9)
        return {
            "seconds": total,
            "samples_per_second": n / total,
            "tokens_per_second": self.tokens / total if self.tokens is not None else None,
            "latency_p50_s": latencies[len(latencies) // 2],
            "latency_p90_s": latencies[min(len(latencies) - 1, int(len(latencies) * 0.9))],
            "batch_size": max(rows for _, rows in self.batches),
        }


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_scores(row):
    """Whether a row of the file has scores, in any number."""
    return isinstance(row.get("scores"), list) and all(map(is_number, row["scores"])) and bool(row["scores"])


def scores_of(labels):
    """A function that says whether a row of the file has a score for every label."""
    return lambda row: is_scores(row) and len(row["scores"]) == len(labels)


def is_answer(row):
    """Whether a row of the file is an answer, as generation.cut makes it."""
    types = {"text": str, "tokens": int, "stopped": bool}
    return row.keys() == types.keys() and all(type(row[name]) is expected for name, expected in types.items())


def rows_apart(scores):
    """Take the rows' scores out of a stage's metrics and return them as a record has them: {metric: text}. The text is
    digits 0 and 1 for rows that are right or wrong, else percentages with a space between."""
    rows = {name: metric.pop("rows") for name, metric in scores.items() if "rows" in metric}
    return {
        name: "".join(str(int(value)) for value in values)
        if set(values) <= {0, 1}
        else " ".join(f"{100 * value:.2f}" for value in values)
        for name, values in rows.items()
        if not name.startswith("echo_")
    }


def row_scores(text):
    """Array of the rows' scores, 0 to 100, from the text that `rows_apart` makes."""
    import numpy

    return numpy.array([100 * int(digit) for digit in text] if set(text) <= {"0", "1"} else text.split(), dtype=float)


class Predictions:
    """The predictions of a stage, in a file that survives a kill (none if execution.folder is None). A line of it is a
    batch.

    rows: a dictionary for every test row, in the rows' order; complete when every batch has been added.
    done: numbers of the rows that were read from the file of an interrupted run.
    valid(row): whether a row of the file belongs to this stage. Lines that are torn or foreign are skipped with a
    warning, and their rows predicted again.
    """

    def __init__(self, execution, name, n, timing, valid=is_scores):
        self.rows, self.timing, self.valid = [None] * n, timing, valid
        self.path, self.done = None, frozenset()
        if execution.folder is None:
            return
        self.path = execution.folder / f"predictions-{name}.jsonl"
        lines = self.path.read_bytes().splitlines(keepends=True) if execution.resume and self.path.is_file() else []
        valid_lines = [line for line in lines if self._take(line)]
        if len(valid_lines) < len(lines):
            lost = len(lines) - len(valid_lines)
            console.warn(f"{files.display(self.path)}: {lost} lines are not as written; their rows are read again")
        files.write_text(self.path, b"".join(valid_lines).decode())
        self.done = frozenset(i for i, row in enumerate(self.rows) if row is not None)

    def _take(self, line):
        """Whether a line of the file is a batch of this stage; if so, its rows are stored."""
        try:
            batch = json.loads(line.decode())
            rows, results, seconds = batch["rows"], batch["found"], batch["seconds"]
            numbers = isinstance(rows, list) and all(type(row) is int and 0 <= row < len(self.rows) for row in rows)
            new = numbers and rows and len(set(rows)) == len(rows) and not any(self.rows[row] for row in rows)
            if not (line.endswith(b"\n") and new and len(results) == len(rows) and is_number(seconds) and seconds >= 0):
                return False
            if not all(isinstance(row, dict) and self.valid(row) for row in results):
                return False
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        self._place(rows, results, seconds)
        return True

    def add(self, rows, results, seconds):
        """Store one batch and append it to the file as one line, which is complete or skipped later."""
        self._place(rows, results, seconds)
        if self.path is None:
            return
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"rows": rows, "seconds": seconds, "found": results}, ensure_ascii=False) + "\n")

    def _place(self, rows, results, seconds):
        for row, value in zip(rows, results, strict=True):
            self.rows[row] = value
        self.timing.batches.append((seconds, len(rows)))
        if "tokens" in results[0]:
            self.timing.tokens = (self.timing.tokens or 0) + sum(row["tokens"] for row in results)
