"""Runs of several seeds as one row, and trained models beside what was cheaper."""

import math

import numpy
import pytest
from scipy import stats
from test_join import METRIC, add, altered, bare, record, scores

from common.console import InputError
from common.evaluation.kept import row_scores, rows_apart
from common.reports import calibration, comparisons, front, join, runs, statistics
from common.runs import folders

TRAINED, BASELINE = "smollm2/smollm2_summarization.py", "minilm/minilm_baseline_inference.py"
N = 60


@pytest.fixture
def home(tmp_path, monkeypatch):
    return bare(tmp_path, monkeypatch)


def scored(script, *words, mean, seed=0, digest="a" * 64):
    """A record whose rows score about `mean`; rows are as difficult for all records."""
    difficulty = numpy.random.default_rng(7).normal(0, 8, size=N)
    rows = numpy.clip(mean + difficulty + numpy.random.default_rng(seed).normal(0, 3, size=N), 0, 99) / 100
    made = record(script, *words, n=(100, 0, N))
    stage = {runs.SHOWN[made["identity"]["task"]][0]: {"rows": rows.tolist()}}
    digests = {"train": "b" * 64, "validation": "d" * 64, "test": digest}
    made = altered(made, data=made["identity"]["data"] | {"sha256": digests})
    found = scores(100 * float(rows.mean()), N)
    return made | {"metrics": found, "row_scores": {"tuned" if made["training"] else "base": rows_apart(stage)}}


def read(name):
    return next(folder for folder in folders.all_folders() if folder.name == name)


def table(task="summarization"):
    return comparisons.table(read("smollm2"), task, folders.all_folders())


def test_rows_are_kept_as_digits_or_as_percentages():
    stage = {"accuracy": {"rows": [1, 0, 1]}, "rouge1": {"rows": [0.5, 0.25]}, "echo_rouge1": {"rows": [1.0]}, "x": {}}
    kept = rows_apart(stage)
    assert kept == {"accuracy": "101", "rouge1": "50.00 25.00"}
    assert "rows" not in stage["accuracy"]
    assert row_scores(kept["accuracy"]).tolist() == [100, 0, 100]
    assert row_scores(kept["rouge1"]).tolist() == [50, 25]
    assert row_scores("73.00").tolist() == [73]


def test_several_seeds_are_one_row_with_an_interval_for_another_seed(home):
    for seed, value in ((42, 30.0), (43, 40.0), (44, 50.0)):
        made = record(TRAINED, "--seed", str(seed), n=(814, 0, 819))
        if seed == 44:  # on another number of threads, whose time says nothing of the others'
            made["environment"] |= {"threads": 1}
            made["training"] = made["training"] | {"seconds": 6000}
        add(home, made | {"metrics": scores(value, 819)}, "smollm2")
    add(home, record(TRAINED, "--seed", "43", "--epochs", "2", n=(814, 0, 819)), "smollm2")
    text = runs.scores(read("smollm2"), "summarization")
    assert "| qlora, 3 seeds " in text
    assert "qlora, epochs 2, seed 43" in text or "qlora, seed 43, epochs 2" in text
    assert "40.0 [" in text
    merged = join.declared(read("smollm2"), "summarization")
    low, high = merged["metrics"]["rouge1"]["ci95"]
    assert high - low > 30  # each run's is 10 wide
    assert merged["seeds"] == [42, 43, 44]
    assert merged["training"]["seconds"] == 600


def test_the_interval_of_seeds_is_students_without_rows_and_the_rows_own_without_seeds():
    exact = [{"value": value, "ci95": [value, value], "n": 9} for value in (40.0, 41.0, 43.0)]
    interval = stats.ttest_1samp([40.0, 41.0, 43.0], 0).confidence_interval()
    assert statistics.over_seeds(exact)["ci95"] == pytest.approx([interval.low, interval.high])
    assert statistics.over_seeds([METRIC] * 3) == {"value": 41.0, "ci95": pytest.approx([36.0, 46.0]), "n": 300}
    assert statistics.over_seeds([METRIC, METRIC | {"ci95": None}])["ci95"] is None
    far = [METRIC | {"value": value} for value in (2.0, 99.0)]
    assert statistics.over_seeds(far)["ci95"] == [0, 100]  # shares of rows have no others
    assert statistics.over_seeds(far, math.inf)["ci95"][1] > 100


def test_three_seeds_make_a_claim_about_methods_and_one_about_two_models(home):
    add(home, scored(BASELINE, "--task_type", "summarization", "--baseline", "dummy", mean=30), "minilm")
    add(home, scored(TRAINED, mean=40, seed=1), "smollm2")
    (line,) = [line for line in table().splitlines() if "minilm, dummy" in line]
    assert "two models" in line
    assert "better" in line
    for seed in (43, 44):
        add(home, scored(TRAINED, "--seed", str(seed), mean=40, seed=seed), "smollm2")
    (line,) = [line for line in table().splitlines() if "minilm, dummy" in line]
    assert "qlora, 3 seeds" in line
    assert "| methods " in line
    assert "better" in line


def test_methods_are_compared_with_the_usual_one_and_no_difference_is_said(home):
    for seed in (42, 43):
        add(home, scored(TRAINED, "--seed", str(seed), mean=40, seed=seed), "smollm2")
        add(home, scored(TRAINED, "--neftune", "5", "--seed", str(seed), mean=40, seed=seed + 9), "smollm2")
    (line,) = [line for line in table().splitlines() if line.startswith("| qlora+neftune")]
    assert "| qlora " in line
    assert "no difference seen" in line
    assert "(comparisons: 1)" in table()


def test_sentences_say_a_runs_score_and_the_tables_verdict(home):
    add(home, scored(BASELINE, "--task_type", "summarization", "--baseline", "dummy", mean=30), "minilm")
    add(home, scored(TRAINED, mean=40), "smollm2")
    add(home, scored(TRAINED, "--epochs", "2", mean=70), "smollm2")
    told = lambda words: front.figure(words, folders.all_folders())  # noqa: E731
    assert 35 < float(told("score smollm2 summarization qlora").split()[0]) < 45
    assert 65 < float(told("score smollm2 summarization qlora epochs 2").split()[0]) < 75
    assert told("score minilm summarization dummy").endswith("n = 60")
    assert told("score smollm2 summarization qlora epochs 9") == "not measured yet"
    assert told("compared smollm2 summarization | qlora | 100 rows | minilm, dummy").startswith("better (+10")
    assert told("compared smollm2 summarization | qlora | 7 rows | minilm, dummy") == "not compared yet"
    add(home, scored(TRAINED, "--seed", "43", mean=40, seed=43), "smollm2")
    assert told("compared smollm2 summarization | qlora | 100 rows | minilm, dummy").endswith("points; methods)")
    with pytest.raises(InputError, match="no model folder smollm3"):
        told("score smollm3 summarization qlora")


def test_runs_on_other_test_rows_are_not_compared(home):
    add(home, scored(TRAINED, mean=40), "smollm2")
    other = scored(BASELINE, "--task_type", "summarization", "--baseline", "dummy", mean=30, digest="c" * 64)
    add(home, other, "minilm")
    assert "Nothing to compare yet" in table()


def test_six_runs_that_differ_in_their_seed_are_calibrated(home):
    for seed in range(40, 46):
        add(home, scored(TRAINED, "--seed", str(seed), mean=40, seed=seed), "smollm2")
    add(home, scored(TRAINED, "--neftune", "5", mean=40), "smollm2")
    (group,) = calibration.recorded(folders.all_folders()).items()
    assert group[0] == "smollm2, summarization, qlora, 100 rows"
    assert group[1].shape == (6, N)
