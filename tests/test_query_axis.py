"""Several answers about each point: they are averaged as the papers say, and reach what can be reached."""

import numpy as np
import pytest
from scipy.stats import norm, spearmanr

import attacks
from attacks.base import base
from attacks.common.queries import averaged, correct_bits, with_averages
from attacks.common.statistics import confidence
from attacks.joint import joint
from attacks.lira import lira
from attacks.rmia import rmia
from compleak.audits import metrics
from compleak.queries.views import as_stored
from tests.planted import draw_roles, withheld


def queried_world(models, points, queries, *, leak=1.0, difficulty=2.0, noise=2.0, seed=0):
    """(signals, truth); what attacks can reach is in `best_auc` and `lira_auc`.

    Two classes. The confidence in query q is the point's difficulty + leak * member + noise that is drawn anew for
    each model, point and query, so that the mean over queries is all there is to know. The best prediction of the
    difficulty by n references errs by C = T - T^2 / (T + S / n), T = difficulty^2, S the variance of the mean.
    """
    rng = np.random.default_rng(seed)
    member, audit = draw_roles(rng, models, points)
    confidences = rng.normal(scale=difficulty, size=(points, 1)) + leak * member[..., None]
    confidences = confidences + rng.normal(scale=noise, size=(models, points, queries))
    answers = np.stack([confidences / 2, -confidences / 2], axis=-1)  # (R, N, Q, C)
    signals = attacks.Signals(
        answers[:, :, 0].astype(np.float32),
        np.zeros(points, dtype=np.int64),
        withheld(member, audit),
        audit,
        {"augmented": as_stored(answers)},
    )

    return signals, member[0, audit[0]].astype(bool)


def best_auc(references: int, queries: int, *, leak=1.0, difficulty=2.0, noise=2.0) -> float:
    prior, variance = difficulty**2, noise**2 / queries
    error = prior - prior**2 / (prior + variance / references)
    return norm.cdf(leak / np.sqrt(2 * (error + variance)))


def lira_auc(references: int, queries: int, *, leak=1.0, noise=2.0) -> float:
    """LiRA takes the mean of the references as it is, with all of its error."""
    return norm.cdf(leak / np.sqrt(2 * noise**2 / queries * (1 + 1 / references)))


def test_the_averaged_answer_has_the_mean_of_the_logit_scaled_confidences():
    rng = np.random.default_rng(1)
    answers = rng.normal(scale=4, size=(2, 7, 3, 5))
    labels = rng.integers(5, size=7)
    signals = attacks.Signals(answers[:, :, 0], labels, np.zeros((2, 7)), np.zeros((2, 7)), {"augmented": answers})
    one = averaged(signals)
    for r in range(2):
        for x in range(7):
            odds = []
            for q in range(3):
                p = np.exp(answers[r, x, q]) / np.exp(answers[r, x, q]).sum()
                odds.append(np.log(p[labels[x]] / (1 - p[labels[x]])))
            assert confidence(one.logits[r, x], labels[x]) == pytest.approx(np.mean(odds))
    rows = (np.zeros(7, int), np.arange(7))
    assert np.array_equal(correct_bits(signals, rows), answers[0].argmax(-1) == labels[:, None])
    bare = signals._replace(probes={})
    assert averaged(bare) is bare and with_averages([bare, bare]) == [bare, bare]


def test_where_a_model_was_not_asked_its_averaged_answer_is_missing():
    signals, _ = queried_world(3, 50, 2)
    signals.probes["augmented"][1, 7] = np.nan
    one = averaged(signals)
    assert np.isnan(one.logits[1, 7]).all() and np.isfinite(np.delete(one.logits[1], 7, axis=0)).all()


@pytest.mark.parametrize(("key", "optimum"), [("joint", best_auc), ("lira/global_variance", lira_auc)])
def test_many_queries_reach_the_analytic_optimum(key, optimum):
    signals, truth = queried_world(9, 8000, 16, seed=2)
    row = next(row for row in attacks.NR if row.key == key)
    for queries, view in ((16, signals), (1, signals._replace(probes={}))):
        low, high = metrics.auc_interval(row.run([view], seed=0).scores, truth, seed=0)
        assert low <= optimum(8, queries) <= high


@pytest.mark.slow
def test_every_attack_that_compares_with_references_gains_by_queries():
    signals, truth = queried_world(4, 1600, 8, seed=3)
    for row in attacks.NR:
        if row.references and row.name != "combined":
            several, one = (row.run([view], seed=0).scores for view in (signals, signals._replace(probes={})))
            assert metrics.auc(several, truth) > metrics.auc(one, truth) + 0.03, row.key


@pytest.mark.parametrize("seed", range(3))
def test_queries_find_nothing_where_there_is_nothing(seed):
    signals, truth = queried_world(3, 2000, 6, leak=0.0, seed=seed)
    for row in attacks.NR:
        if row.key in ("joint", "calibrated", "lira/global_variance", "label_only_augmentation/mean"):
            scores = row.run([signals], seed=0).scores
            assert abs(metrics.auc(scores, truth) - 0.5) < 3.3 * np.sqrt(1 / (6 * 400)), row.key


def test_an_attack_on_averaged_answers_is_the_attack_on_their_mean():
    signals, _ = queried_world(4, 500, 4, seed=4)
    mean = averaged(signals)
    for attack, key in ((lira, "lira/global_variance"), (rmia, "rmia"), (base, "base")):
        row = next(row for row in attacks.NR if row.key == key)
        assert np.array_equal(row.run([signals], seed=0).scores, attack(mean).scores)
    ours = next(row for row in attacks.NR if row.key == "joint")
    assert np.array_equal(ours.run([signals], seed=0).scores, joint([signals, mean]).scores)


def test_half_precision_keeps_the_ranks():
    rng = np.random.default_rng(5)
    logits = rng.normal(scale=6, size=(20_000, 10))
    labels = logits.argmax(axis=-1)
    exact, rounded = (confidence(array, labels) for array in (logits, as_stored(logits)))
    assert np.abs(exact - rounded).max() < 0.02
    assert spearmanr(exact, rounded).statistic > 0.999999
