"""Attacks for whom few or no references are enough: info_rmia, pmia_class, rapid, qmia, dsq, seqmia_versions, tail."""

import numpy as np
import pytest
import torch
from conftest import ATTACK, NETWORK
from planted import draw_roles, planted_signals, withheld, write_signals
from scipy.stats import norm
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import roc_auc_score

import attacks
import CompLeakMR
import CompLeakNR
from attacks import Signals, audit_rows
from attacks.common.folds import choose_out_of_fold, split_folds
from attacks.common.networks import Recipe, with_enough_steps
from attacks.common.statistics import confidence, cross_entropy
from attacks.dsq import RECIPES, TwoViews, dsq, squared_error
from attacks.info_rmia import OFFLINE_A, TEMPERATURES, candidates, info_rmia
from attacks.pmia_class import ENOUGH_REFERENCES, pmia_class
from attacks.qmia import TREES, qmia
from attacks.rapid import raw_and_calibrated
from attacks.seqmia_versions import RecurrentAttention, by_degree, seqmia_versions
from attacks.seqmia_versions import metrics as five_metrics
from attacks.tail import tail
from compleak.audits import attackers, metrics
from compleak.queries.signals_file import Record

USUAL = ("info_rmia", "pmia_class", "rapid")
LEAK = 1.5  # of the world that QMIA is tried in, in deviations of the noise


def entry(scenario: str, name: str) -> attacks.Attack:
    return next(attack for attack in attacks.KNOWN[scenario] if attack.name == name)


def references_of(signals: Signals, model: int, point: int) -> list[int]:
    return [k for k in range(len(signals.logits)) if k != model and signals.member[k, point] == 0]


def looks_tell_difficulty(models=2, points=3000, *, leak=LEAK, seed=0):
    """Two classes. Confidence = 2 x the first of five columns + leak, if it is a member, + noise.

    The noise has the deviation 1 where the second column is positive, else 0.5. Returns signals and truth (A,).
    """
    rng = np.random.default_rng(seed)
    member, audit = draw_roles(rng, models, points)
    columns = rng.normal(size=(points, 5))
    deviation = np.where(columns[:, 1] > 0, 1.0, 0.5)
    confidences = 2 * columns[:, 0] + (leak * member + rng.normal(size=member.shape)) * deviation
    logits = np.stack([confidences / 2, -confidences / 2], axis=-1).astype(np.float32)
    labels = np.zeros(points, dtype=np.int64)
    signals = Signals(logits, labels, withheld(member, audit), audit, {}, columns.astype(np.float32))
    return signals, member[0, audit[0]].astype(bool)


def half_known_view(leak=1.5, size=400, references=2, seed=0):
    """What an attacker sees who knows half of the points, and the truth of the other half."""
    rng = np.random.default_rng(seed)
    points = 2 * size
    member = np.zeros((1 + references, points), dtype=bool)
    member[0, rng.permutation(points)[:size]] = True
    audit = np.zeros_like(member)
    audit[0] = True
    columns = rng.normal(size=(points, 3)).astype(np.float32)
    confidences = 2 * columns[:, 0] + leak * member + rng.normal(size=member.shape)
    logits = np.stack([confidences / 2, -confidences / 2], axis=-1).astype(np.float32)
    record = Record(logits, np.zeros(points, dtype=np.int64), member, audit, {}, None, columns)
    judged = rng.permutation(points) < size
    return attackers.known_half_view(record, attackers.Half("", judged, ~judged)), member[0, judged]


# The papers' formulas, written out


def naive_information(signals: Signals, temperature: float, a: float, model: int, point: int) -> float:
    """log p(x | target) / p(x), minus the mean of the same over the points that the model did not train on."""

    def log_ratio(x):
        def p(k):
            return np.exp(-cross_entropy(signals.logits[k, x][None] / temperature, signals.labels[x : x + 1])[0])

        p_out = np.mean([p(k) for k in references_of(signals, model, x)])
        return np.log(p(model) / (((1 + a) * p_out + 1 - a) / 2))

    population = [z for z in range(len(signals.labels)) if signals.member[model, z] == 0]
    population = [z for z in population if references_of(signals, model, z)]
    return log_ratio(point) - np.mean([log_ratio(z) for z in population])


def test_info_rmia_is_the_log_ratio_minus_its_mean_over_the_population():
    signals = planted_signals(4, 120, seed=2).variants[0]
    for number in (0, 3, 10, len(OFFLINE_A) * len(TEMPERATURES) - 1):
        _, scores = list(candidates(signals))[number]
        temperature, a = TEMPERATURES[number // len(OFFLINE_A)], OFFLINE_A[number % len(OFFLINE_A)]
        for model in (0, 2):
            for point in np.flatnonzero(signals.audit[model])[:5]:
                expected = naive_information(signals, temperature, a, model, point)
                assert scores[model, point] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_info_rmia_takes_the_candidate_that_is_best_on_the_shadows():
    signals = planted_signals(3, 600, seed=4).variants[0]
    shadow, victim = audit_rows(signals)
    every = [scores for _, scores in candidates(signals)]
    best = np.argmax([roc_auc_score(signals.member[shadow], scores[shadow]) for scores in every])
    np.testing.assert_array_equal(info_rmia(signals).scores, every[best][victim])


def test_pmia_class_is_the_likelihood_ratio_of_the_class_members_and_the_points_references():
    signals = planted_signals(ENOUGH_REFERENCES + 1, 500, classes=3, seed=5).variants[0]
    confidences = confidence(signals.logits, signals.labels)
    shadow, victim = audit_rows(signals)
    scores = pmia_class(signals).scores
    known = signals.member[shadow] == 1
    for place, x in enumerate(victim[1]):
        outside = [confidences[k, x] for k in references_of(signals, 0, x)]
        assert len(outside) == ENOUGH_REFERENCES
        of_class = confidences[shadow][known & (signals.labels[shadow[1]] == signals.labels[x])]
        inside = norm.logpdf(confidences[0, x], np.median(of_class), np.std(of_class))
        outside = norm.logpdf(confidences[0, x], np.median(outside), np.std(outside, ddof=1))
        assert scores[place] == pytest.approx(inside - outside)


def test_pmia_class_gives_all_points_one_deviation_where_references_are_few():
    signals = planted_signals(3, 500, classes=3, seed=5).variants[0]
    confidences = confidence(signals.logits, signals.labels)
    shadow, victim = audit_rows(signals)
    variances = [
        np.var([confidences[k, x] for k in references_of(signals, r, x)], ddof=1)
        for r in range(3)
        for x in range(500)
        if len(references_of(signals, r, x)) > 1
    ]
    x = victim[1][0]
    outside = norm.logpdf(confidences[0, x], np.median(confidences[1:, x]), np.sqrt(np.mean(variances)))
    of_class = confidences[shadow][(signals.member[shadow] == 1) & (signals.labels[shadow[1]] == signals.labels[x])]
    inside = norm.logpdf(confidences[0, x], np.median(of_class), np.std(of_class))
    assert pmia_class(signals).scores[0] == pytest.approx(inside - outside)


def test_rapid_reads_the_loss_and_the_loss_beyond_that_of_the_references():
    signals = planted_signals(4, 200, seed=3).variants[0]
    inputs = raw_and_calibrated(signals)
    loss = cross_entropy(signals.logits, signals.labels)
    for model in (0, 2):
        for point in np.flatnonzero(signals.audit[model]):
            mean = np.mean([loss[k, point] for k in references_of(signals, model, point)])
            np.testing.assert_allclose(inputs[model, point], [loss[model, point], loss[model, point] - mean])


def test_qmia_is_the_distance_from_what_a_non_member_that_looks_so_is_expected_to_get():
    signals, _ = looks_tell_difficulty(points=1500)
    confidences = confidence(signals.logits, signals.labels)[0]
    victim = np.flatnonzero(signals.audit[0])
    outsiders = np.flatnonzero(signals.member[0] == 0)
    turn = np.arange(1500) % 3  # the points in ascending order, and a third of them at a time
    inputs = np.column_stack([signals.columns, signals.labels])
    scores = np.empty(len(victim))
    for third in range(3):
        seen, scored = outsiders[turn[outsiders] != third], turn[victim] == third
        options = {"random_state": 7, "categorical_features": [False] * 5 + [True], **TREES}
        mean = HistGradientBoostingRegressor(loss="squared_error", **options).fit(inputs[seen], confidences[seen])
        errors = np.maximum((confidences[seen] - mean.predict(inputs[seen])) ** 2, 1e-6)
        variance = HistGradientBoostingRegressor(loss="gamma", **options).fit(inputs[seen], errors)
        x = inputs[victim[scored]]
        scores[scored] = (confidences[victim[scored]] - mean.predict(x)) / np.sqrt(variance.predict(x))
    np.testing.assert_allclose(qmia(signals, seed=7).scores, scores)


def test_dsq_has_the_layers_of_selena_and_its_loss():
    network = TwoViews(100, 100, deviation=0.01)
    widths = [tuple(layer.weight.shape) for layer in network.modules() if isinstance(layer, torch.nn.Linear)]
    assert widths[:3] == [(1024, 100), (512, 1024), (64, 512)]
    assert widths[3:5] == [(128, 100), (64, 128)]
    assert widths[5:] == [(512, 128), (256, 512), (128, 256), (64, 128), (1, 64)]
    weights = network.features[2].weight
    assert weights.std().item() == pytest.approx(0.01, rel=0.02)
    assert not network.features[2].bias.any()
    logits = network(torch.rand(6, 200))
    targets = torch.tensor([0, 1, 1, 0, 1, 0])
    by_hand = ((torch.sigmoid(logits[:, 1]) - targets) ** 2).mean()
    assert squared_error(logits, targets).item() == pytest.approx(by_hand.item())
    assert RECIPES["paper"].loss is squared_error


def test_seqmia_weighs_the_states_by_their_product_with_the_last():
    network = RecurrentAttention().eval()
    steps = torch.randn(3, 4, 5)
    with torch.no_grad():
        states, (last, _) = network.recurrent(steps)
    for number in range(3):
        energies = [float(last[0, number] @ states[number, k]) for k in range(4)]
        shares = np.exp(energies) / np.exp(energies).sum()
        context = sum(share * states[number, k] for k, share in enumerate(shares))
        expected = network.head(torch.cat([last[0, number], context]))
        torch.testing.assert_close(network(steps)[number], expected.float())


def test_seqmia_reads_five_metrics():
    signals = planted_signals(2, 60, seed=1).variants[0]
    rows = audit_rows(signals)[1]
    p = torch.from_numpy(signals.logits[rows]).double().softmax(dim=1).numpy()
    label = np.arange(10) == signals.labels[rows[1]][:, None]
    loss = -np.log(p[label])
    entropy = -(p * np.log(p)).sum(axis=1)
    reverse = np.where(label, p, 1 - p)
    modified = -(np.where(label, 1 - p, p) * np.log(reverse)).sum(axis=1)
    expected = np.stack([loss, p.max(axis=1), p.std(axis=1), entropy, modified], axis=1)
    np.testing.assert_allclose(five_metrics(signals, rows), expected, rtol=1e-9)


def test_seqmia_orders_versions_by_how_far_they_moved():
    original, *_ = planted_signals(2, 200, seed=1).variants
    rng = np.random.default_rng(0)
    noise = rng.normal(size=original.logits.shape).astype(np.float32)
    versions = [original._replace(logits=original.logits + amount * noise) for amount in (2.0, 0.1, 0.7)]
    ordered = by_degree([original, *versions], audit_rows(original)[0])
    assert [id(model) for model in ordered] == [
        id(model) for model in (original, versions[1], versions[2], versions[0])
    ]


def test_tail_is_the_share_of_non_members_above_nearly_all_members():
    others = np.array([0.5, 2.0, 5.0, 9.0])
    assert tail([0.1, 0.2, 5.0], others) == 0.25  # a loss of 5 is as high as a member's
    assert tail(np.r_[np.zeros(999), 9.5], others) == 1.0  # one member in a thousand may lie above
    assert tail(np.r_[np.zeros(998), 9.5], others) == 0.0
    with pytest.raises(ValueError, match="both members and non-members"):
        tail([], others)


def test_tail_is_the_hit_rate_on_non_members_at_few_false_alarms_on_members():
    rng = np.random.default_rng(3)
    members, others = rng.gamma(0.3, size=5000).round(2), rng.gamma(0.4, 3, size=5000).round(2)
    scores = np.r_[members, others]
    is_other = np.arange(10000) >= 5000
    assert tail(members, others) == pytest.approx(metrics.tpr_at_fpr(scores, is_other))


# Worlds with a leak and without


@pytest.mark.parametrize("name", USUAL)
def test_attacks_with_one_reference_find_a_planted_leak_that_the_loss_finds_less_of(name):
    world = planted_signals(2, 3000, seed=1)
    result = entry("NR", name).run(world.variants, seed=7)
    loss = -cross_entropy(world.variants[0].logits, world.variants[0].labels)[0, world.variants[0].audit[0]]
    assert roc_auc_score(world.truth, result.scores) > roc_auc_score(world.truth, loss) + 0.03


def test_qmia_finds_what_can_be_found_where_looks_tell_the_difficulty():
    """Once mean and deviation are known, members stand LEAK deviations above others: AUC = Phi(LEAK / sqrt 2)."""
    signals, truth = looks_tell_difficulty(points=6000)
    best = norm.cdf(LEAK / np.sqrt(2))
    loss = -cross_entropy(signals.logits, signals.labels)[0, signals.audit[0]]
    found = roc_auc_score(truth, qmia(signals, seed=7).scores)
    assert roc_auc_score(truth, loss) + 0.1 < best - 0.02 < found < best + 0.02


def test_dsq_and_seqmia_find_nearly_what_the_loss_finds():
    world = planted_signals(2, 3000, variants=3, seed=1)
    _, victim = audit_rows(world.variants[0])
    loss = -cross_entropy(world.variants[0].logits, world.variants[0].labels)
    for scores in (dsq(world.variants[0], seed=7).scores, seqmia_versions(world.variants, seed=7).scores):
        assert roc_auc_score(world.truth, scores) > roc_auc_score(world.truth, loss[victim]) - 0.05


@pytest.mark.parametrize(("name", "worlds"), [("info_rmia", 20), ("pmia_class", 20), ("rapid", 5), ("qmia", 6)])
def test_nothing_is_found_where_there_is_nothing_neither_on_the_victim_nor_on_the_shadows(name, worlds):
    """What is fitted or chosen did not see the rows it scores, so the shadows' AUC is 0.5 on average as well."""
    found = []
    for seed in range(worlds):
        if name == "qmia":
            signals, truth = looks_tell_difficulty(points=500, leak=0.0, seed=seed)
        else:
            (signals,), truth, _ = planted_signals(2, 500, leak=0.0, seed=seed)
        result = entry("NR", name).run([signals], seed=seed)
        shadow, _ = audit_rows(signals)
        found.append([roc_auc_score(truth, result.scores), roc_auc_score(signals.member[shadow], result.shadow_scores)])
    deviation = np.sqrt(201 / (12 * 100 * 100))  # of an AUC over 100 and 100 points
    np.testing.assert_allclose(np.mean(found, axis=0), 0.5, atol=3.3 * deviation / np.sqrt(worlds))


def test_the_choice_behind_a_rows_score_does_not_depend_on_its_membership():
    signals = planted_signals(3, 300, leak=0.3, seed=6).variants[0]
    shadow, _ = audit_rows(signals)
    member = signals.member[shadow]
    rng = np.random.default_rng(0)
    table = [rng.normal(size=len(member)) for _ in range(8)]
    for seen, scored in split_folds(*shadow):
        flipped = np.where(seen, member, 1 - member)
        same = [choose_out_of_fold(table, truth, shadow).shadow_scores[scored] for truth in (member, flipped)]
        ranks = [np.argsort(scores) for scores in same]
        np.testing.assert_array_equal(*ranks)


def test_scores_of_another_choice_are_brought_to_the_scale_of_the_choice_on_all_rows():
    """Candidate 1 is a thousand times candidate 0's scale and is better in one half of the points alone."""
    rng = np.random.default_rng(1)
    models, points = np.ones(600, dtype=int), np.arange(600)
    member = rng.integers(2, size=600)
    weak, strong = rng.normal(size=600) + 0.1 * member, rng.normal(size=600) + 0.12 * member
    shadow_scores = choose_out_of_fold([weak, 1000 * strong], member, (models, points)).shadow_scores
    deviations = [shadow_scores[points % 3 == third].std() for third in range(3)]
    assert max(deviations) < 1.5 * min(deviations)


def test_few_rows_are_trained_on_for_enough_steps():
    recipe = Recipe(None, epochs=3, batch=256)
    assert with_enough_steps(recipe, 20_000, 40) == recipe
    assert with_enough_steps(recipe, 600, 40).epochs == 14  # three steps an epoch


# The attacker who knows half of the points, and files


@pytest.mark.parametrize("name", [*USUAL, "dsq", "qmia"])
def test_whoever_knows_half_of_the_points_can_run_them_all(name):
    view, truth = half_known_view()
    attack = entry("NR", name)
    assert not attacks.missing(attack, [view])
    result = attack.run([view], seed=7)
    assert roc_auc_score(truth, result.scores) > 0.6
    assert len(result.shadow_scores) == view.audit[1].sum()


def test_qmia_needs_no_reference_and_the_others_do():
    view, truth = half_known_view(references=0)
    assert attacks.missing(entry("NR", "rapid"), [view]) == ["reference model for every audit point"]
    assert roc_auc_score(truth, entry("NR", "qmia").run([view], seed=7).scores) > 0.75


def test_qmia_is_left_out_by_name_where_nobody_says_what_points_look_like(tmp_path, capsys):
    signals, truth = looks_tell_difficulty(points=300)
    file = tmp_path / "model.npz"
    write_signals(file, signals, truth)
    CompLeakNR.main(["--signals", str(file), "--attacks", "qmia,gap", "--out", str(tmp_path / "without")])
    assert "left out qmia: these signals hold no columns, what the points look like" in capsys.readouterr().out
    with np.load(file) as arrays:
        np.savez(file, **arrays, columns=signals.columns)
    table = CompLeakNR.main(["--signals", str(file), "--attacks", "qmia,gap", "--out", str(tmp_path / "with")])
    row = table.set_index("attack").loc["qmia"]
    assert row["needs"] == "1 shadow model; posteriors and labels; what the points look like"
    assert row["auc"] > 0.65


def test_qmia_looks_at_the_pictures_of_a_run(tiny_run, tmp_path):
    command = [*NETWORK, *ATTACK, "--root", str(tiny_run.root), "--run_name", "tiny", "--out", str(tmp_path)]
    table = CompLeakNR.main([*command, "--original", "--attacks", "qmia,gap"])
    assert list(table["attack"][:2]) == ["gap", "qmia"]


def test_seqmia_versions_runs_where_it_is_named(tmp_path):
    world = planted_signals(2, 300, variants=3, seed=1)
    files = [tmp_path / f"version_{number}.npz" for number in range(3)]
    for file, signals in zip(files, world.variants, strict=True):
        write_signals(file, signals, world.truth)
    table = CompLeakMR.main(["--signals", *map(str, files), "--attacks", "seqmia_versions", "--out", str(tmp_path)])
    assert list(table["attack"]) == ["seqmia_versions", "null", "references"]
