"""Rows at once: as many as memory holds, halved where it turns out not to, and no finished row read twice."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from common import batched_forward, console, machine

# 64 MB a row, 700 MB to be had: eight rows at once, and not sixteen.
LIMITED = """
import json, resource, torch
from common import batched_forward

def work(rows):
    block = torch.ones(len(rows), 2**24)
    return [float(row[0]) for row in block]

work([0])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 700 * 2**20,) * 2)
seen = []
batched_forward.run(list(range(32)), 32, work, lambda rows, found, seconds: seen.append([rows, found]))
print(json.dumps(seen))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs ulimit -v")
def test_where_memory_ends_batches_are_halved_and_every_row_is_read_once():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", LIMITED], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert [len(rows) for rows, _ in seen] == [8, 8, 8, 8]
    assert [row for rows, _ in seen for row in rows] == list(range(31, -1, -1))
    assert all(found == [1.0] * 8 for _, found in seen)
    assert "out of memory with 32 rows at once: going on with 16" in done.stderr
    assert "out of memory with 16 rows at once: going on with 8" in done.stderr


def test_rows_that_were_finished_are_not_read_again_after_a_halving():
    asked, kept = [], []

    def work(rows):
        asked.append(rows)
        if len(rows) > 2 and 0 in rows:  # the last batch: memory ends late
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rows

    batched_forward.run([5, 6, 7, 8, 9, 10, 11, 12], 4, work, lambda rows, *_: kept.append(rows))
    assert asked == [[7, 6, 5, 4], [3, 2, 1, 0], [3, 2], [1, 0]]
    assert kept == [[7, 6, 5, 4], [3, 2], [1, 0]]


def test_a_single_row_that_does_not_fit_is_an_error_that_says_what_to_do():
    def work(rows):
        raise MemoryError

    with pytest.raises(console.Failed, match="a single row of 9 tokens: lower --max_document_tokens") as failure:
        batched_forward.run([9, 3], 2, work, lambda *_: None)
    assert failure.value.status == "OOM"


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def work(rows):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        batched_forward.run([9, 3], 2, work, lambda *_: None)


def test_a_batch_is_planned_for_the_memory_that_is_free(monkeypatch):
    monkeypatch.setattr(machine, "free", lambda: 100)
    sizes = []
    for each in (0, 10, 30, 1000):
        batched_forward.run(
            [1] * 8, 8, lambda rows: sizes.append(len(rows)) or rows, lambda *_: None, bytes_per_row=each
        )
    assert sizes == [8, 8, 2, 2, 2, 2, *[1] * 8]


def test_done_rows_are_left_out_whatever_batches_they_were_in():
    kept = []
    batched_forward.run([4, 3, 2, 1], 2, lambda rows: rows, lambda rows, *_: kept.append(rows), done={0, 3})
    assert kept == [[1], [2]]


def test_logits_that_are_not_numbers_end_the_run_as_failed():
    with pytest.raises(console.Failed, match="not numbers") as failure:
        batched_forward.check_numbers(torch.tensor([[1.0, float("nan")]]))
    assert failure.value.status == "failed"
    masked = torch.tensor([[1.0, -float("inf")]])
    assert batched_forward.check_numbers(masked) is masked
