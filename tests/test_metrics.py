"""Metrics against ROC curves worked by hand, against their definitions, and against their own guarantees."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.integrate import trapezoid
from scipy.stats import binom, mannwhitneyu, norm

from compleak.audits import intervals, metrics

# Five members (1) and five non-members (0) with a tie across kinds at 0.6 and at 0.2; thresholds from the top:
#   0.9: 1 member | 0.8: 1 member | 0.7: 1 non-member | 0.6: 2 members, 1 non-member | 0.4: 1 non-member |
#   0.2: 1 member, 1 non-member | 0.1: 1 non-member
SCORES = np.array([0.9, 0.8, 0.6, 0.6, 0.2, 0.7, 0.6, 0.4, 0.2, 0.1])
MEMBER = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0])


def worlds(max_size=40):
    """(scores with many ties, member with both kinds)"""
    size = st.integers(2, max_size)
    scores = size.flatmap(lambda n: hnp.arrays(float, n, elements=st.sampled_from([-1.5, 0.0, 0.25, 1.0, 7.0])))
    return scores.flatmap(
        lambda s: st.tuples(st.just(s), st.integers(1, len(s) - 1).map(lambda k: np.arange(len(s)) < k))
    ).flatmap(lambda sm: st.tuples(st.just(sm[0]), st.permutations(list(sm[1])).map(np.array)))


def test_roc_curve_of_a_hand_worked_case_has_one_point_per_block_of_ties():
    fpr, tpr = metrics.roc_curve(SCORES, MEMBER)
    np.testing.assert_allclose(fpr, [0, 0, 0, 0.2, 0.4, 0.6, 0.8, 1])
    np.testing.assert_allclose(tpr, [0, 0.2, 0.4, 0.4, 0.8, 0.8, 1, 1])


def test_auc_of_a_hand_worked_case_counts_ties_half():
    # pairs won by each member over the five non-members: 5, 5, 3.5, 3.5, 1.5
    assert metrics.auc(SCORES, MEMBER) == 18.5 / 25


@pytest.mark.parametrize(
    ("fpr", "tpr"),
    [(0.0, 0.4), (0.19, 0.4), (0.2, 0.4), (0.3, 0.4), (0.4, 0.8), (0.79, 0.8), (0.8, 1.0), (1.0, 1.0)],
)
def test_tpr_at_fpr_takes_the_last_attainable_point_and_never_interpolates(fpr, tpr):
    assert metrics.tpr_at_fpr(SCORES, MEMBER, fpr) == tpr


def test_tpr_at_fpr_is_zero_when_the_top_block_already_holds_too_many_false_positives():
    assert metrics.tpr_at_fpr([1, 1, 1, 0], [1, 1, 0, 0], 0.1) == 0


def test_ten_false_positives_in_ten_thousand_are_allowed_at_a_tenth_of_a_percent_and_eleven_are_not():
    member = np.arange(20_000) < 10_000
    scores = np.where(member, 0.0, -1.0)
    for false_positives, expected in ((10, 1.0), (11, 0.0)):
        scores[-false_positives:] = 1.0
        assert metrics.tpr_at_fpr(scores, member) == expected


def test_scores_that_differ_in_the_last_bit_of_float64_are_told_apart():
    low = 1.0
    high = np.nextafter(1.0, 2.0)
    assert metrics.auc([high, low], [1, 0]) == 1
    assert metrics.tpr_at_fpr([high, low], [1, 0]) == 1


def test_balanced_accuracy_of_a_hand_worked_case_with_unequal_kinds():
    assert metrics.balanced_accuracy([1, 1, 0, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0]) == pytest.approx((2 / 3 + 3 / 4) / 2)


@given(worlds())
def test_auc_equals_its_definition_over_all_pairs(world):
    scores, member = world
    margin = scores[member][:, None] - scores[~member]
    assert metrics.auc(scores, member) == pytest.approx(((margin > 0) + 0.5 * (margin == 0)).mean(), abs=1e-12)


@given(worlds())
def test_auc_is_the_area_under_the_roc_curve_and_flips_with_the_sign(world):
    scores, member = world
    fpr, tpr = metrics.roc_curve(scores, member)
    assert metrics.auc(scores, member) == pytest.approx(trapezoid(tpr, fpr), abs=1e-12)
    assert metrics.auc(scores, member) + metrics.auc(-scores, member) == pytest.approx(1, abs=1e-12)


@given(worlds(), st.floats(0, 1))
def test_tpr_at_fpr_equals_the_best_threshold_found_by_trying_all(world, fpr):
    scores, member = world
    tried = [(scores >= t) for t in [*scores, np.inf]]
    best = max(called[member].mean() for called in tried if called[~member].mean() <= fpr)
    assert metrics.tpr_at_fpr(scores, member, fpr) == pytest.approx(best, abs=1e-12)


@given(worlds(), st.randoms(use_true_random=False))
def test_metrics_depend_neither_on_the_order_of_points_nor_on_the_scale_of_scores(world, random):
    scores, member = world
    order = np.array(random.sample(range(len(scores)), len(scores)))
    for metric in (metrics.auc, metrics.tpr_at_fpr):
        assert metric(scores, member) == metric(scores[order], member[order]) == metric(np.exp(scores) - 3, member)


@pytest.mark.parametrize(("k", "n"), [(0, 50), (1, 10), (10, 10_000), (25, 50), (50, 50)])
def test_clopper_pearson_is_the_interval_of_proportions_that_two_binomial_tests_do_not_reject(k, n):
    low, high = intervals.clopper_pearson(k, n)
    assert low <= k / n <= high
    assert low == 0 if k == 0 else binom.sf(k - 1, n, low) == pytest.approx(0.025)
    assert high == 1 if k == n else binom.cdf(k, n, high) == pytest.approx(0.025)


def noisy(n, shift, seed):
    rng = np.random.default_rng(seed)
    member = rng.permutation(np.arange(2 * n) < n)
    return rng.normal(size=2 * n) + shift * member, member


def test_the_p_value_of_an_auc_is_mann_and_whitneys():
    scores, member = noisy(200, 0.2, seed=4)
    test = mannwhitneyu(scores[member], scores[~member], use_continuity=False, method="asymptotic")
    assert metrics.auc_p_value(metrics.auc(scores, member), 200, 200) == pytest.approx(test.pvalue)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 1000))
def test_the_p_value_of_few_points_is_exact(n_member, n_other, seed):
    rng = np.random.default_rng(seed)
    member = np.arange(n_member + n_other) < n_member
    scores = rng.normal(size=len(member)) + member
    test = mannwhitneyu(scores[member], scores[~member], method="exact")
    assert metrics.auc_p_value(metrics.auc(scores, member), n_member, n_other) == pytest.approx(test.pvalue)


def test_bootstrap_intervals_have_the_width_of_the_known_standard_errors():
    scores, member = noisy(2000, 0.0, seed=1)
    acc_lo, acc_hi = metrics.accuracy_interval(scores > 0, member, seed=0)
    auc_lo, auc_hi = metrics.auc_interval(scores, member, seed=0)
    # with no signal: Var(AUC) = (n + m + 1) / 12nm; balanced accuracy averages two proportions near a half
    assert auc_hi - auc_lo == pytest.approx(2 * 1.96 * np.sqrt(4001 / (12 * 2000**2)), rel=0.15)
    assert acc_hi - acc_lo == pytest.approx(2 * 1.96 * np.sqrt(2 * 0.25 / 2000) / 2, rel=0.15)


def test_the_bootstrap_from_counts_equals_resampling_the_points_one_by_one():
    rng = np.random.default_rng(2)
    member = rng.permutation(np.arange(70) < 30)
    a = rng.integers(8, size=70) + member
    b = rng.integers(50, size=70) + 0.5 * member  # many ties, few ties
    members = np.flatnonzero(member)
    others = np.flatnonzero(~member)
    rng = np.random.default_rng(9)
    expected = []
    for _ in range(200):
        drawn = np.r_[members[rng.integers(30, size=30)], others[rng.integers(40, size=40)]]
        kind = member[drawn]
        accuracy = metrics.balanced_accuracy((a > 4)[drawn], kind)
        aucs = [metrics.auc(scores[drawn], kind) for scores in (a, b)]
        expected.append((accuracy, *aucs))
    resamples = intervals.draw_resamples(30, 40, 9, 200)
    resampled = (
        intervals.resampled_accuracy(a[member] > 4, a[~member] > 4, resamples),
        intervals.resampled_auc(a[member], a[~member], resamples),
        intervals.resampled_auc(b[member], b[~member], resamples),
    )
    np.testing.assert_allclose(np.transpose(resampled), expected, atol=1e-12)


def test_bootstrap_interval_holds_the_true_auc_about_95_times_in_100():
    covered = 0
    for seed in range(100):
        scores, member = noisy(150, 1.0, seed)
        low, high = metrics.auc_interval(scores, member, seed=seed, replicates=200)
        covered += low <= 0.7602 <= high  # Phi(1 / sqrt 2)
    assert 88 <= covered <= 100


def test_paired_difference_is_narrower_than_two_separate_intervals_and_hardly_open_for_equal_scores():
    a, member = noisy(2000, 0.5, seed=3)
    b = a + np.random.default_rng(4).normal(scale=0.3, size=len(a))
    difference, low, high = metrics.paired_difference(a, b, member, seed=0)
    assert difference == metrics.auc(a, member) - metrics.auc(b, member)
    assert low <= difference <= high
    auc_lo, auc_hi = metrics.auc_interval(a, member, seed=0)
    assert high - low < 0.7 * (auc_hi - auc_lo)
    difference, low, high = metrics.paired_difference(a, a, member, seed=0)
    assert difference == 0
    assert low == pytest.approx(-high)
    assert 0 < high < 3 / 2000  # attacks that agree on 2,000 points may still differ on one in a thousand others


def test_paired_difference_is_taken_on_the_points_that_both_attacks_scored():
    rng = np.random.default_rng(0)
    member = np.arange(200) < 100
    one, other = rng.normal(member, 1), rng.normal(member, 1)
    one_of_some, other_of_some = one.copy(), other.copy()
    one_of_some[::7], other_of_some[::11] = np.nan, np.nan
    both = ~(np.isnan(one_of_some) | np.isnan(other_of_some))
    expected = metrics.paired_difference(one[both], other[both], member[both], seed=0)
    assert metrics.paired_difference(one_of_some, other_of_some, member, seed=0) == expected
    fits = np.arange(200) % 2
    expected = metrics.paired_difference(one[both], other[both], member[both], seed=0, scored_by=fits[both])
    assert metrics.paired_difference(one_of_some, other_of_some, member, seed=0, scored_by=fits) == expected
    with pytest.raises(ValueError, match="one value and one membership per point"):
        metrics.paired_difference(one, other, member[:-1], seed=0)


def test_evaluate_gives_the_columns_in_their_order_and_each_value_inside_its_interval():
    scores, member = noisy(500, 1.0, seed=5)
    row = metrics.evaluate(scores, scores > 0.5, member, seed=0)
    names = ("acc", "auc", "tpr_at_fpr_0.001")
    assert [*(n + end for n in names for end in ("", "_lo", "_hi")), "n_member", "n_nonmember"] == list(metrics.COLUMNS)
    further = ("fpr_at_threshold", "tpr_at_fpr_0.01")
    assert set(row) == {*metrics.COLUMNS, *(n + end for n in further for end in ("", "_lo", "_hi"))}
    for name in (*names, *further):
        assert row[f"{name}_lo"] <= row[name] <= row[f"{name}_hi"]
    assert (row["n_member"], row["n_nonmember"]) == (500, 500)
    assert row["fpr_at_threshold"] == (scores > 0.5)[~member].mean()
    sixth_other = np.sort(scores[~member])[-6]  # five of 500 are one percent
    assert row["tpr_at_fpr_0.01"] == (scores[member] > sixth_other).mean()
    assert row == metrics.evaluate(scores, scores > 0.5, member, seed=0)


@pytest.mark.parametrize(
    ("scores", "member", "message"),
    [
        ([0.1, np.nan], [1, 0], "NaN"),
        ([0.1, 0.2], [1, 1], "both members and non-members"),
        ([0.1, 0.2, 0.3], [1, 0], "shapes"),
    ],
)
def test_bad_input_is_named(scores, member, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(scores, np.zeros(len(scores), bool), member, seed=0)


def test_a_row_of_twenty_thousand_points_costs_about_a_second_of_processor_time_at_most():
    scores, member = noisy(10_000, 0.5, seed=6)
    started = time.process_time()
    metrics.evaluate(scores, scores > 0, member, seed=0)
    assert time.process_time() - started < 3  # about 0.3 s on an idle core; slack for slower machines


# Coverage: how often an interval holds the truth of a world in which it is known

SIZES = (3, 5, 10, 20, 100)
AUCS = (0.5, 0.75, 0.95, 0.999)
WORLDS = 400
LEAST = 0.93


def normal_world(rng, size, auc):
    """(members' scores, non-members'), (WORLDS, size) each: normal, as far apart as this AUC wants."""
    return rng.normal(size=(WORLDS, size)) + math.sqrt(2) * norm.ppf(auc), rng.normal(size=(WORLDS, size))


def all_or_nothing_world(rng, size, auc):
    """A member lies above all non-members or below all of them: no AUC has a larger variance."""
    return np.where(rng.random((WORLDS, size)) < auc, 9.0, -9.0), rng.normal(size=(WORLDS, size))


def tied_world(rng, size, auc):
    """Two scores only, as of an attack that sees labels."""
    return 1.0 * (rng.random((WORLDS, size)) < auc), 1.0 * (rng.random((WORLDS, size)) < 1 - auc)


def coverage(intervals_of_worlds, truth):
    return np.mean([low <= truth + 1e-12 and truth - 1e-12 <= high for low, high in intervals_of_worlds])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("world", [normal_world, all_or_nothing_world, tied_world])
def test_the_interval_of_an_auc_covers_at_any_size_and_at_the_edge(world, size):
    rng = np.random.default_rng(size)
    for auc in AUCS:
        planted = zip(*world(rng, size, auc), strict=True)
        assert coverage((auc_bounds(*scores) for scores in planted), auc) >= LEAST, auc


def auc_bounds(members, others):
    return intervals.auc_interval_of_any_size(intervals.placements(members, others))


@pytest.mark.parametrize("size", SIZES)
def test_the_interval_of_the_accuracy_covers_at_any_size_and_at_the_edge(size):
    rng = np.random.default_rng(size)
    for sensitivity, specificity in ((0.5, 0.5), (0.9, 0.1), (0.9, 0.6), (1.0, 0.8), (0.99, 0.98)):
        hits = rng.random((WORLDS, size)) < sensitivity
        alarms = rng.random((WORLDS, size)) >= specificity
        bounds = (auc_bounds(*decisions) for decisions in zip(hits, alarms, strict=True))
        assert coverage(bounds, (sensitivity + specificity) / 2) >= LEAST, (sensitivity, specificity)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_the_interval_of_a_difference_covers_at_any_size_and_at_the_edge(size, correlation):
    rng = np.random.default_rng(size)
    for auc_a, auc_b in ((0.5, 0.5), (0.75, 0.5), (0.95, 0.75), (0.95, 0.95), (0.999, 0.98)):
        noise_a, noise_b = rng.normal(size=(2, WORLDS, 2 * size))
        noise_b = correlation * noise_a + math.sqrt(1 - correlation**2) * noise_b
        is_member = np.arange(2 * size) < size
        scores_a = noise_a + math.sqrt(2) * norm.ppf(auc_a) * is_member
        scores_b = noise_b + math.sqrt(2) * norm.ppf(auc_b) * is_member
        bounds = (difference_bounds(a, b, size) for a, b in zip(scores_a, scores_b, strict=True))
        assert coverage(bounds, auc_a - auc_b) >= LEAST, (auc_a, auc_b)


@pytest.mark.parametrize("size", SIZES)
def test_the_interval_of_a_difference_covers_where_few_points_tell_two_attacks_apart(size):
    rng = np.random.default_rng(size)
    for missed in (1, 2, 3):  # members in `size`, on average, that one attack misses and the other does not
        scores_a = np.c_[np.full((WORLDS, size), 9.0), rng.normal(size=(WORLDS, size))]
        scores_b = scores_a.copy()
        scores_b[:, :size][rng.random((WORLDS, size)) < missed / size] = -9
        bounds = (difference_bounds(a, b, size) for a, b in zip(scores_a, scores_b, strict=True))
        assert coverage(bounds, missed / size) >= LEAST, missed


def difference_bounds(scores_a, scores_b, size):
    placed_a = intervals.placements(scores_a[:size], scores_a[size:])
    placed_b = intervals.placements(scores_b[:size], scores_b[size:])
    return intervals.difference_interval_of_any_size(placed_a, placed_b)


@pytest.mark.parametrize("size", [3, 20, 1000, 5000])
@pytest.mark.parametrize("tpr", [0.138, 0.018, 0.002])
def test_the_interval_of_the_tpr_covers_although_its_threshold_is_read_off_the_sample(size, tpr):
    rng = np.random.default_rng(size)
    shift = norm.ppf(0.999) + norm.ppf(tpr)
    worlds = ((rng.normal(size=size) + shift, rng.normal(size=size)) for _ in range(WORLDS))
    assert coverage((intervals.tpr_interval(*scores, metrics.FPR) for scores in worlds), tpr) >= LEAST


def test_the_interval_of_the_tpr_covers_where_the_highest_scores_are_tied():
    """One non-member in 200 shares the highest score with half of the members: no threshold is strict enough."""
    rng = np.random.default_rng(0)
    bounds = []
    for _ in range(WORLDS):
        members = 1.0 * (rng.random(5000) < 0.5)
        others = 1.0 * (rng.random(5000) < 0.005)
        bounds.append(intervals.tpr_interval(members, others, metrics.FPR))
    assert coverage(bounds, 0.0) >= LEAST


def test_the_tpr_of_many_points_has_an_interval_away_from_zero():
    scores, member = noisy(10_000, 1.8, seed=0)
    low, high = metrics.tpr_interval(scores, member)
    assert 0.03 < low < 0.0984 < high < 0.2  # 1 - Phi(Phi^-1(0.999) - 1.8)


def test_two_members_and_two_others_prove_nothing_however_far_apart_they_are():
    """Chance alone puts both members on top in one case of six: the exact two-sided p-value is 1/3."""
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    member = np.array([1, 1, 0, 0])
    for perfect in (scores, -scores):
        row = metrics.evaluate(perfect, perfect > np.median(perfect), member, seed=0)
        for name in ("acc", "auc"):
            assert row[f"{name}_lo"] < 0.5 < row[f"{name}_hi"]
    assert (row["tpr_at_fpr_0.001_lo"], row["tpr_at_fpr_0.001_hi"]) == (0, pytest.approx(0.85, abs=0.01))
    assert metrics.auc_p_value(1.0, 2, 2) == pytest.approx(1 / 3)
    for other in (scores, -scores, scores[[0, 2, 1, 3]]):
        _, low, high = metrics.paired_difference(scores, other, member, seed=0)
        assert low < -0.02 < 0.02 < high


def test_one_point_against_one_has_an_interval_too():
    row = metrics.evaluate([1.0, 0.0], [True, False], [1, 0], seed=0)
    assert (row["auc"], row["auc_hi"]) == (1, 1)
    assert 0 < row["auc_lo"] < 0.5


@pytest.mark.parametrize("shift", [0.0, 1.2, 2.3])
def test_among_thousands_of_points_the_interval_is_nearly_the_bootstraps(shift):
    scores, member = noisy(5000, shift, seed=8)
    resamples = intervals.draw_resamples(5000, 5000, 0, 1000)
    bootstrap = intervals.percentile_interval(intervals.resampled_auc(scores[member], scores[~member], resamples))
    low, high = metrics.auc_interval(scores, member, seed=0)
    assert low <= bootstrap[0] and bootstrap[1] <= high
    assert high - low < 1.06 * (bootstrap[1] - bootstrap[0])


# What a threshold accuses


def test_log_auc_by_hand():
    member = np.array([1] * 2 + [0] * 1000)
    scores = np.r_[2000.0, 900.5, np.arange(1000.0)]  # TPR 1/2 up to an FPR of 99/1000, then 1
    area = 0.5 * np.log(0.099 / 0.001) + np.log(1 / 0.099)
    assert metrics.log_auc(scores, member) == pytest.approx(area / np.log(1000))
    assert metrics.log_auc(np.zeros(1002), member) == 0  # all in one block: nothing is told apart
    assert metrics.log_auc(np.r_[2000.0, 2000, np.arange(1000.0)], member) == pytest.approx(1)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40), st.sampled_from([0.0, 0.1, 0.5]))
def test_the_strict_threshold_is_the_smallest_that_keeps_the_rate(rows, fpr):
    scores = np.array([float(s) for s, _ in rows])
    member = np.array([m for _, m in rows])
    if member.all() or not member.any():
        return
    threshold = metrics.strict_threshold(scores, member, fpr)
    allowed = [t for t in [*scores, np.inf] if (scores >= t)[~member].mean() <= fpr]
    assert threshold == min(allowed)


def test_precision_follows_bayes_rule():
    assert metrics.precision(0.1, 0.001, 0.5) == pytest.approx(0.1 / 0.101)
    assert metrics.precision(0.1, 0.001, 0.01) == pytest.approx(0.001 / (0.001 + 0.00099))
    assert np.isnan(metrics.precision(0.0, 0.0, 0.5))
    member = np.arange(200) < 100
    row = metrics.accusations(np.r_[np.ones(20), np.zeros(80), np.ones(1), np.zeros(99)] > 0, member)
    assert (row["strict_tpr"], row["strict_fpr"]) == (0.2, 0.01)
    assert row["ppv_0.5"] == pytest.approx(0.2 / 0.21)
    assert row["ppv_0.5_lo"] < row["ppv_0.5"] < row["ppv_0.5_hi"]
    assert row["strict_fpr_hi"] == pytest.approx(intervals.clopper_pearson(1, 100)[1])
