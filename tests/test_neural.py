"""The networks that compare all classes with the references and know the point's class."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from attacks import Signals
from attacks.calibrated import calibrated
from attacks.common.signals import audit_rows
from attacks.common.statistics import log_odds
from attacks.neural import deviations_in_class, features, neural
from tests.planted import draw_roles, planted_signals, withheld


def spread_signals(leak: float, seed: int, models: int = 2, points: int = 4000) -> tuple[Signals, np.ndarray]:
    """Two classes, of which the second's confidences vary ten times as much; members are surer in proportion."""
    rng = np.random.default_rng(seed)
    member, audit = draw_roles(rng, models, points)
    labels = rng.integers(2, size=points)
    confidences = (rng.normal(size=member.shape) + leak * member) * np.array([1.0, 10.0])[labels]
    sign = np.array([1, -1])[labels][:, None] * np.array([1, -1])
    logits = (confidences[..., None] / 2 * sign).astype(np.float32)
    return Signals(logits, labels, withheld(member, audit), audit), member[0, audit[0]].astype(bool)


def test_features_are_what_the_header_says():
    """Written out value by value for some rows of two models with three shadows and four classes."""
    models = planted_signals(4, 400, classes=4, variants=2, seed=1).variants
    rows = tuple(
        np.concatenate([shadow[::71], victim[::37]]) for shadow, victim in zip(*audit_rows(models[0]), strict=True)
    )
    for row, model, point in zip(features(models, rows), *rows, strict=True):
        expected, answers = [], []
        for signals in models:
            odds, labels = log_odds(signals.logits), signals.labels
            label = labels[point]
            outside = signals.member == 0
            references = [r for r in range(len(odds)) if r != model and outside[r, point]]
            mean = odds[references, point].mean(axis=0)
            answer = odds[model, point]
            answers.append(answer[label])
            expected += [answer[label], mean[label], answer[label] - mean[label]]
            of_class = [n for n in np.flatnonzero((labels == label) & outside[model]) if n != point]
            others = {n: [r for r in range(len(odds)) if r != model and outside[r, n]] for n in of_class}
            differences = [odds[model, n, label] - odds[of, n, label].mean() for n, of in others.items() if of]
            for value, among in ((expected[-3], odds[model, of_class, label]), (expected[-1], differences)):
                expected.append((value - np.mean(among)) / np.std(among, ddof=1))
            order = np.argsort(-signals.logits[model, point])
            expected += [*answer[order], *mean[order]]
            if len(answers) > 1:
                expected.append(answers[-1] - answers[0])
        expected += [float(label == c) for c in range(models[0].logits.shape[-1])]
        np.testing.assert_allclose(row, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shadows", [1, 2, 4, 8])
def test_deviations_mean_the_same_of_the_victim_and_of_the_shadow_models(shadows):
    signals, _ = spread_signals(leak=0.0, seed=3, models=1 + shadows)
    for rows in audit_rows(signals):
        deviations = features([signals], rows)[:, 3:5]
        assert (deviations.std(axis=0) > 0.8).all() and (deviations.std(axis=0) < 1.2).all()


def test_without_known_non_members_of_the_victim_nobody_has_deviations():
    signals, _ = spread_signals(leak=0.0, seed=3)
    member = signals.member.copy()
    member[0] = -1  # as for an attacker who knows half of the points
    signals = signals._replace(member=member)
    outsiders = (member == 0) & signals.audit
    values = np.zeros(member.shape) + np.arange(member.shape[1])
    assert (deviations_in_class(values, outsiders, signals.labels, np.array([True, True])) == 0).all()


def test_classes_of_different_spread_are_told_apart():
    signals, truth = spread_signals(leak=1.0, seed=0)
    trees, networks = calibrated([signals], seed=0), neural([signals], seed=0)
    assert roc_auc_score(truth, networks.scores) > roc_auc_score(truth, trees.scores) + 0.01
    assert roc_auc_score(truth, networks.scores) > 0.73  # Phi(1 / sqrt 2) = 0.76 is the best there is
    assert (networks.decision == truth).mean() > 0.65


@pytest.mark.parametrize(("models", "seeds"), [(2, 6), (4, 1)])
def test_without_a_leak_victim_and_shadows_read_one_half(models, seeds):
    """In the mean over seeds, so that a small preference for the points that a fit knows would show."""
    of_victim, of_shadows = [], []
    for seed in range(seeds):
        signals, truth = spread_signals(leak=0.0, seed=seed, models=models, points=1200)
        result = neural([signals], seed=seed)
        of_victim.append(roc_auc_score(truth, result.scores))
        of_shadows.append(roc_auc_score(signals.member[audit_rows(signals)[0]], result.shadow_scores))
    tolerance = 3 / np.sqrt(6 * len(truth) / 2 * seeds)  # three standard errors of an AUC by chance
    assert abs(np.mean(of_victim) - 0.5) < tolerance
    assert abs(np.mean(of_shadows) - 0.5) < tolerance
