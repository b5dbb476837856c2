"""Known values from the literature, and properties that must hold for any data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preceptor import stats

unit = st.floats(0, 1, allow_nan=False)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_matches_newcombe_1998_table_1(k, n, low, high):
    estimate = stats.wilson(k, n)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (low, high)


def test_wilson_is_never_certain_and_refuses_nonsense():
    assert stats.wilson(1000, 1000).low < 1 == stats.wilson(1000, 1000).high
    for k, n in [(0, 0), (3, 2), (-1, 5)]:
        with pytest.raises(ValueError, match="wilson"):
            stats.wilson(k, n)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_value_and_is_symmetric(pair):
    k, n = pair
    estimate, mirrored = stats.wilson(k, n), stats.wilson(n - k, n)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
    assert estimate.low == pytest.approx(1 - mirrored.high)


def test_bootstrap_agrees_with_the_normal_interval_on_many_values():
    values = np.random.default_rng(1).uniform(size=2000)
    estimate, margin = stats.bootstrap_mean(values.tolist()), 1.96 * values.std() / np.sqrt(2000)
    assert estimate.high - estimate.low == pytest.approx(2 * margin, rel=0.06)
    assert estimate == stats.bootstrap_mean(values.tolist()), "the same seed gives the same interval"


def test_clusters_widen_the_interval_as_copies_of_one_prompt_carry_no_news():
    values = np.random.default_rng(2).integers(0, 2, 50).tolist()
    copied, labels = [v for v in values for _ in range(10)], [i for i in range(50) for _ in range(10)]
    naive, clustered, single = stats.bootstrap_mean(copied), stats.bootstrap_mean(copied, labels), stats.bootstrap_mean(values)
    assert clustered.n == 50
    assert naive.n == 500
    assert (clustered.low, clustered.high) == (single.low, single.high)
    assert naive.high - naive.low < 0.5 * (clustered.high - clustered.low)


@settings(max_examples=40)
@given(st.lists(unit, min_size=1, max_size=40))
def test_bootstrap_stays_inside_the_data(values):
    estimate = stats.bootstrap_mean(values, resamples=200)
    assert min(values) - 1e-9 <= estimate.low <= estimate.high <= max(values) + 1e-9


def test_few_distinct_values_and_many_are_resampled_alike():
    """Two ways to draw the same thing: values that are told apart in the twelfth digit take the other way."""
    coarse = np.random.default_rng(0).integers(0, 4, 400) / 4
    fine = coarse + 1e-12 * np.arange(400)
    one, other = (stats.bootstrap_mean(values.tolist(), resamples=20_000) for values in (coarse, fine))
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=2e-3)
    columns = np.stack([coarse, np.ones(400)], axis=1), np.stack([fine, np.ones(400)], axis=1)
    one, other = (stats.bootstrap_of(sums, lambda totals: totals[:, 0] / totals[:, 1], resamples=20_000) for sums in columns)
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=2e-3)


@pytest.mark.parametrize("clustered", [False, True])
def test_bootstrap_covers_the_truth_about_as_often_as_it_says(clustered):
    """300 samples of 60 prompts (in clusters: five rows each that stand and fall together), mean known."""
    rng, hits = np.random.default_rng(3), 0
    for _ in range(300):
        prompts = rng.beta(2, 1, 60)
        rows = np.repeat(prompts, 5) if clustered else prompts
        labels = np.repeat(np.arange(60), 5).tolist() if clustered else None
        found = stats.bootstrap_mean(rows.tolist(), labels, resamples=600)
        hits += found.low <= 2 / 3 <= found.high
    assert 0.91 <= hits / 300 <= 0.98


def test_wilson_covers_the_truth_about_as_often_as_it_says():
    for p, n in ((0.5, 40), (0.9, 60), (0.98, 200)):
        ks = np.random.default_rng(1).binomial(n, p, 4000)
        intervals = {int(k): stats.wilson(int(k), n) for k in set(ks.tolist())}
        covered = np.mean([intervals[int(k)].low <= p <= intervals[int(k)].high for k in ks])
        assert 0.925 <= covered <= 0.985, (p, n)


def test_ten_thousand_distinct_values_take_little_room():
    """Units times resamples would be 800 MB."""
    import tracemalloc

    values = np.random.default_rng(0).random(10_000)
    tracemalloc.start()
    stats.bootstrap_mean(values.tolist(), resamples=500)
    stats.sign_flip((values - 0.4).tolist(), flips=500)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 30 * 2**20


def test_sign_flip_of_distinct_sizes_is_that_of_equal_ones():
    differences = np.random.default_rng(0).normal(0.15, 1, 60)
    alone = stats.sign_flip(differences.tolist(), flips=20_000)
    twice = stats.sign_flip(np.round(differences, 1).tolist(), flips=20_000)
    assert alone == pytest.approx(twice, abs=0.06)
    assert stats.sign_flip([0.1, 0.2, 0.3, 0.4]) == pytest.approx(2 / 16, abs=0.02)


def test_proportion_uses_wilson_for_zero_one_values_only():
    assert stats.proportion([1.0, 0.0, 1.0]) == stats.wilson(2, 3)
    assert stats.proportion([1.0] * 30).low < 1
    assert stats.proportion([1.0, 0.5, 1.0]).value == pytest.approx(2.5 / 3)
    with pytest.raises(ValueError, match="no values"):
        stats.proportion([])


@pytest.mark.parametrize(("n", "low", "high"), [(1, 0.0, 0.89), (24, 0.22, 0.33), (1000, 0.247, 0.253)])
def test_equal_values_are_no_certainty(n, low, high):
    found = stats.proportion([0.25] * n)
    assert found.value == 0.25
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.015)
    assert found.low < 0.25 < found.high


def test_mcnemar_known_values():
    assert stats.mcnemar(0, 0) == 1
    assert stats.mcnemar(5, 5) == 1
    assert stats.mcnemar(10, 2) == pytest.approx(0.03857, abs=1e-5)
    assert stats.mcnemar(2, 10) == stats.mcnemar(10, 2)
    assert stats.mcnemar(900, 100) < 1e-100


def test_sign_flip_matches_the_exact_count_and_is_bounded_beyond_its_draws():
    assert stats.sign_flip([0.5] * 5) == pytest.approx(2 / 32, abs=0.01)
    assert 2 / 2**200 < stats.sign_flip([0.3] * 200) < 1e-40, "where no draw came near, a bound that holds"
    assert stats.sign_flip([0.0, 0.0]) == 1


def test_paired_difference_sees_what_two_separate_intervals_miss():
    rng = np.random.default_rng(3)
    other = rng.integers(0, 2, 400).astype(float)
    main = np.where(rng.uniform(size=400) < 0.05, 1.0, other)
    result = stats.paired_difference(main.tolist(), other.tolist())
    assert result.test == "McNemar, exact"
    assert result.estimate.low > 0
    assert stats.wilson(int(main.sum()), 400).low < stats.wilson(int(other.sum()), 400).high


def test_paired_difference_of_equal_arms_is_not_certain():
    result = stats.paired_difference([1.0] * 100, [1.0] * 100)
    assert (result.estimate.value, result.p) == (0, 1)
    assert result.estimate.low == pytest.approx(-2.7718 / 102, abs=1e-4)  # Bonett and Price (2012) with no discordant pair
    assert stats.paired_difference([0.5, 0.25, 1.0], [0.0, 0.5, 1.0]).test == "sign flip"
    all_better = stats.paired_difference([1.0] * 50, [0.0] * 50).estimate
    assert all_better.value == 1 == all_better.high
    assert 0.85 < all_better.low < 1
    with pytest.raises(ValueError, match="as many"):
        stats.paired_difference([1.0], [])


@given(st.lists(st.tuples(unit, unit), min_size=1, max_size=30))
@settings(max_examples=40)
def test_paired_difference_turns_round(pairs):
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    forward, backward = stats.paired_difference(a, b, resamples=200), stats.paired_difference(b, a, resamples=200)
    assert forward.estimate.value == pytest.approx(-backward.estimate.value)
    assert -1 <= forward.estimate.low <= forward.estimate.high <= 1
    assert 0 < forward.p <= 1


def test_both_ways_round_the_interval_is_the_same():
    rng = np.random.default_rng(11)
    a, b = rng.random(40).tolist(), rng.integers(0, 2, 40).astype(float).tolist()
    forward, backward = stats.paired_difference(a, b), stats.paired_difference(b, a)
    assert (forward.estimate.low, forward.estimate.high, forward.p) == (-backward.estimate.high, -backward.estimate.low, backward.p)


# Differences of figures that are functions of totals


def ratio(totals):
    return totals[:, 0] / totals[:, 1]


def f1(totals):
    return np.where(totals[:, 1] > 0, 2 * totals[:, 0] / (totals[:, 1] + totals[:, 2]), np.nan)


def attempts(rng, size, tries, right):
    """Units of (correct, attempted, 1)."""
    tried = rng.random(size) < tries
    return np.stack([tried & (rng.random(size) < right), tried, np.ones(size)], axis=1).astype(float)


sides = st.lists(st.tuples(*[st.sampled_from([(0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 1.0)])] * 2), min_size=2, max_size=25)


@given(sides)
@settings(max_examples=30)
def test_a_difference_of_figures_turns_round_and_is_nothing_for_one_side_twice(pairs):
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    if a[:, 1].any() and b[:, 1].any():
        forward = stats.paired_figure(a, b, f1, resamples=499)
        assert forward.turned() == stats.paired_figure(b, a, f1, resamples=499)
        assert forward.estimate.value == pytest.approx((f1(a.sum(0, keepdims=True)) - f1(b.sum(0, keepdims=True))).item())
    if a[:, 1].any():
        same = stats.paired_figure(a, a, f1, resamples=499)
        assert (same.estimate.value, same.estimate.low, same.estimate.high, same.p) == (0, 0, 0, 1)


def test_the_interval_of_a_difference_of_figures_covers_the_truth_and_its_p_holds_its_level():
    """400 pairs of samples (seed 5) of 80 units whose hardness both sides share: one side tries all, the other a third, and both are right as
    often among what they try, so that the figures are equal and the totals are not."""
    rng, covered, found = np.random.default_rng(5), 0, 0
    for _ in range(400):
        hard = rng.random(80)
        a, b = (attempts(rng, 80, tries, 0.8 - 0.4 * hard) for tries in (1.0, 0.33))
        result = stats.paired_figure(a, b, ratio, resamples=1999)
        covered += result.estimate.low <= 0 <= result.estimate.high
        found += result.p < 0.05
    assert 0.91 <= covered / 400 <= 0.98
    assert found / 400 <= 0.07


def test_a_true_difference_of_figures_is_covered_and_found():
    """200 pairs of samples (seed 6) of 150 units; F1 of 0.6 / (1 + 0.75) * 2 against 0.3 / (1 + 0.5) * 2."""
    rng, covered, found, truth = np.random.default_rng(6), 0, 0, 1.2 / 1.75 - 0.6 / 1.5
    for _ in range(200):
        result = stats.paired_figure(attempts(rng, 150, 0.75, 0.8), attempts(rng, 150, 0.5, 0.6), f1, resamples=1999)
        covered += result.estimate.low <= truth <= result.estimate.high
        found += result.p < 0.05
    assert 0.9 <= covered / 200 <= 0.985
    assert found / 200 >= 0.95


def test_few_pairs_are_no_finding_however_far_apart():
    """The bootstrap of two pairs that agree knows no doubt; the swap of two pairs has four outcomes."""
    result = stats.paired_figure(np.array([[1.0, 1], [2, 2]]), np.array([[0.0, 1], [0, 2]]), ratio)
    assert result.estimate.value == 1
    assert result.p == pytest.approx(0.5, abs=0.03)


def test_a_figure_that_is_undefined_in_resamples_speaks_for_no_difference():
    a, b = np.array([[1.0, 1]] + [[0.0, 0]] * 9), np.array([[0.0, 1]] + [[0.0, 0]] * 9)
    assert stats.paired_figure(a, b, ratio).p > 0.3
    with pytest.raises(ValueError, match="not defined"):
        stats.paired_figure(a, np.zeros_like(b), ratio)
    with pytest.raises(ValueError, match="one shape"):
        stats.paired_figure(a, b[:3], ratio)


def test_a_plain_difference_survives_many_comparisons():
    """A Monte Carlo p has a floor; 1,000 comparisons adjusted must not hide what no resample came near."""
    rng = np.random.default_rng(8)
    scores = rng.uniform(0.5, 0.9, 60)
    far = stats.paired_difference(scores.tolist(), (scores - rng.uniform(0.2, 0.3, 60)).tolist())
    figures = stats.paired_figure(attempts(rng, 200, 0.9, 0.9), attempts(rng, 200, 0.9, 0.3), ratio)
    assert max(stats.holm([far.p, figures.p] + [1.0] * 998)[:2]) < 0.001
    near = stats.sign_flip([0.1] * 6)
    assert near >= 2 / 2**6 - 0.01


def test_holm_known_values_and_order():
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]) == []


@given(st.lists(unit, min_size=1, max_size=20))
def test_holm_never_lowers_and_keeps_the_ranking(p_values):
    adjusted = stats.holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    assert [adjusted[i] for i in np.argsort(p_values, kind="stable")] == sorted(adjusted)


def test_goodness_takes_the_worst_of_each_prompt():
    row = [1.0] * 10
    row[3] = 0.0
    assert stats.goodness_at([row, [1.0] * 10]).value == 0.5
    assert stats.goodness_at([[0.0, *[1.0] * 11]]).value == 0.5, "T = 12: the mean of the ceil(1.2) = 2 worst"
    assert stats.goodness_at([[1.0] * 62 + [0.0] * 8]).value == 0.0, "T = 70: exactly 7, not 8 by rounding of 0.1 * 70"
    assert stats.worst_mean([0.0] * 7 + [1.0] * 63) == 0.0
    assert stats.goodness_at([[1.0, 0.0], [1.0]], q=1.0).value == 0.75
    with pytest.raises(ValueError, match="worst_mean"):
        stats.goodness_at([[]])


@given(st.lists(st.lists(unit, min_size=1, max_size=15), min_size=1, max_size=10), st.sampled_from([0.1, 0.25, 0.5]))
@settings(max_examples=40)
def test_goodness_lies_between_the_minimum_and_the_mean(rows, q):
    goodness = stats.goodness_at(rows, q).value
    assert np.mean([min(row) for row in rows]) - 1e-9 <= goodness <= np.mean([np.mean(row) for row in rows]) + 1e-9


def test_cohen_kappa_known_value():
    first = ["y"] * 25 + ["n"] * 25
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert stats.cohen_kappa(first, second) == pytest.approx(0.4)
    assert stats.cohen_kappa(["a"], ["a"]) == 1


KRIPPENDORFF_2011 = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorff_alpha_of_the_published_example(level, alpha):
    assert stats.krippendorff_alpha(KRIPPENDORFF_2011, level) == pytest.approx(alpha, abs=5e-4)


@pytest.mark.parametrize(
    ("first", "second", "alpha"),
    [("0100000010", "1110010000", 0.095), ("aabbdcccedda", "babbbcccEddd".lower(), 0.692)],
)
def test_krippendorff_alpha_of_two_published_examples_without_gaps(first, second, alpha):
    """Examples A (binary) and B (nominal) of Krippendorff (2011)."""
    ratings = [[ord(char) for char in text] for text in (first, second)]
    assert stats.krippendorff_alpha(ratings, "nominal") == pytest.approx(alpha, abs=5e-4)


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_estimate_is_the_same_figure_with_an_interval(level, alpha):
    units = [[rating for rating in column if rating is not None] for column in zip(*KRIPPENDORFF_2011, strict=True)]
    found = stats.alpha_estimate(units, level)
    assert found.value == pytest.approx(alpha, abs=5e-4)
    assert found.low < found.value < found.high <= 1
    assert found.n == 11, "the unit with one rating carries no pair"
    assert found == stats.alpha_estimate(units, level)


def test_alpha_interval_covers_the_truth_about_as_often_as_it_says():
    """Two raters who copy the truth with probability 0.7 and guess a fair coin otherwise: alpha is 0.49."""
    rng, covered = np.random.default_rng(5), 0
    for trial in range(200):
        truth = rng.integers(0, 2, (300, 1))
        ratings = np.where(rng.uniform(size=(300, 2)) < 0.7, truth, rng.integers(0, 2, (300, 2)))
        found = stats.alpha_estimate(ratings.astype(float).tolist(), "nominal", resamples=400, seed=trial)
        covered += found.low <= 0.49 <= found.high
    assert 0.90 <= covered / 200 <= 0.99


def test_alpha_of_copied_units_is_resampled_by_cluster():
    rng = np.random.default_rng(6)
    truth = rng.integers(0, 2, (60, 1))
    units = np.where(rng.uniform(size=(60, 3)) < 0.8, truth, 1 - truth).astype(float).tolist()
    copied, labels = [unit for unit in units for _ in range(10)], [index for index in range(60) for _ in range(10)]
    single, naive, clustered = stats.alpha_estimate(units), stats.alpha_estimate(copied), stats.alpha_estimate(copied, clusters=labels)
    assert clustered.n == 60
    assert clustered.high - clustered.low == pytest.approx(single.high - single.low, rel=0.05)
    assert naive.high - naive.low < 0.5 * (single.high - single.low)


def test_alpha_estimate_of_nothing_or_of_one_value_does_not_exist():
    with pytest.raises(ValueError, match="two raters"):
        stats.alpha_estimate([[1.0], [0.0]])
    with pytest.raises(ValueError, match="only one value"):
        stats.alpha_estimate([[1.0, 1.0], [1.0, 1.0]])


def test_krippendorff_alpha_at_the_edges():
    assert stats.krippendorff_alpha([[1, 1], [1, 1]]) == 1
    with pytest.raises(ValueError, match="two raters"):
        stats.krippendorff_alpha([[1, None], [None, 1]])


def test_confusion_keeps_abstentions_apart():
    table = stats.confusion([True, True, True, False, False, True], [True, True, False, False, True, None])
    assert table == stats.Confusion(tp=2, fp=1, tn=1, fn=1, abstained=1)
    assert table.judged == 5
    assert table.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert stats.Confusion(5, 0, 0, 0).balanced_accuracy is None
    assert (table + table).abstained == 2


def test_an_estimate_prints_value_and_interval():
    estimate = stats.Estimate(0.9731, 0.9612, 0.9821, 1000)
    assert str(estimate) == "0.973 [0.961, 0.982] n=1000"
    assert stats.Estimate(-0.0, -0.01, 0.01, 5).text(2, signed=True) == "+0.00 [-0.01, +0.01]"


def test_rows_that_share_a_prompt_count_for_what_they_tell():
    same = [float(n % 3 == 0) for n in range(30) for _ in range(8)]
    prompts = [n for n in range(30) for _ in range(8)]
    assert stats.effective_size(same, prompts) == pytest.approx(29, abs=0.01), "eight times the same is once"
    found, plain = stats.clustered(same, prompts), stats.wilson(29 / 3, 29)
    assert (found.value, found.n) == (pytest.approx(1 / 3), 240)
    assert (found.low, found.high) == (pytest.approx(plain.low, abs=0.01), pytest.approx(plain.high, abs=0.01))
    assert stats.clustered([0.0] * 240, prompts).high == stats.wilson(0, 30).high
    assert stats.clustered([1.0], ["p"]).low == stats.wilson(1, 1).low
    assert stats.effective_size([1.0, 0.0] * 120, prompts) == 240, "what agrees between prompts is as good as independent, and never better"


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_without_shared_prompts_the_interval_is_wilsons(flags):
    values = [float(flag) for flag in flags]
    assert stats.clustered(values, range(len(values))) == stats.wilson(sum(flags), len(flags))
