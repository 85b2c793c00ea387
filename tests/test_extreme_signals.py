"""Finite signals, however extreme, give finite scores, or an attack says why it cannot run."""

import numpy as np
import pytest

import attacks
from attacks.bavaria import log_survival
from attacks.samia import samia
from tests.planted import planted_signals


def scaled(factor, kind=np.float64):
    return lambda signals: signals._replace(logits=(signals.logits.astype(np.float64) * factor).astype(kind))


def all_largest(signals):
    return signals._replace(logits=np.where(signals.logits > 0, 1.0, -1.0) * np.finfo(np.float64).max)


def victim_scaled(signals):
    logits = signals.logits.astype(np.float64)
    logits[0] *= 1e300
    return signals._replace(logits=logits)


def one_answer_scaled(signals):
    logits = signals.logits.astype(np.float64)
    logits[1, np.flatnonzero(signals.audit[1])[0]] *= 1e300
    return signals._replace(logits=logits)


def constant(signals):
    return signals._replace(logits=np.zeros_like(signals.logits))


def all_models_alike(signals):
    return signals._replace(logits=np.repeat(signals.logits[:1], len(signals.logits), axis=0))


def sure_and_right(signals):
    return signals._replace(logits=1e4 * np.eye(signals.logits.shape[-1])[signals.labels] + 0 * signals.logits)


def members_sure_others_wrong(signals):
    sign = np.where(signals.member == 1, 1e3, -1e3)[..., None]
    return signals._replace(logits=sign * np.eye(signals.logits.shape[-1])[signals.labels])


def one_class(signals):
    return signals._replace(labels=np.zeros_like(signals.labels))


def whole_numbers(signals):
    return signals._replace(logits=np.round(signals.logits))


DISTORTIONS = {
    "logits of 1e300": scaled(1e300),
    "logits of 1e37 in float32": scaled(1e37, np.float32),
    "logits of 1e3": scaled(1e3),
    "logits of 1e-300": scaled(1e-300),
    "logits in float16": scaled(1, np.float16),
    "the largest and smallest float64": all_largest,
    "logits of 1e300 from the victim alone": victim_scaled,
    "logits of 1e300 in one answer": one_answer_scaled,
    "constant answers": constant,
    "all models answer alike": all_models_alike,
    "sure and right everywhere": sure_and_right,
    "members sure and others wrong": members_sure_others_wrong,
    "one class alone": one_class,
    "whole numbers": whole_numbers,
}


def run_all(scenario, models) -> set[str]:
    """Run every attack of a scenario and check that its scores are finite; the keys of those that are not Unusable."""
    results = {}
    for attack in attacks.KNOWN[scenario]:
        if attacks.missing(attack, models):
            continue
        try:
            result = attack.run(models, seed=1, earlier=results)
        except attacks.Unusable:
            continue
        assert np.isfinite(result.scores).all() and np.isfinite(result.shadow_scores).all(), attack.key
        assert result.scores.shape == result.decision.shape == (models[0].audit[0].sum(),)
        results[attack.key] = result
    return set(results)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_extreme_signals_give_finite_scores_or_a_reason(distortion):
    planted = planted_signals(4, 40, 3, variants=2, seed=0)
    models = [DISTORTIONS[distortion](signals) for signals in planted.variants]
    usable = run_all("NR", models[:1]) | run_all("SR", models) | run_all("MR", models)
    assert {"yeom2018", "gap", "rmia", "base", "SR2/random_forest", "MR"} <= usable


@pytest.mark.parametrize(("factor", "rows"), [(0.0, slice(None)), (1e300, slice(None)), (1e300, 0)])
def test_extreme_sensitivities_give_samia_finite_scores(factor, rows):
    signals = planted_signals(2, 60, 3, seed=0).variants[0]
    sensitivity = signals.probes["sensitivity"].astype(np.float64)
    sensitivity[rows] *= factor
    result = samia(signals._replace(probes={"sensitivity": sensitivity}), seed=0)
    assert np.isfinite(result.scores).all() and np.isfinite(result.shadow_scores).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("models", range(2, 10))
def test_audits_of_two_members_and_two_others_give_finite_scores_or_a_reason(models):
    usable = run_all("NR", planted_signals(models, 10, 3, seed=models).variants)
    assert {"yeom2018", "gap", "rmia", "base"} <= usable


def test_students_tail_goes_on_where_its_probability_underflows():
    z = np.array([1.0, 1e3, 2e3, 1e8, 1e60, 1e200])
    scores = log_survival(z, 100.0)
    assert np.isfinite(scores).all() and (np.diff(scores) < 0).all()
    ratio = (scores[4] - scores[3]) / np.log(z[4] / z[3])
    assert ratio == pytest.approx(-100)  # P falls as z^-degrees


@pytest.mark.parametrize("signals", [planted_signals(1, 40, seed=0).variants[0], planted_signals(3, 40).variants[0]])
def test_without_an_audited_shadow_no_attack_runs_and_each_says_so(signals):
    audit = signals.audit & (np.arange(len(signals.audit)) == 0)[:, None]
    bare = signals._replace(audit=audit)
    for scenario in attacks.KNOWN.values():
        for attack in scenario:
            models = [bare] if scenario is attacks.KNOWN["NR"] else [bare, bare]
            assert attacks.missing(attack, models)[0] == "shadow models"
            with pytest.raises(attacks.Unusable, match="shadow"):
                attack.run(models, seed=0)


@pytest.mark.parametrize("attack", [row for row in attacks.KNOWN["NR"] if row.probes], ids=lambda row: row.key)
def test_an_attack_says_which_answers_it_lacks_where_nobody_asked_before(attack):
    bare = planted_signals(2, 40, seed=0).variants[0]._replace(probes={})
    (probe,) = attack.probes
    with pytest.raises(attacks.Unusable, match=f"it needs the answers {probe}, and these signals hold none"):
        attack.run([bare], seed=0)
