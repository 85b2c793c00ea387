"""Attacks that read labels alone find a leak that only labels show, and nothing where there is none."""

import numpy as np
import pytest
from scipy.stats import binom

import attacks
from attacks.boundary import boundary
from attacks.common.folds import choose_out_of_fold, split_folds
from attacks.common.signals import Unusable, audit_rows
from attacks.gap import gap
from attacks.label_only_augmentation import label_only_augmentation
from attacks.label_only_noise import label_only_noise
from compleak.audits import metrics
from compleak.audits.attackers import Half, known_half_view
from compleak.queries.signals_file import Record
from tests.planted import draw_roles, withheld

VIEWS, STRENGTHS, LEAKING = 20, 6, 3


def label_world(*, leak: float, points=3000, models=3, versions=1, seed=0):
    """(versions' signals, their records, truth): only bits and shares tell members; the plain answer says nothing.

    A model is right about a view of a non-member with probability 0.75, of a member with 0.75 + leak, and about noisy
    copies likewise, but only at strength LEAKING. Distances to the boundary are larger by 10 leak, in their deviation,
    and known of every second audited point.
    """
    rng = np.random.default_rng(seed)
    member, audit = draw_roles(rng, models, points)
    labels = rng.integers(4, size=points)
    logits = rng.normal(size=(models, points, 4)).astype(np.float32)
    signals, records = [], []
    for _ in range(versions):
        chance = 0.75 + leak * member
        correct = rng.random((models, points, VIEWS)) < chance[..., None]
        noise = rng.binomial(50, 0.75, size=(models, points, STRENGTHS)) / 50
        noise[..., LEAKING] = rng.binomial(50, chance) / 50
        distance = np.exp(rng.normal(size=(models, points, 2)) + 10 * leak * member[..., None])
        distance[:, 1::2] = np.nan
        probes = {"correct": correct, "noise": noise, "boundary": distance}
        known = np.where(audit[..., None], noise, np.nan)
        probes["noise"] = known.astype(np.float32)
        signals.append(attacks.Signals(logits, labels, withheld(member, audit), audit, probes))
        records.append(Record(logits, labels, member.astype(bool), audit, probes))
    return signals, records, member[0, audit[0]].astype(bool)


def auc_of_binomials(tries: int, member: float, other: float) -> float:
    """The AUC of counting successes, the best there is, where members and others succeed with these chances."""
    counts = np.arange(tries + 1)
    of_members, of_others = binom.pmf(counts, tries, member), binom.pmf(counts, tries, other)
    return float(of_members @ (np.cumsum(of_others) - of_others / 2))


def test_the_mean_of_the_bits_is_as_good_as_can_be():
    signals, _, truth = label_world(leak=0.1, seed=1)
    result = label_only_augmentation(signals, seed=0)
    low, high = metrics.auc_interval(result.scores, truth, seed=0)
    assert low <= auc_of_binomials(VIEWS, 0.85, 0.75) <= high
    by_regression = label_only_augmentation(signals, seed=0, classifier="logistic_regression")
    assert metrics.auc(by_regression.scores, truth) == pytest.approx(metrics.auc(result.scores, truth), abs=0.02)
    assert abs(metrics.auc(gap(signals[0]).scores, truth) - 0.5) < 0.04  # the floor sees nothing here
    with pytest.raises(ValueError, match="form"):
        label_only_augmentation(signals, seed=0, classifier="forest")


def test_the_mean_is_the_share_of_right_views():
    signals, _, _ = label_world(leak=0.1, points=100, versions=2, seed=2)
    scores = label_only_augmentation(signals, seed=0).scores
    for score, x in zip(scores, np.flatnonzero(signals[0].audit[0]), strict=True):
        right = [model.probes["correct"][0, x, view] for model in signals for view in range(VIEWS)]
        assert score == pytest.approx(sum(right) / len(right))


def test_the_bits_of_two_versions_tell_more_than_those_of_one():
    signals, _, truth = label_world(leak=0.1, versions=2, seed=3)
    for attack in (label_only_augmentation, label_only_noise, boundary):
        one, two = (attack(models, seed=0).scores for models in (signals[:1], signals))
        known = ~np.isnan(one)
        assert metrics.auc(two[known], truth[known]) > metrics.auc(one[known], truth[known]) + 0.02, attack.__name__
    low, high = metrics.auc_interval(label_only_augmentation(signals, seed=0).scores, truth, seed=0)
    assert low <= auc_of_binomials(2 * VIEWS, 0.85, 0.75) <= high


def test_the_strength_of_the_noise_is_chosen_where_the_leak_is():
    signals, _, truth = label_world(leak=0.1, seed=4)
    result = label_only_noise(signals)
    assert result.chosen == f"strength {LEAKING + 1} of {STRENGTHS}"
    assert np.array_equal(result.scores, signals[0].probes["noise"][0, signals[0].audit[0], LEAKING])
    low, high = metrics.auc_interval(result.scores, truth, seed=0)
    assert low <= auc_of_binomials(50, 0.85, 0.75) <= high


def test_shadow_rows_scored_at_different_strengths_are_on_one_scale():
    """Copies with much noise are named rightly seldom: raw shares would tell at which strength a row was scored."""
    signals, _, _ = label_world(leak=0.0, points=600, seed=9)
    (model,) = signals
    noise = model.probes["noise"] - np.linspace(0, 0.7, STRENGTHS, dtype=np.float32)
    shadow, _ = audit_rows(model)
    by_strength = noise[shadow].T
    assert len(choose_out_of_fold(by_strength, model.member[shadow], shadow).options) > 1
    shadow_scores = label_only_noise([model._replace(probes={"noise": noise})]).shadow_scores
    medians = [np.median(shadow_scores[scored]) for _, scored in split_folds(*shadow)]
    assert np.ptp(medians) < 0.05


LABEL_ONLY = [row for row in attacks.NR if row.name.startswith("label_only") or row.name == "boundary"]


@pytest.mark.parametrize("row", LABEL_ONLY, ids=lambda row: row.key)
def test_nothing_is_found_where_there_is_nothing_not_even_on_the_shadows(row):
    victims, shadows = [], []
    for seed in range(8):
        signals, _, truth = label_world(leak=0.0, points=1000, seed=10 + seed)
        result = row.run(signals, seed=0)
        known = ~np.isnan(result.scores)
        victims.append(metrics.auc(result.scores[known], truth[known]))
        member = signals[0].member[audit_rows(signals[0])[0]]
        known = ~np.isnan(result.shadow_scores)
        shadows.append(metrics.auc(result.shadow_scores[known], member[known]))
    spread = np.sqrt(1 / (6 * 100 * 8))  # of the mean of eight AUCs on 100 + 100 points or more
    assert abs(np.mean(victims) - 0.5) < 3 * spread
    assert abs(np.mean(shadows) - 0.5) < 3 * spread  # two shadows with twice the points


@pytest.mark.parametrize("row", LABEL_ONLY, ids=lambda row: row.key)
def test_an_attacker_who_knows_half_of_the_points_finds_the_leak_too(row):
    _, (record,), truth = label_world(leak=0.1, seed=5)
    judged = np.random.default_rng(0).random(len(truth)) < 0.5
    alone = record._replace(audit=np.r_[record.audit[:1], np.zeros_like(record.audit[1:])])
    view = known_half_view(alone, Half("", judged, ~judged))
    scores = row.run([view], seed=0).scores
    known = ~np.isnan(scores)
    assert metrics.auc(scores[known], truth[judged][known]) > 0.65


def test_a_distance_that_nobody_measured_leaves_the_attack_out():
    signals, _, _ = label_world(leak=0.1, points=100)
    signals[0].probes["boundary"][..., 1] = np.nan  # a model without gradients
    assert np.isfinite(boundary(signals, seed=0).scores).sum() > 10
    with pytest.raises(Unusable, match="carlini_wagner"):
        boundary(signals, seed=0, classifier="carlini_wagner")


def test_posteriors_of_views_stand_in_for_their_labels():
    signals, _, _ = label_world(leak=0.1, points=60)
    augmented = np.random.default_rng(0).normal(size=(3, 60, 5, 4))
    rows = {row.key: row for row in attacks.NR}
    row = rows["label_only_augmentation/mean"]
    bare = signals[0]._replace(probes={})
    assert attacks.missing(row, [bare]) == ["correct"]
    asked = signals[0]._replace(probes={"augmented": augmented})
    assert attacks.missing(row, [asked]) == []
    audited = np.flatnonzero(asked.audit[0])
    right = augmented[0, audited].argmax(axis=-1) == asked.labels[audited][:, None]
    assert row.run([asked], seed=0).scores == pytest.approx(right.mean(axis=1))
