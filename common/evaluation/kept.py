"""What a test stage found, row by row, in files that survive a kill, and how long it took."""

import json
import math

from common import console, files


class Timing:
    """Seconds of every batch and rows in it, for the record's `inference` block."""

    def __init__(self):
        self.batches, self.tokens, self.parts = [], None, {}

    def beside(self, name):
        """The Timing of another part of the same stage: the block leaves it out, `seconds` does not."""
        return self.parts.setdefault(name, Timing())

    def seconds(self, stage):
        """{name: seconds} of the stage and its other parts."""
        own = {stage: sum(seconds for seconds, _ in self.batches)}
        return own | {f"{stage}, {name}": part.seconds("")[""] for name, part in self.parts.items()}

    def block(self, n):
        """latency: how long a row waits for its batch; batch_size: rows of the largest. Tokens per second count written
        tokens only."""
        if not self.batches:
            rates = ("samples_per_second", "tokens_per_second")
            return dict.fromkeys(("seconds", *rates, "latency_p50_s", "latency_p90_s", "batch_size"))
        waits = sorted(seconds for seconds, rows in self.batches for _ in range(rows))
        total = max(sum(seconds for seconds, _ in self.batches), 1e-9)
        return {
            "seconds": total,
            "samples_per_second": n / total,
            "tokens_per_second": self.tokens / total if self.tokens is not None else None,
            "latency_p50_s": waits[len(waits) // 2],
            "latency_p90_s": waits[min(len(waits) - 1, int(len(waits) * 0.9))],
            "batch_size": max(rows for _, rows in self.batches),
        }


def is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_scores(row):
    """Whether a kept row holds numbers, as many as there are."""
    return isinstance(row.get("scores"), list) and all(map(is_number, row["scores"])) and bool(row["scores"])


def scores_of(labels):
    """Whether a kept row holds a number for every label."""
    return lambda row: is_scores(row) and len(row["scores"]) == len(labels)


def is_answer(row):
    """Whether a kept row is what generation.cut makes."""
    kinds = {"text": str, "tokens": int, "stopped": bool}
    return row.keys() == kinds.keys() and all(type(row[name]) is kind for name, kind in kinds.items())


class Predictions:
    """What a stage found, row by row, in a file that survives a kill.

    rows: one dictionary a test row, in the rows' order, complete once every batch was added.
    done: numbers of the rows that an earlier, interrupted part of this run finished.
    valid(row): whether a row of the file is of this stage. Lines that are torn or foreign are passed over and found
    anew, with a warning.
    """

    def __init__(self, execution, name, n, timing, valid=is_scores):
        self.rows, self.timing, self.valid = [None] * n, timing, valid
        self.path = execution.folder / f"predictions-{name}.jsonl"
        lines = self.path.read_bytes().splitlines(keepends=True) if execution.resume and self.path.is_file() else []
        whole = [line for line in lines if self._take(line)]
        if len(whole) < len(lines):
            lost = len(lines) - len(whole)
            console.warn(f"{files.display(self.path)}: {lost} lines are not as written; their rows are read again")
        files.write_text(self.path, b"".join(whole).decode())
        self.done = frozenset(i for i, row in enumerate(self.rows) if row is not None)

    def _take(self, line):
        """Whether a line of the file is a batch of this stage, whose rows are then placed."""
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
        """Keep one batch: a line of the file is a batch, so a batch is there whole or not at all."""
        self._place(rows, results, seconds)
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"rows": rows, "seconds": seconds, "found": results}, ensure_ascii=False) + "\n")

    def _place(self, rows, results, seconds):
        for row, value in zip(rows, results, strict=True):
            self.rows[row] = value
        self.timing.batches.append((seconds, len(rows)))
        if "tokens" in results[0]:
            self.timing.tokens = (self.timing.tokens or 0) + sum(row["tokens"] for row in results)
