"""Attacks by likelihood ratio, in a world of Gaussian confidences whose best attack is known."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import norm, t
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import attacks
from attacks import Signals
from attacks.base import base
from attacks.bavaria import bavaria, variance_prior
from attacks.combined import PENALTY, combined, fit_weights
from attacks.common.folds import aucs_of_parts, choose_out_of_fold, split_folds
from attacks.common.references import known_outsiders, reference_moments
from attacks.common.signals import MOST_ROWS, shadow_rows
from attacks.common.statistics import confidence, cross_entropy
from attacks.gap import gap
from attacks.joint import joint, shrunk_covariance
from attacks.lira import CONFIDENCES, lira
from attacks.model_updates import model_updates
from attacks.rmia import rmia
from attacks.watson2022 import watson2022
from compleak.audits import intervals, metrics
from tests.planted import World, draw_half_roles, gaussian_signals, planted_signals, withheld

LEAKS = (1.0, 0.5, 0.8)


def reference_answers(signals, r, x):
    """The confidences of the models other than r that did not train on x."""
    confidences = confidence(signals.logits, signals.labels)
    return [confidences[k, x] for k in range(len(confidences)) if k != r and signals.member[k, x] == 0]


def row_of(attack):
    return next(entry for entry in attacks.NR if entry.key == attack)


@pytest.mark.parametrize("models", [2, 4])
def test_a_model_is_not_among_the_references_of_its_points(models):
    signals = planted_signals(models, 60, seed=1).variants[0]
    confidences = confidence(signals.logits, signals.labels)
    count, mean, variance = reference_moments(known_outsiders(signals), confidences)
    for r in range(models):
        for x in range(60):
            answers = reference_answers(signals, r, x)
            assert count[r, x] == len(answers)
            assert mean[r, x] == pytest.approx(np.mean(answers)) if answers else np.isnan(mean[r, x])
            several = len(answers) > 1
            assert variance[r, x] == pytest.approx(np.var(answers, ddof=1)) if several else np.isnan(variance[r, x])


def literal_lira(signals, r, x, option, form):
    """Distance of the target's confidence from the middle of the references', in their deviations or plain."""

    def statistic(model):
        logits, y = [float(z) for z in signals.logits[model, x]], signals.labels[x]
        others = [z for c, z in enumerate(logits) if c != y]
        return logits[y] - (max(others) if "hinge" in option else math.log(sum(map(math.exp, others))))

    answers = [statistic(k) for k in range(len(signals.member)) if k != r and signals.member[k, x] == 0]
    distance = statistic(r) - (np.median(answers) if "median" in option else np.mean(answers))
    return distance / np.std(answers, ddof=1) if form == "per_point_variance" else distance


@pytest.mark.parametrize("form", ["per_point_variance", "global_variance"])
@pytest.mark.parametrize("seed", [2, 3, 5])
def test_lira_is_the_distance_from_the_references_by_the_choice_that_is_best_on_the_shadow_models(form, seed):
    signals = planted_signals(7, 120, seed=seed).variants[0]
    (models, points), (_, victim) = attacks.audit_rows(signals)
    result = lira(signals, classifier=form)
    assert [result.scores[place] for place in range(9)] == pytest.approx(
        [literal_lira(signals, 0, x, result.chosen, form) for x in victim[:9]]
    )
    if form == "per_point_variance":
        return  # points of the shadow models with a single reference take the mean variance
    options = [f"{name}, {middle} of the references" for name in CONFIDENCES for middle in ("mean", "median")]
    rows = list(zip(models, points, strict=True))
    member = [signals.member[row] for row in rows]
    aucs = [roc_auc_score(member, [literal_lira(signals, *row, option, form) for row in rows]) for option in options]
    assert result.chosen == options[int(np.argmax(aucs))]


def test_lira_names_an_unknown_form():
    with pytest.raises(ValueError, match="form"):
        lira(planted_signals(2, 60).variants[0], classifier="forest")


def test_watson2022_is_the_answer_minus_the_mean_answer_of_the_references():
    signals = planted_signals(4, 200, seed=3, difficulty=3.0).variants[0]
    _, (_, victim) = attacks.audit_rows(signals)
    loss = cross_entropy(signals.logits, signals.labels)
    answers = {"loss": -loss, "confidence": np.exp(-loss)}
    result = watson2022(signals)
    answer = answers[result.chosen]
    for place, x in enumerate(victim):
        outside = [k for k in range(1, 4) if signals.member[k, x] == 0]
        assert result.scores[place] == pytest.approx(answer[0, x] - np.mean([answer[k, x] for k in outside]))


def test_the_upper_bound_is_online_lira_with_many_models_and_no_attack_reaches_it():
    signals, truth = lira_world(17, 1500)
    result = attacks.UPPER_BOUND.run([signals], seed=0)
    assert result.chosen in ("global_variance", "per_point_variance")
    confidences = confidence(signals.logits, signals.labels)
    x = np.flatnonzero(signals.audit[0])[4]
    inside, outside = ([confidences[k, x] for k in range(1, 17) if signals.member[k, x] == kind] for kind in (1, 0))
    global_spread = result.chosen == "global_variance"
    kinds = [signals.member == kind for kind in (1, 0)]
    deviations = [math.sqrt(np.nanmean(reference_moments(mask, confidences).variance)) for mask in kinds]
    if not global_spread:
        deviations = [np.std(answers, ddof=1) for answers in (inside, outside)]
    densities = [
        norm.logpdf(confidences[0, x], np.mean(answers), deviation)
        for answers, deviation in zip((inside, outside), deviations, strict=True)
    ]
    assert result.scores[4] == pytest.approx(densities[0] - densities[1])
    bound = roc_auc_score(truth, result.scores)
    for attack in (base, rmia, lira, watson2022, bavaria):
        assert bound > roc_auc_score(truth, attack(signals).scores) + 0.02


def test_where_online_lira_is_not_the_best_the_upper_bound_is_online_base(monkeypatch):
    monkeypatch.setattr("attacks.upper_bound.FORMS", ())
    signals, _ = lira_world(5, 600)
    result = attacks.UPPER_BOUND.run([signals], seed=0)
    scale, temperature = (float(part.split()[1]) for part in result.chosen.split(","))
    victim = np.flatnonzero(signals.audit[0])
    for place, x in enumerate(victim[:20]):
        inside, outside = ([k for k in range(1, 5) if signals.member[k, x] == kind] for kind in (1, 0))

        def p(k, x=x):
            odds = math.exp(-float(np.diff(signals.logits[k, x])[0]) / temperature)
            return odds / (1 + odds)

        mean = np.mean([np.mean([p(k) for k in models]) for models in (inside, outside) if models])
        assert result.scores[place] == pytest.approx(math.log(p(0)) - scale * math.log(mean), rel=1e-4)


def lira_world(models, points):
    """Each model is trained on half of all points. How much a member's confidence rises differs from point to point."""
    rng = np.random.default_rng(4)
    member, audit = draw_half_roles(rng, models, points)
    difficulty, leak = rng.normal(scale=2, size=points), rng.exponential(scale=1.5, size=points)
    confidences = difficulty + leak * member + rng.normal(scale=0.7, size=member.shape)
    logits = np.stack([confidences / 2, -confidences / 2], axis=-1).astype(np.float32)
    signals = Signals(logits, np.zeros(points, dtype=int), withheld(member, audit), audit)
    return signals, member[0].astype(bool)


def test_the_upper_bound_needs_models_that_trained_on_the_audited_points():
    with pytest.raises(attacks.Unusable, match="a reference model that trained on them"):
        attacks.UPPER_BOUND.run(planted_signals(4, 200).variants, seed=0)
    assert "the auditor trained on the victim's own points" in attacks.needs(attacks.UPPER_BOUND, "1 shadow model")


def test_the_upper_bound_gives_no_other_attacks_name_as_its_reason():
    signals, _ = lira_world(5, 40)
    alike = signals._replace(logits=np.repeat(signals.logits[:1], 5, axis=0))
    with pytest.raises(attacks.Unusable, match="^it needs references that do not all answer alike$"):
        attacks.UPPER_BOUND.run([alike], seed=0)


def test_base_with_scale_1_ranks_like_rmia_with_a_and_gamma_of_one(monkeypatch):
    signals = planted_signals(4, 400, seed=3).variants[0]
    monkeypatch.setattr("attacks.rmia.OFFLINE_A", (1.0,))
    monkeypatch.setattr("attacks.rmia.GAMMA", (1.0,))
    monkeypatch.setattr("attacks.rmia.SOFTMAX_TEMPERATURES", (1.0,))
    monkeypatch.setattr("attacks.rmia.VARIANT_TEMPERATURES", ())
    monkeypatch.setattr("attacks.base.SCALES", (1.0,))
    monkeypatch.setattr("attacks.base.TEMPERATURES", (1.0,))
    population = rmia(signals).scores
    order = np.argsort(base(signals).scores)
    assert (np.diff(population[order]) >= 0).all()


def literal_base(signals, r, x, scale, temperature):
    """log p_T(x | r) - scale log mean p_T(x | reference), in plain probabilities."""

    def p(model):
        weights = [math.exp(float(z) / temperature) for z in signals.logits[model, x]]
        return weights[signals.labels[x]] / sum(weights)

    outside = [s for s in range(len(signals.member)) if s != r and signals.member[s, x] == 0]
    return math.log(p(r)) - scale * math.log(np.mean([p(s) for s in outside]))


def test_base_uses_the_scale_and_temperature_that_are_best_on_the_shadow_models(monkeypatch):
    monkeypatch.setattr("attacks.base.SCALES", (1.0, 0.33, 0.05))
    monkeypatch.setattr("attacks.base.TEMPERATURES", (1.0, 2.0))
    signals = planted_signals(3, 200, seed=3, difficulty=3.0).variants[0]
    rows, (_, victim) = attacks.audit_rows(signals)
    member = signals.member[rows]

    def quality(option):
        return roc_auc_score(member, [literal_base(signals, r, x, *option) for r, x in zip(*rows, strict=True)])

    scale, temperature = max(itertools.product((1.0, 0.33, 0.05), (1.0, 2.0)), key=quality)
    result = base(signals)
    assert result.chosen == f"scale {scale:g}, temperature {temperature:g}"
    np.testing.assert_allclose(result.scores, [literal_base(signals, 0, x, scale, temperature) for x in victim])


def test_a_choice_is_scored_on_rows_that_it_did_not_see():
    """Of 200 options of pure noise the best is good by chance on the rows that it was chosen on."""
    rng = np.random.default_rng(0)
    aucs = []
    for _ in range(30):
        member = rng.permutation(np.arange(300) < 150).astype(int)
        rows = (np.ones(300, dtype=int), np.arange(300))
        options = rng.normal(size=(200, 300))
        choice = choose_out_of_fold(options, member, rows)
        assert roc_auc_score(member, options[choice.option]) > 0.55
        aucs.append(roc_auc_score(member, choice.shadow_scores))
    assert abs(np.mean(aucs) - 0.5) < 4 * math.sqrt(1 / (6 * 300 * 30) * 2)


def test_scores_of_two_options_are_brought_to_one_scale():
    rng = np.random.default_rng(1)
    member = rng.integers(2, size=600)
    rows = (np.ones(600, dtype=int), np.arange(600))
    good = member + rng.normal(size=600)
    options = np.array([good, 1000 + 50 * (good + rng.normal(scale=1e-3, size=600))])
    choice = choose_out_of_fold(options, member, rows)
    assert roc_auc_score(member, choice.shadow_scores) == pytest.approx(roc_auc_score(member, good), abs=0.01)
    np.testing.assert_allclose(
        aucs_of_parts(options[1], member, np.ones((1, 600), bool)), roc_auc_score(member, good), atol=0.01
    )


@pytest.mark.parametrize(("degrees", "scale"), [(4.0, 2.0), (12.0, 0.5)])
def test_variance_prior_recovers_the_prior_that_variances_were_drawn_from(degrees, scale):
    rng = np.random.default_rng(0)
    true = degrees * scale / rng.chisquare(degrees, size=200_000)
    seen = true * rng.chisquare(5, size=200_000) / 5
    assert variance_prior(seen, np.full(200_000, 5)) == (
        pytest.approx(degrees, rel=0.05),
        pytest.approx(scale, rel=0.02),
    )


def test_bavaria_is_the_tail_of_a_student_t_between_lira_with_one_and_with_many_variances():
    world = gaussian_signals(5, 8000, LEAKS[:1], seed=4)
    signals = world.variants[0]
    confidences = confidence(signals.logits, signals.labels)
    moments = reference_moments(known_outsiders(signals), confidences)
    scores = bavaria(signals).scores
    v, w = variance_prior(moments.variance[moments.count > 1], moments.count[moments.count > 1] - 1)
    assert v == 100  # all variances are alike here
    assert w == pytest.approx(1, rel=0.05)
    x = np.flatnonzero(signals.audit[0])
    score = (confidences[0, x] - moments.mean[0, x]) / math.sqrt(w * (1 + 1 / 4))
    assert np.corrcoef(scores, -t.logsf(score, v + 3))[0, 1] > 0.99
    per_point = lira(signals, classifier="per_point_variance").scores
    assert roc_auc_score(world.truth, scores) > roc_auc_score(world.truth, per_point) + 0.005


def test_gap_needs_only_the_predicted_class():
    signals = planted_signals(2, 300, seed=5).variants[0]
    scores, decision, *_ = gap(signals)
    x = np.flatnonzero(signals.audit[0])
    right = signals.logits[0, x].argmax(-1) == signals.labels[x]
    np.testing.assert_array_equal(scores, right)
    np.testing.assert_array_equal(decision, right)


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_model_updates_finds_a_change_for_members_in_either_direction(direction):
    """In this world no model alone tells members apart; only the difference of the two does."""
    planted = planted_signals(2, 2000, leak=0.0, difficulty=3.0, noise=0.1, seed=6)
    original = planted.variants[0]
    member = original.member.astype(float)
    member[0, original.audit[0]] = planted.truth
    changed = original.logits.copy()
    changed[:, np.arange(2000), original.labels] -= (0.5 * direction * member).astype(np.float32)
    result = model_updates(original, original._replace(logits=changed), seed=0)
    assert roc_auc_score(planted.truth, result.scores) > 0.8
    assert (result.decision == planted.truth).mean() > 0.7


# The best there is


@pytest.mark.parametrize("models", [2, 5, 9])
def test_joint_reaches_the_analytic_roc(models):
    world = gaussian_signals(models, 20_000, LEAKS, seed=2)
    together = joint(world.variants).scores
    low, high = metrics.auc_interval(together, world.truth, seed=0)
    assert low <= world.best_auc <= high
    for fpr in (0.01, 0.1):
        best = norm.cdf(norm.ppf(fpr) + math.sqrt(2) * norm.ppf(world.best_auc))  # equal covariances: a binormal ROC
        least, most = intervals.clopper_pearson(round(metrics.tpr_at_fpr(together, world.truth, fpr) * 4000), 4000)
        spread = math.sqrt(fpr / 4000) * 3  # of the threshold, in rates; the ROC is no steeper than 3 there
        assert least - spread * 2 <= best <= most + spread * 2


@pytest.mark.parametrize("shape", [(5, 9), (2000, 9), (40, 1)])
def test_covariances_are_shrunk_as_by_ledoit_and_wolf(shape):
    residuals = np.random.default_rng(0).normal(size=shape) * np.arange(1, 1 + shape[1])
    assert np.allclose(shrunk_covariance(residuals), ledoit_wolf(residuals, assume_centered=True)[0], rtol=1e-12)


def test_joint_beats_every_attack_on_the_model_that_leaks_most():
    world = gaussian_signals(5, 6000, LEAKS, seed=2)
    together = joint(world.variants).scores
    alone = world.variants[:1]
    for entry in attacks.NR:
        is_slow = entry.classifier == "random_forest" or entry.name in ("rapid", "neural", "combined")
        if is_slow or attacks.missing(entry, alone):
            continue
        scores = entry.run(alone, seed=1).scores
        assert metrics.paired_difference(together, scores, world.truth, seed=1)[1] > 0, entry.key


@pytest.mark.parametrize("attack", [joint, lambda models: combined(models, seed=0)])
def test_no_attack_finds_a_leak_where_there_is_none(attack):
    world = gaussian_signals(3, 4000, (0.0, 0.0, 0.0), seed=3)
    assert abs(roc_auc_score(world.truth, attack(world.variants).scores) - 0.5) < 0.035  # three standard errors


def parts_of_combined(models):
    return {name: row_of(name).run(models, seed=4) for name in ("joint", "neural", "rmia")}


def test_the_weights_of_combined_are_those_of_a_logistic_regression_and_never_negative():
    rng = np.random.default_rng(0)
    member = rng.random(3000) < 0.5
    rows = rng.normal(size=(3000, 3)) + np.outer(member, [1.0, 0.4, 0.0])
    literal = LogisticRegression(C=1 / PENALTY, tol=1e-8).fit(rows[:, :2], member).coef_[0]
    np.testing.assert_allclose(fit_weights(rows[:, :2], member), literal, rtol=1e-4)
    assert fit_weights(rows * [1, 1, -1] - np.outer(member, [0, 0, 0.5]), member)[2] == 0
    assert fit_weights(-rows[:, :2], member).tolist() == [1, 1]


def test_a_part_that_fails_on_the_shadow_models_hardly_counts():
    world = gaussian_signals(3, 2000, (1.0,), seed=6)
    results = parts_of_combined(world.variants)
    rng = np.random.default_rng(0)
    for name, result in results.items():
        arrays = (9 * rng.normal(size=array.shape) for array in (result.shadow_scores, result.scores))
        noise = result._replace(**dict(zip(("shadow_scores", "scores"), arrays, strict=True)))
        with_noise = combined(world.variants, seed=4, earlier=results | {name: noise})
        whole = combined(world.variants, seed=4, earlier=results)
        aucs = [roc_auc_score(world.truth, answer.scores) for answer in (with_noise, whole)]
        assert aucs[0] > aucs[1] - 0.01, name


def test_combined_scores_the_shadows_by_weights_that_saw_neither_shadow_nor_point():
    """Of pure noise some is good by chance on the rows that it is weighed on."""
    world = gaussian_signals(3, 300, (0.0,), seed=2)
    results = parts_of_combined(world.variants)
    member = world.variants[0].member[attacks.audit_rows(world.variants[0])[0]]
    rng = np.random.default_rng(3)
    aucs = []
    for _ in range(20):
        noise = {
            name: result._replace(shadow_scores=rng.normal(size=result.shadow_scores.shape))
            for name, result in results.items()
        }
        shadow_scores = combined(world.variants, seed=4, earlier=noise).shadow_scores
        aucs.append(roc_auc_score(member, shadow_scores))
    assert 0.46 < np.mean(aucs) < 0.51


def with_cauchy_noise(signals):
    """The Gaussian world's signals with heavy-tailed noise on every confidence."""
    noise = np.random.default_rng(5).standard_cauchy(size=signals.member.shape)
    return signals._replace(logits=(signals.logits + noise[..., None] * [0.5, -0.5]).astype(np.float32))


@pytest.mark.parametrize("models", [2, 5])
def test_joint_stands_heavy_tails(models):
    world = gaussian_signals(models, 6000, (1.5,), seed=3)
    signals = with_cauchy_noise(world.variants[0])
    result = joint([signals])
    baseline = roc_auc_score(world.truth, lira(signals).scores)
    assert result.chosen.startswith("Student-t")
    assert roc_auc_score(world.truth, result.scores) > baseline + 0.01
    assert joint(world.variants).chosen == "Gaussian"


def test_joint_uses_one_model_where_the_others_know_nothing_and_mislead():
    """Eight of nine models answer with Cauchy noise alone."""
    world = gaussian_signals(2, 2000, (1.5,), seed=4)
    rng = np.random.default_rng(1)
    useless = [
        world.variants[0]._replace(logits=rng.standard_cauchy(size=world.variants[0].logits.shape).astype(np.float32))
        for _ in range(8)
    ]
    alone, together = joint(world.variants), joint([*world.variants, *useless])
    assert roc_auc_score(world.truth, together.scores) > roc_auc_score(world.truth, alone.scores) - 0.01


def test_joint_does_not_count_copies_of_a_model_as_new_evidence():
    world = gaussian_signals(5, 8000, (1.0,), seed=5)
    alone, twice = (joint(world.variants * k).scores for k in (1, 2))
    assert roc_auc_score(world.truth, twice) == pytest.approx(roc_auc_score(world.truth, alone), abs=2e-3)


def test_combined_uses_the_results_of_earlier_attacks():
    world = gaussian_signals(3, 2000, (1.0,), seed=6)
    parts = parts_of_combined(world.variants)
    from_parts, from_scratch = (combined(world.variants, seed=4, earlier=earlier) for earlier in (parts, None))
    np.testing.assert_array_equal(from_parts.scores, from_scratch.scores)
    swapped = parts | {"rmia": parts["rmia"]._replace(scores=-parts["rmia"].scores)}
    assert not np.array_equal(combined(world.variants, seed=4, earlier=swapped).scores, from_parts.scores)


def test_many_shadows_cost_no_more_rows_than_one():
    signals = gaussian_signals(9, 30_000, (1.0,), seed=7).variants[0]
    models, points = shadow_rows(signals.audit)
    assert len(models) == MOST_ROWS < signals.audit[1:].sum()
    assert set(models) == set(range(1, 9)) and signals.audit[models, points].all()
    assert len({*zip(models.tolist(), points.tolist(), strict=True)}) == len(models)
    assert joint([signals]).shadow_scores.shape == (MOST_ROWS,)


@pytest.mark.parametrize("shadows", [1, 3, 8])
def test_scores_come_from_a_fit_that_saw_neither_the_shadow_nor_the_point(shadows):
    signals = gaussian_signals(1 + shadows, 600, (1.0,), seed=8).variants[0]
    (models, points), _ = attacks.audit_rows(signals)
    scored = np.zeros(len(models), dtype=int)
    for seen, unseen in split_folds(models, points):
        assert not set(points[seen]) & set(points[unseen])
        assert shadows == 1 or not set(models[seen]) & set(models[unseen])
        assert len(seen[seen]) > 0.3 * len(seen)
        scored += unseen
    assert (scored == 1).all()


def test_scores_of_shadow_models_find_no_leak_where_there_is_none():
    world = planted_signals(2, 1500, 100, leak=0.0, variants=2, seed=4)
    known = world.variants[0].member[attacks.audit_rows(world.variants[0])[0]]
    for rows, models in ((attacks.NR, world.variants[:1]), (attacks.SR, world.variants)):
        for attack in rows:
            if not attack.eligible or attack.classifier == "random_forest" or attacks.missing(attack, models):
                continue
            shadow_scores = attack.run(models, seed=0).shadow_scores
            assert abs(roc_auc_score(known, shadow_scores) - 0.5) < 4 * math.sqrt(1 / (6 * len(known))), attack.key


def test_over_many_worlds_without_a_leak_choices_are_no_better_than_chance_on_the_shadow_models():
    """A choice that saw the rows it is scored on would read above a half in the mean over worlds."""
    chosen_on_shadows = ("base", "rmia", "watson2022", "lira/global_variance", "model_updates")
    rows = [row for row in (*attacks.NR, *attacks.SR) if row.key in chosen_on_shadows]
    aucs = {row.key: [] for row in rows}
    for seed in range(40):
        models = planted_signals(2, 300, leak=0.0, variants=2, seed=100 + seed).variants
        known = models[0].member[attacks.audit_rows(models[0])[0]]
        for row in rows:
            result = row.run(models if row.name == "model_updates" else models[:1], seed=0)
            aucs[row.key].append(roc_auc_score(known, result.shadow_scores))
    for key, of_worlds in aucs.items():
        assert abs(np.mean(of_worlds) - 0.5) < 3 * np.std(of_worlds) / math.sqrt(40), key


def test_attacks_that_need_different_references_or_more_points_say_so():
    signals = planted_signals(3, 60, seed=1).variants[0]
    alike = signals._replace(logits=np.repeat(signals.logits[:1], 3, axis=0))
    for attack in (bavaria, lambda given: lira(given, classifier="per_point_variance")):
        with pytest.raises(attacks.Unusable, match="needs"):
            attack(alike)
    with pytest.raises(attacks.Unusable, match="too few"):
        joint([planted_signals(2, 10, seed=0).variants[0]])


def test_a_few_huge_losses_do_not_reverse_model_updates():
    original = planted_signals(2, 4000, leak=0.0, seed=5).variants[0]
    member = original.member == 1
    hard = np.random.default_rng(0).random((2, 4000)) < 0.04
    logits = original.logits.copy()
    true_class = (slice(None), np.arange(4000), original.labels)
    logits[true_class] += 1.0 - 0.5 * member  # most losses of members fall by less, but their mean falls by more
    logits[true_class] -= np.where(hard & ~member, 50.0, 0.0)
    rise = cross_entropy(logits, original.labels) - cross_entropy(original.logits, original.labels)
    rows, _ = attacks.audit_rows(original)
    known = original.member[rows]
    assert rise[rows][known == 1].mean() < rise[rows][known == 0].mean()
    assert roc_auc_score(known, model_updates(original, original._replace(logits=logits)).shadow_scores) > 0.6


def test_the_gaussian_world_leaks_as_much_as_stated():
    world: World = gaussian_signals(3, 20_000, LEAKS, seed=9)
    confidences = confidence(world.variants[1].logits, world.variants[1].labels)
    member = world.variants[1].member == 1
    assert confidences[member].mean() - confidences[world.variants[1].member == 0].mean() == pytest.approx(0.5, abs=0.1)
