"""Claims about differences: equal to the tests that they generalise, and right as often as they say."""

import numpy
import pytest
from scipy import stats

from common.console import InputError
from common.reports import calibration, statistics


def drawn(generator, seeds, rows, effect=0.0, of_seeds=2.0):
    """Accuracies in percent: rows differ in difficulty, runs in quality."""
    difficulty = generator.normal(size=rows)
    quality = generator.normal(effect, of_seeds, size=(seeds, 1)) / 20
    return 100.0 * (generator.normal(size=(seeds, rows)) * 0.5 < difficulty + quality)


def test_right_and_wrong_rows_are_compared_by_mcnemars_exact_test():
    first = [100.0] * 1 + [0.0] * 9 + [100.0] * 50 + [0.0] * 40
    second = [0.0] * 1 + [100.0] * 9 + [100.0] * 50 + [0.0] * 40
    difference = statistics.models_differ(first, second)
    assert difference.p == pytest.approx(2 * 11 / 2**10)  # 10 rows differ: 1 or fewer of one kind, both sides
    assert difference.value == pytest.approx(8.0)
    assert difference.low < 8.0 < difference.high
    assert statistics.word(difference) == "better"
    assert statistics.word(statistics.models_differ(second, first)) == "worse"


def test_other_scores_are_compared_by_swapping_the_two_of_a_row():
    generator = numpy.random.default_rng(1)
    first = generator.normal(40, 10, size=200)
    second = first + generator.normal(0.8, 5, size=200)
    difference, reference = statistics.models_differ(first, second), stats.ttest_rel(second, first)
    assert difference.p == pytest.approx(reference.pvalue, abs=0.01)
    interval = reference.confidence_interval()
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))


def test_scores_of_rows_are_swapped_as_in_scipys_permutation_test():
    rng = numpy.random.default_rng(2)
    for gain in (0.0, 0.7, 1.5):
        first = rng.normal(40, 20, size=300)
        second = first + rng.normal(gain, 12, size=300)
        options = {"permutation_type": "samples", "n_resamples": 20_000, "rng": rng, "batch": 1000}
        reference = stats.permutation_test((second - first,), numpy.mean, **options).pvalue
        assert statistics.models_differ(first, second).p == pytest.approx(reference, abs=0.02)


def test_equal_runs_do_not_differ():
    same = statistics.models_differ([0.0, 100.0], [0.0, 100.0])
    assert (same.value, same.p, statistics.word(same)) == (0.0, 1.0, "no difference seen")
    same = statistics.methods_differ([[0.0, 100.0]] * 2, [[0.0, 100.0]] * 2)
    assert (same.value, same.p) == (0.0, 1.0)


def test_methods_without_a_spread_of_seeds_are_compared_by_rows():
    generator = numpy.random.default_rng(2)
    first, second = generator.normal(40, 10, size=(2, 300))
    difference, reference = statistics.methods_differ([first] * 3, [second] * 3), stats.ttest_rel(second, first)
    assert difference.p == pytest.approx(reference.pvalue)


def test_methods_on_endless_rows_are_compared_by_seeds():
    first, second = numpy.array([[40.0], [41.0], [39.5]]), numpy.array([[42.0], [43.5], [42.5]])
    difference = statistics.methods_differ(first, second)
    assert difference.p == pytest.approx(stats.ttest_ind(second[:, 0], first[:, 0]).pvalue)


def test_one_seed_is_no_claim_about_methods():
    with pytest.raises(ValueError, match="two seeds"):
        statistics.methods_differ([[1.0, 2.0]], [[1.0, 2.0]] * 2)


@pytest.mark.parametrize("of_seeds", [0.0, 1.0, 4.0])
def test_methods_that_are_one_are_called_different_in_five_percent_at_most(of_seeds):
    generator = numpy.random.default_rng(3)
    runs = [drawn(generator, 6, 400, of_seeds=of_seeds) for _ in range(1500)]
    wrong = numpy.mean([statistics.methods_differ(six[:3], six[3:]).p < 0.05 for six in runs])
    assert 0.005 < wrong < 0.065  # 0.05 and three standard errors


def test_single_runs_mislead_where_seeds_matter():
    generator = numpy.random.default_rng(4)
    pairs = [drawn(generator, 2, 400, of_seeds=4.0) for _ in range(500)]
    assert numpy.mean([statistics.models_differ(*pair).p < 0.05 for pair in pairs]) > 0.2


def test_the_smallest_difference_is_seen_four_times_in_five():
    generator, n, deviation = numpy.random.default_rng(5), 250, 20.0
    effect = statistics.smallest(deviation, n)
    rows = generator.normal(effect, deviation, size=(2000, n))
    seen = stats.ttest_1samp(rows, 0, axis=1).pvalue < 0.05
    assert seen.mean() == pytest.approx(0.8, abs=0.03)


def test_holm_adjusts_for_the_number_of_comparisons():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([]) == []


@pytest.mark.parametrize("words", [["--runs", "5"], ["--output", "/proc/nowhere/figures.json"]])
def test_a_calibration_that_cannot_end_well_does_not_begin(words, monkeypatch):
    monkeypatch.setattr(calibration, "cheap", None)  # what it would fit
    with pytest.raises(InputError):
        calibration.main(words)


def test_the_calibration_counts_wrong_calls_and_covering_intervals():
    generator = numpy.random.default_rng(6)
    figures = calibration.rates(drawn(generator, 40, 800, of_seeds=0.0))
    assert figures["methods"] <= 6
    assert figures["models"] <= 6
    assert 92 < figures["coverage"] < 98
    figures = calibration.rates(drawn(generator, 40, 800, of_seeds=4.0))
    assert figures["models"] > 20
    assert figures["methods"] <= 8  # 5 and what 40 runs, compared many times, add by chance
