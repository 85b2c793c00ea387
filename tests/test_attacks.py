"""Attacks against slow, literal versions of their papers, and on worlds whose leak is known.

Statistical claims use a tolerance of four standard errors of an AUC without signal, which a sound attack exceeds for
one seed in 16,000; seeds are fixed.
"""

import math
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from torch.nn.attention import SDPBackend, sdpa_kernel

import attacks
from attacks import Signals, blind, membership
from attacks.calibrated import calibrated
from attacks.common import classifiers
from attacks.common.classifiers import boosted_trees, forest
from attacks.common.networks import ROWS_AT_ONCE, Recipe, one_cycle, train_and_score
from attacks.common.references import known_outsiders, reference_log_p, reference_moments
from attacks.common.signals import Unusable
from attacks.common.statistics import confidence, cross_entropy, log_odds, modified_entropy, posterior
from attacks.common.thresholds import balanced_threshold
from attacks.info_rmia import info_rmia
from attacks.mr import inputs as mr_inputs
from attacks.mr import mr
from attacks.nasr2018 import features as nasr2018_features
from attacks.nn import perceptron
from attacks.rmia import GAMMA, OFFLINE_A, likelihoods, populations, rmia, score
from attacks.samia import RECIPES, SelfAttention, rows_at_once, samia
from attacks.samia import tokens as samia_tokens
from attacks.shokri2017 import features as shokri2017_features
from attacks.shokri2017 import shokri2017
from attacks.song2021 import song2021
from attacks.sr import features as sr_features
from attacks.sr import sr
from attacks.yeom2018 import entropy, yeom2018
from data.inputs import summarise_images
from tests.planted import draw_half_roles, draw_roles, planted_signals, withheld

OURS = ("joint", "calibrated", "neural", "combined")
ELSEWHERE = ("selena_adaptive",)  # it needs the answers of a Split-AI: test_selena.py
EVERY = [
    *((f"NR:{attack.key}", attack, slice(0, 1)) for attack in attacks.KNOWN["NR"] if attack.name not in ELSEWHERE),
    *((f"SR:{attack.key}", attack, slice(0, 2)) for attack in attacks.SR),
    *((f"MR:{attack.key}", attack, slice(0, 3)) for attack in attacks.KNOWN["MR"]),
    *((f"MR without the original:{attack.key}", attack, None) for attack in attacks.KNOWN["MR"]),
]
every_attack = pytest.mark.parametrize(("attack", "which"), [e[1:] for e in EVERY], ids=[e[0] for e in EVERY])


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    """The protocol's 500 trees would make the tests slow, and no claim here depends on their number."""
    monkeypatch.setattr(classifiers, "TREES", 60)


@lru_cache
def world(leak, models=2, seed=0):
    return planted_signals(models, 1500, leak=leak, variants=3, seed=seed)


def given_to(attack_models, which):
    return [None, *attack_models[1:]] if which is None else attack_models[which]


def standard_error(truth):
    """Standard error of the AUC of scores that know nothing (Mann-Whitney)."""
    members = truth.sum()
    others = (~truth).sum()
    return math.sqrt((members + others + 1) / (12 * members * others))


def probabilities(logits):
    """softmax of one list of logits, in plain Python."""
    weights = [math.exp(z - max(logits)) for z in logits]
    return [w / sum(weights) for w in weights]


# What every attack must do


@every_attack
def test_a_planted_leak_is_found_and_the_decisions_beat_chance(attack, which):
    if attack.name == "model_updates":
        pytest.skip("here the variants differ by noise alone; test_likelihood.py plants a difference")
    planted = world(2.5, models=1 + max(attack.references, 1))
    scores, decision, shadow_scores, *_ = attack.run(given_to(planted.variants, which), seed=7)
    assert shadow_scores.shape == (planted.variants[0].audit[1:].sum(),)
    assert scores.shape == decision.shape == planted.truth.shape
    assert scores.dtype == np.float64 and decision.dtype == bool
    assert roc_auc_score(planted.truth, scores) > 0.5 + 6 * standard_error(planted.truth)
    assert (decision[planted.truth].mean() + 1 - decision[~planted.truth].mean()) / 2 > 0.58
    assert scores[decision].min() >= scores[~decision].max()  # one threshold on the scores that are reported


@every_attack
def test_the_auc_is_a_half_where_there_is_no_leak(attack, which):
    planted = world(0.0, models=3, seed=1)
    scores = attack.run(given_to(planted.variants, which), seed=7).scores
    assert abs(roc_auc_score(planted.truth, scores) - 0.5) < 4 * standard_error(planted.truth)


@every_attack
def test_scores_depend_neither_on_the_victims_membership_nor_on_global_random_state(attack, which):
    planted = world(1.5, models=3)
    original = planted.variants[0]
    shuffled = original.member.copy()
    shuffled[0, original.audit[0]] = np.random.default_rng(5).permutation(planted.truth)
    again = [v._replace(member=withheld(shuffled, v.audit)) for v in planted.variants]
    first = attack.run(given_to(planted.variants, which), seed=3)
    np.random.seed(99)
    torch.manual_seed(99)
    before = np.random.get_state()[1].copy(), np.random.get_state()[2], torch.get_rng_state()
    second = attack.run(given_to(again, which), seed=3)
    after = np.random.get_state()[1], np.random.get_state()[2], torch.get_rng_state()
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.decision, second.decision)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@every_attack
def test_an_attack_without_a_shadow_model_says_so(attack, which):
    alone = [Signals(v.logits[:1], v.labels, v.member[:1], v.audit[:1]) for v in world(1.5).variants]
    assert "shadow models" in attacks.missing(attack, given_to(alone, which))
    with pytest.raises(ValueError, match="shadow"):
        attack.run(given_to(alone, which), seed=0)


def test_only_the_membership_of_the_victims_audit_points_is_withheld():
    for signals in world(1.5, models=3).variants:
        np.testing.assert_array_equal(signals.member == -1, signals.audit & (np.arange(3) == 0)[:, None])


def test_attacks_whose_input_is_missing_are_named():
    bare = world(1.5).variants[0]._replace(probes={})
    two = {"lira", "bavaria"}
    labels_alone = {"label_only_augmentation", "label_only_noise", "boundary"}
    lacking = {"samia", *two, *labels_alone}
    assert {a.name for a in attacks.NR if attacks.missing(a, [bare])} == lacking
    assert [a.name for a in attacks.NR if attacks.missing(a, world(1.5, models=3).variants[:1])] == []
    asked_about_audit_points_only = bare._replace(logits=np.where(bare.audit[..., None], bare.logits, np.nan))
    assert {a.name for a in attacks.NR if attacks.missing(a, [asked_about_audit_points_only])} == (
        {"rmia", "base", "watson2022", "info_rmia", "pmia_class", "rapid", *OURS} | lacking
    )
    with pytest.raises(ValueError, match="sensitivity"):
        samia(bare, seed=0)
    with pytest.raises(ValueError, match="reference"):
        rmia(asked_about_audit_points_only, seed=0)


def test_the_registry_names_the_artifacts_rows_and_its_keys_are_unique():
    rows = {attack.name: attack.artifact_row.removeprefix("CompLeakNR_") for attack in attacks.NR}
    assert rows == {
        "shokri2017": "train_based_method_1",
        "nasr2018": "train_based_method_2",
        "yeom2018": "metric_based_method_1",
        "entropy": "",
        "song2021": "metric_based_method_2",
        "samia": "SAMIA",
        "rmia": "RMIA",
        **dict.fromkeys(("gap", "base", "watson2022", "lira", "bavaria", "info_rmia", "pmia_class", "rapid"), ""),
        **dict.fromkeys(OURS, ""),
        **dict.fromkeys(("label_only_augmentation", "label_only_noise", "boundary"), ""),
    }
    for scenario in attacks.KNOWN.values():
        assert len({attack.key for attack in scenario}) == len(scenario)


def test_bad_arguments_are_named():
    original, compressed = world(1.5).variants[:2]
    with pytest.raises(ValueError, match="classifier 'svm'"):
        shokri2017(original, seed=0, classifier="svm")
    with pytest.raises(ValueError, match="recipe"):
        samia(original, seed=0, recipe="slow")
    with pytest.raises(ValueError, match="'labels'"):
        sr(original, compressed._replace(labels=compressed.labels[::-1]), seed=0, label=True)
    with pytest.raises(ValueError, match="recipe"):
        mr(original, [compressed], seed=0, recipe="slow")
    with pytest.raises(ValueError, match="at least one compressed"):
        mr(original, [], seed=0)


# The numbers under the attacks


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(2, 6)), elements=st.floats(-8, 8, width=32)))
def test_log_odds_loss_and_posterior_equal_their_definitions(logits):
    for row, odds in zip(logits.astype(float), log_odds(logits), strict=True):
        for c, p in enumerate(probabilities(list(row))):
            rest = sum(q for k, q in enumerate(probabilities(list(row))) if k != c)
            assert odds[c] == pytest.approx(math.log(p / rest), abs=1e-9)
    labels = np.zeros(len(logits), dtype=int)
    expected = np.array([probabilities(list(row)) for row in logits.astype(float)])
    np.testing.assert_allclose(posterior(logits), expected, rtol=1e-9)
    np.testing.assert_allclose(cross_entropy(logits, labels), -np.log(expected[:, 0]), rtol=1e-6, atol=1e-15)


def test_confidence_neither_saturates_nor_overflows():
    logits = np.array([[200.0, 0, 0], [201.0, 0, 0], [3000.0, 0, -3000.0]], dtype=np.float32)
    zeros = np.zeros(3, dtype=int)
    np.testing.assert_allclose(confidence(logits, zeros), [200 - np.log(2), 201 - np.log(2), 3000])
    np.testing.assert_allclose(confidence(logits, zeros + 2), [-200, -201, -6000])
    loss = cross_entropy(logits[:2], zeros[:2])
    assert loss[0] > loss[1] > 0
    np.testing.assert_allclose(loss, 2 * np.exp([-200.0, -201.0]))


@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), st.booleans()), min_size=2, max_size=30))
def test_balanced_threshold_is_as_good_as_the_best_of_all_cuts(rows):
    scores = np.array([s for s, _ in rows])
    member = np.array([m for _, m in rows])
    if member.all() or not member.any():
        with pytest.raises(ValueError):
            balanced_threshold(scores, member)
        return

    def accuracy(t):
        return ((scores >= t)[member].mean() + (scores < t)[~member].mean()) / 2

    best = max(accuracy(t) for t in [*scores, np.inf])
    assert accuracy(balanced_threshold(scores, member)) == pytest.approx(best)


# Features


HAND = Signals(  # two models, two points, three classes; one logit vector per (model, point)
    np.log(np.array([[[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]], [[0.1, 0.3, 0.6], [0.3, 0.3, 0.4]]], dtype=np.float32)),
    np.array([2, 0]),
    np.array([[-1, -1], [1, 0]], dtype=np.int8),
    np.ones((2, 2), dtype=bool),
)
ROWS = (np.array([0, 0]), np.array([0, 1]))


def test_a_points_position_in_the_file_does_not_change_its_score():
    signals = planted_signals(3, 400, seed=6).variants[0]
    order = np.random.default_rng(1).permutation(400)
    moved = Signals(signals.logits[:, order], signals.labels[order], signals.member[:, order], signals.audit[:, order])
    moved = moved._replace(probes={name: probe[:, order] for name, probe in signals.probes.items()})
    place = np.searchsorted(np.flatnonzero(signals.audit[0]), order[moved.audit[0]])
    for row in attacks.NR:
        if row.name not in {
            "shokri2017",
            "nasr2018",
            "samia",
            "rapid",
            "neural",
            "combined",
        }:  # bags and batches follow the order
            before, after = (row.run([given], seed=0).scores for given in (signals, moved))
            np.testing.assert_allclose(after, before[place], rtol=1e-6, atol=1e-9, err_msg=row.key)


def test_posteriors_are_sorted_and_the_label_follows_their_order():
    np.testing.assert_allclose(shokri2017_features(HAND, ROWS), [[0.5, 0.3, 0.2], [0.7, 0.2, 0.1]], rtol=1e-6)
    np.testing.assert_allclose(
        nasr2018_features(HAND, ROWS), [[0.5, 0.3, 0.2, 0, 1, 0], [0.7, 0.2, 0.1, 1, 0, 0]], rtol=1e-6
    )


def test_samias_tokens_stand_in_the_models_order_of_classes():
    sensitivity = np.arange(12).reshape(2, 2, 3).astype(np.float32)
    rows = samia_tokens(HAND._replace(probes={"sensitivity": sensitivity}), ROWS)
    np.testing.assert_allclose(rows[0], [[0.2, 0, 0], [0.5, 1, 0], [0.3, 2, 1]], rtol=1e-6)
    np.testing.assert_allclose(rows[1], [[0.7, 3, 1], [0.1, 4, 0], [0.2, 5, 0]], rtol=1e-6)


def test_sr_permutes_the_compressed_posterior_by_the_order_of_the_original():
    compressed = HAND._replace(logits=HAND.logits[::-1])
    expected = np.array(
        [[0.5, 0.3, 0.2, 0.3, 0.6, 0.1, 0, 1, 0], [0.7, 0.2, 0.1, 0.3, 0.4, 0.3, 1, 0, 0]]  # not [0.6, 0.3, 0.1]
    )
    np.testing.assert_allclose(sr_features(HAND, compressed, ROWS, label=True), expected, rtol=1e-6)
    np.testing.assert_allclose(sr_features(HAND, compressed, ROWS, label=False), expected[:, :6], rtol=1e-6)


def test_the_loss_attack_and_the_entropy_attack_score_by_loss_and_entropy():
    signals = world(1.5).variants[0]
    audited = signals.audit[0]
    p = [probabilities(list(row)) for row in signals.logits[0, audited].astype(float)]
    loss = [-math.log(row[y]) for row, y in zip(p, signals.labels[audited], strict=True)]
    np.testing.assert_allclose(yeom2018(signals).scores, -np.array(loss), rtol=1e-9)
    bits = [-sum(q * math.log(q) for q in row) for row in p]
    np.testing.assert_allclose(entropy(signals).scores, -np.array(bits), rtol=1e-9)


# song2021


def literal_modified_entropy(logits, label):
    p = probabilities([float(z) for z in logits])
    rest = sum(p[i] * math.log(1 - p[i]) for i in range(len(p)) if i != label)
    return -(1 - p[label]) * math.log(p[label]) - rest


def test_modified_entropy_and_its_class_thresholds_equal_the_papers_loops():
    signals = planted_signals(3, 300, classes=4, leak=2.0, seed=2).variants[0]
    value = {
        (r, x): literal_modified_entropy(signals.logits[r, x], signals.labels[x])
        for r, x in zip(*np.nonzero(signals.audit), strict=True)
    }
    fast = modified_entropy(signals.logits, signals.labels)
    np.testing.assert_allclose([fast[key] for key in value], list(value.values()), rtol=1e-9)

    thresholds = {}
    for c in range(4):
        known = [(v, signals.member[key]) for key, v in value.items() if key[0] > 0 and signals.labels[key[1]] == c]
        accuracy = {}
        for t, _ in known:
            hit = np.mean([v <= t for v, m in known if m == 1])
            accuracy[t] = hit + np.mean([v > t for v, m in known if m == 0])
        thresholds[c] = max(sorted(accuracy, reverse=True), key=accuracy.get)
    assert len(set(thresholds.values())) == 4
    victim = np.flatnonzero(signals.audit[0])
    expected = np.array([thresholds[signals.labels[x]] - value[0, x] for x in victim])
    scores, decision, *_ = song2021(signals)
    np.testing.assert_allclose(scores, expected, atol=1e-12)
    np.testing.assert_array_equal(decision, scores >= 0)


def test_a_class_that_the_shadow_models_never_saw_gets_the_threshold_of_all_classes():
    signals = planted_signals(2, 300, classes=3, seed=2).variants[0]
    unseen = np.where(signals.audit[1], 0, 2)
    scores = song2021(signals._replace(labels=unseen)).scores
    assert np.isfinite(scores).all()


# rmia


def literal_rmia(signals, r, x, a, gamma):
    """Share of z with (p(x|r) / p(x)) / (p(z|r) / p(z)) >= gamma, in plain probabilities; z != x.

    The z are the points that r is known not to have trained on or, where all are audited, the audited ones.
    """
    z_of = signals.audit[r] if signals.audit.all() else signals.member[r] == 0

    def p(model, point):
        return probabilities([float(z) for z in signals.logits[model, point]])[signals.labels[point]]

    def ratio(point):
        outside = [s for s in range(len(signals.member)) if s != r and signals.member[s, point] == 0]
        if not outside:
            return None
        return p(r, point) / (((1 + a) * np.mean([p(s, point) for s in outside]) + 1 - a) / 2)

    population = [z for z in np.flatnonzero(z_of) if z != x]
    ratios = [q for q in map(ratio, population) if q is not None]
    return np.mean([ratio(x) / q >= gamma for q in ratios])


@pytest.mark.parametrize(
    ("models", "points", "roles"), [(2, 40, draw_roles), (4, 40, draw_roles), (5, 16, draw_half_roles)]
)
def test_rmia_equals_the_papers_loops_for_every_a_and_gamma(models, points, roles):
    signals = planted_signals(models, points, classes=3, seed=4, roles=roles).variants[0]
    log_p = -cross_entropy(signals.logits, signals.labels)
    reference = reference_log_p(log_p, known_outsiders(signals))
    population = populations(signals, known_outsiders(signals))
    rows = np.nonzero(signals.audit)
    for a in (0.0, 0.3, 1.0):
        for gamma, fast in zip(GAMMA, score(log_p, reference, population, rows, a, GAMMA), strict=True):
            slow = [literal_rmia(signals, r, x, a, gamma) for r, x in zip(*rows, strict=True)]
            np.testing.assert_allclose(fast, slow, atol=1e-12)


@pytest.mark.parametrize("attack", [rmia, info_rmia])
def test_points_that_a_model_was_never_asked_about_are_not_in_its_population(attack):
    signals = planted_signals(4, 300, classes=3, seed=4).variants[0]
    logits, member = signals.logits.copy(), signals.member.copy()
    unasked = np.flatnonzero((member[0] == 0) & ((member[1:] == 0).sum(axis=0) > 1))[::2]
    logits[0, unasked] = np.nan
    member[0, unasked] = -1
    some_unasked = signals._replace(logits=logits)
    result, expected = attack(some_unasked), attack(some_unasked._replace(member=member))
    assert np.isfinite(result.scores).all()
    np.testing.assert_array_equal(result.scores, expected.scores)
    np.testing.assert_array_equal(result.shadow_scores, expected.shadow_scores)


def test_rmia_uses_the_a_and_gamma_that_are_best_on_the_shadow_models(monkeypatch):
    monkeypatch.setattr("attacks.rmia.SOFTMAX_TEMPERATURES", (1.0,))
    monkeypatch.setattr("attacks.rmia.VARIANT_TEMPERATURES", ())
    signals = planted_signals(2, 40, classes=3, seed=4).variants[0]
    shadow = np.flatnonzero(signals.audit[1])
    member = signals.member[1, shadow]

    def quality(a, gamma):
        return roc_auc_score(member, [literal_rmia(signals, 1, x, a, gamma) for x in shadow])

    a = max(OFFLINE_A, key=lambda a: quality(a, 1.0))
    gamma = max(GAMMA, key=lambda gamma: quality(a, gamma))
    victim = np.flatnonzero(signals.audit[0])
    result = rmia(signals)
    assert result.chosen == f"softmax, temperature 1, a {a:g}, gamma {gamma:g}"
    np.testing.assert_allclose(result.scores, [literal_rmia(signals, 0, x, a, gamma) for x in victim], atol=1e-12)


def literal_likelihood(name, logits, label, temperature):
    """p of the label by the formulas of RMIA's appendix B.2.1, in plain Python."""
    scaled = [float(z) / temperature for z in logits]
    power = (lambda z: sum(z**i / math.factorial(i) for i in range(5))) if "taylor" in name else math.exp
    of_label = power(scaled[label] - (0.6 if name.startswith("sm-") else 0.0))
    return of_label / (of_label + sum(power(z) for c, z in enumerate(scaled) if c != label))


def test_the_likelihoods_of_rmia_equal_the_papers_formulas():
    signals = planted_signals(2, 30, classes=4, seed=1).variants[0]
    names = set()
    for setting, log_p in likelihoods(signals):
        name, temperature = setting.split(", temperature ")
        names.add(name)
        for r, x in ((0, 3), (1, 7), (1, 29)):
            p = literal_likelihood(name, signals.logits[r, x], signals.labels[x], float(temperature))
            assert log_p[r, x] == pytest.approx(math.log(p), rel=1e-6), setting
    assert names == {"softmax", "sm-softmax", "taylor-softmax", "sm-taylor-softmax"}


def test_rmia_orders_the_victims_points_as_the_paper_does_with_references_that_trained_on_z(monkeypatch):
    """Algorithm 1 takes p(z) from all references and without a; here it comes from those that did not train on z."""
    monkeypatch.setattr("attacks.rmia.SOFTMAX_TEMPERATURES", (1.0,))
    monkeypatch.setattr("attacks.rmia.VARIANT_TEMPERATURES", ())
    monkeypatch.setattr("attacks.rmia.OFFLINE_A", (0.3,))
    monkeypatch.setattr("attacks.rmia.GAMMA", (1.0,))
    signals = planted_signals(4, 300, seed=5).variants[0]
    p = posterior(signals.logits)[:, np.arange(300), signals.labels]
    victim = np.flatnonzero(signals.audit[0])
    ratio_of_z = [p[0, z] / p[1:, z].mean() for z in np.flatnonzero(signals.member[0] == 0)]
    ratio_of_x = np.array([p[0, x] / ((1.3 * p[1:, x].mean() + 0.7) / 2) for x in victim])
    literal = np.array([np.mean(ratio >= ratio_of_z) for ratio in ratio_of_x])
    ours = rmia(signals).scores
    order = np.argsort(ratio_of_x)
    assert (np.diff(literal[order]) >= 0).all() and (np.diff(ours[order]) >= 0).all()
    assert np.abs(literal - ours).max() > 0.02  # the scores themselves are not the same


@pytest.mark.slow
def test_every_attack_finds_the_leak_in_the_layout_of_liras_authors_and_its_decisions_beat_chance():
    """Nine models, each trained on half of all points; each point in four of eight shadows; all points audited."""
    planted = planted_signals(9, 300, leak=2.5, seed=3, roles=draw_half_roles)
    for attack in attacks.NR:
        assert attacks.missing(attack, planted.variants) == []
        scores, decision, *_ = attack.run(planted.variants, seed=7)
        assert roc_auc_score(planted.truth, scores) > 0.5 + 4 * standard_error(planted.truth), attack.key
        accuracy = (decision[planted.truth].mean() + 1 - decision[~planted.truth].mean()) / 2
        assert accuracy > 0.58, attack.key
        if attack.references:
            assert roc_auc_score(planted.truth, scores) > 0.9 and accuracy > 0.75, attack.key


def test_references_did_not_train_on_the_point_and_are_never_the_model_itself():
    signals = world(1.5, models=4).variants[0]
    np.testing.assert_array_equal(known_outsiders(signals), signals.member == 0)
    confidences = confidence(signals.logits, signals.labels)
    reference = reference_moments(known_outsiders(signals), confidences).mean
    victim = np.flatnonzero(signals.audit[0])
    np.testing.assert_allclose(reference[0, victim], confidences[1:, victim].mean(axis=0))
    x = np.flatnonzero((signals.member[:, :] == [[0], [1], [0], [1]]).all(axis=0))[0]
    assert reference[1, x] == pytest.approx((confidences[0, x] + confidences[2, x]) / 2)


def test_attacks_with_references_are_not_misled_by_a_points_difficulty():
    planted = planted_signals(2, 2000, leak=1.5, difficulty=3.0, seed=6)
    auc = {f: roc_auc_score(planted.truth, f(planted.variants[0], seed=0).scores) for f in (yeom2018, rmia)}
    auc[calibrated] = roc_auc_score(planted.truth, calibrated(planted.variants, seed=0).scores)
    assert auc[rmia] > auc[yeom2018] + 0.05
    assert auc[calibrated] > auc[yeom2018] + 0.05


def test_a_points_score_never_rises_when_its_references_become_more_confident():
    signals = planted_signals(2, 2000, difficulty=3.0, seed=6).variants[0]
    easier = signals.logits.copy()
    victim = np.flatnonzero(signals.audit[0])
    easier[1, victim, signals.labels[victim]] += 1.0  # not the shadow's audit rows, so the classifier is the same
    before, after = (calibrated([given], seed=0).scores for given in (signals, signals._replace(logits=easier)))
    assert (after <= before).all() and (after < before).any()


# Forests, and MR, which is trained on their probabilities


def test_out_of_bag_probabilities_do_not_learn_random_labels():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1500, 12))
    label = rng.integers(2, size=1500)
    out_of_bag, in_sample = forest(features, label, np.arange(1500), features, seed=0)
    assert roc_auc_score(label, in_sample) > 0.7
    assert abs(roc_auc_score(label, out_of_bag) - 0.5) < 0.06


def test_all_rows_of_a_point_are_in_a_trees_bag_or_none_is():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(300, 12))
    label = rng.integers(2, size=300)
    point = np.arange(300)
    six_shadows = np.tile(features, (6, 1)), np.tile(label, 6)
    grouped, _ = forest(*six_shadows, np.tile(point, 6), features[:5], seed=0)
    split_up, _ = forest(*six_shadows, rng.permutation(1800), features[:5], seed=0)
    assert roc_auc_score(six_shadows[1], split_up) > 0.9
    assert abs(roc_auc_score(six_shadows[1], grouped) - 0.5) < 0.15  # 300 points, however many rows


@pytest.mark.parametrize("label", [False, True])
def test_the_forest_scores_as_well_as_scikit_learns(label):
    original, compressed = world(1.5).variants[:2]
    shadow, victim = attacks.audit_rows(original)
    fitted_on, applied_to = (sr_features(original, compressed, rows, label=label) for rows in (shadow, victim))
    member = original.member[shadow]
    truth = world(1.5).truth
    library = RandomForestClassifier(200, min_samples_leaf=classifiers.LEAF, random_state=0, oob_score=True, n_jobs=2)
    library.fit(fitted_on, member)
    out_of_bag, scores = forest(fitted_on, member, shadow[1], applied_to, seed=0)
    assert roc_auc_score(truth, scores) == pytest.approx(
        roc_auc_score(truth, library.predict_proba(applied_to)[:, 1]), abs=0.02
    )
    expected = roc_auc_score(member, library.oob_decision_function_[:, 1])
    assert roc_auc_score(member, out_of_bag) == pytest.approx(expected, abs=0.02)


def test_too_few_trees_for_out_of_bag_scores_are_an_error(monkeypatch):
    monkeypatch.setattr(classifiers, "TREES", 1)
    with pytest.raises(ValueError, match="too few"):
        forest(np.zeros((90, 1)), np.arange(90) % 2, np.arange(90), np.zeros((1, 1)), seed=0)


def test_mr_is_trained_on_out_of_bag_probabilities_of_sr_and_on_the_loss_of_each_compressed_model():
    original, *compressed = world(1.5).variants
    known = [membership(original, model, seed=3) for model in compressed]
    shadow, victim = mr_inputs(compressed, known)
    assert shadow.shape[1:] == victim.shape[1:] == (2, 2)
    fitted_on, applied_to = attacks.audit_rows(original)
    for k, model in enumerate(compressed):
        result = sr(original, model, seed=3, label=True)
        for part, rows, probability in (
            (shadow, fitted_on, result.shadow_scores),
            (victim, applied_to, result.scores),
        ):
            np.testing.assert_array_equal(part[:, 0, k], probability)
            np.testing.assert_allclose(part[:, 1, k], cross_entropy(model.logits[rows], model.labels[rows[1]]))
    victim_auc = roc_auc_score(world(1.5).truth, victim[:, 0, 0])
    assert roc_auc_score(original.member[fitted_on], shadow[:, 0, 0]) < victim_auc + 0.06
    from_known = mr(original, compressed, seed=3, memberships=known)
    from_scratch = mr(original, compressed, seed=3)
    np.testing.assert_array_equal(from_known.scores, from_scratch.scores)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["samia", "MR"])
def test_the_fast_recipe_is_as_good_as_the_papers(attack):
    planted = planted_signals(2, 1000, leak=2.0, variants=3, seed=3)
    row = next(entry for entry in (*attacks.NR, *attacks.MR) if entry.name == attack)
    models = planted.variants[:1] if attack == "samia" else planted.variants
    fast, paper = (roc_auc_score(planted.truth, row.run(models, seed=1, recipe=r).scores) for r in ("fast", "paper"))
    assert fast > paper - standard_error(planted.truth)


# Memory of SAMIA, whose attention is a table of classes by classes


def kept_bytes(network, inputs) -> int:
    """What the network's forward pass keeps for the backward pass."""
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(inputs)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("classes", [10, 100, 300])
def test_as_many_points_go_through_samia_together_as_memory_allows(classes, monkeypatch):
    monkeypatch.setattr("attacks.samia.MEMORY", 1e8)
    points = rows_at_once(classes)
    torch.manual_seed(0)
    with sdpa_kernel(SDPBackend.MATH):
        assert 2e7 < kept_bytes(SelfAttention(classes), torch.randn(points, classes, 3)) < 1e8


def test_samia_takes_whole_batches_of_few_classes_and_refuses_thousands():
    assert rows_at_once(10) == ROWS_AT_ONCE > RECIPES["paper"].batch
    assert rows_at_once(100) > RECIPES["paper"].batch
    assert rows_at_once(1000) == 4
    with pytest.raises(attacks.Unusable, match="3000 classes takes 1.9 GB for one point"):
        rows_at_once(3000)


def test_a_batch_in_parts_trains_the_same_network_as_a_whole_batch():
    rng = np.random.default_rng(0)
    inputs, member = rng.normal(size=(300, 5)).astype(np.float32), rng.integers(2, size=300)
    recipe = Recipe(one_cycle, epochs=2, batch=128)
    whole, parts = (
        train_and_score(lambda: perceptron(5), recipe, inputs, member, inputs, seed=0, rows_at_once=rows)
        for rows in (ROWS_AT_ONCE, 7)
    )
    np.testing.assert_allclose(parts, whole, rtol=1e-3, atol=1e-4)


# The control


@pytest.mark.parametrize("brighter", [0, 12])
def test_blind_finds_a_difference_in_the_victims_images_and_nothing_where_there_is_none(brighter):
    rng = np.random.default_rng(0)
    member = rng.permutation(np.arange(800) < 400).astype(int)
    images = rng.integers(60, 180, size=(800, 1, 1, 1)) + np.zeros((1, 32, 32, 3), dtype=int)
    images[member == 1, :4] += brighter
    scores = blind(summarise_images(images.astype(np.uint8)), member, seed=0)
    asked = ~np.isnan(scores)
    auc = roc_auc_score(member[asked], scores[asked])
    assert (auc > 0.9) if brighter else (abs(auc - 0.5) < 4 * standard_error(member[asked] == 1))
    assert asked.sum() == 400 and member[asked].sum() == 200


def columns_that_tell(rng, member):
    """(n, 2): a column that tells members from others, and one that does not."""
    return np.c_[member + 0.01 * rng.normal(size=len(member)), rng.normal(size=len(member))]


@pytest.mark.parametrize("of_each", [32, 40, 60, 100])
def test_blind_finds_a_perfect_difference_among_few_points_too(of_each):
    rng = np.random.default_rng(0)
    member = rng.permutation(np.arange(2 * of_each) < of_each)
    scores = blind(columns_that_tell(rng, member), member, seed=0)
    asked = ~np.isnan(scores)
    assert roc_auc_score(member[asked], scores[asked]) > 0.95


def test_blind_finds_nothing_among_few_points_that_do_not_differ():
    aucs = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        member = rng.permutation(np.arange(80) < 40)
        scores = blind(rng.normal(size=(80, 3)), member, seed=seed)
        asked = ~np.isnan(scores)
        aucs.append(roc_auc_score(member[asked], scores[asked]))
    assert abs(np.mean(aucs) - 0.5) < 4 * 0.09 / np.sqrt(20)  # the standard error of an AUC of 20 + 20 points is 0.09


@pytest.mark.parametrize("drawn", [False, True])
def test_blind_says_that_so_few_points_tell_it_nothing(drawn):
    rng = np.random.default_rng(0)
    member = np.arange(62) < 31
    fitted_on = np.arange(62) % 2 == 0 if drawn else None
    with pytest.raises(Unusable, match="15 .* is fitted on at least 16 of each"):
        blind(columns_that_tell(rng, member), member, seed=0, fitted_on=fitted_on)


def test_blind_has_the_same_trees_as_ever_where_there_are_400_points_to_fit_on():
    rng = np.random.default_rng(0)
    member = rng.permutation(np.arange(800) < 400)
    columns = rng.normal(size=(800, 3)) + 0.3 * member[:, None]
    fitted_on = rng.permutation(np.arange(800) < 400)
    scores = blind(columns, member, seed=5, fitted_on=fitted_on)
    trees = boosted_trees(5).fit(columns[fitted_on], member[fitted_on])
    np.testing.assert_array_equal(scores[~fitted_on], trees.decision_function(columns[~fitted_on]))
