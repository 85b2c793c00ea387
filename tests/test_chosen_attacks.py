"""Attacks that are run where they are asked for, `nn` and `threshold`, and the flag that asks: `--attacks`."""

from functools import lru_cache

import numpy as np
import pytest
from planted import planted_signals, write_signals
from sklearn.metrics import roc_auc_score

import attacks
import CompLeakMR
import CompLeakNR
import CompLeakSR
from attacks import Signals, audit_rows
from attacks.nn import nn, view
from attacks.song2021 import song2021
from attacks.threshold import STATISTICS, statistic, threshold
from attacks.yeom2018 import yeom2018
from compleak.findings.rows import key_of
from compleak.reports.cells import attack_table, few_nonmembers

FEATURES = ("posterior", "top3", "posterior_and_label")
NR = CompLeakNR.main
SR = CompLeakSR.main
MR = CompLeakMR.main


@lru_cache
def world(leak, models=2, points=2000, classes=10):
    return planted_signals(models, points, classes=classes, leak=leak, variants=2, seed=7)


# Thresholds by hand: p of class 0, label, and who is a member of the shadow (points 0 to 3); points 4 to 9 the victim's

P = np.array([0.9, 0.6, 0.3, 0.65, 0.8, 0.95, 0.3, 0.1, 0.9, 0.4])
LABELS = np.array([0, 0, 1, 1, 0, 0, 1, 1, 1, 0])
OWN = np.where(LABELS == 0, P, 1 - P)
MEMBER = np.array([[0] * 4 + [-1] * 6, [1, 0, 1, 0] + [0] * 6], dtype=np.int8)
AUDIT = np.arange(10) < 4
TOY = Signals(
    np.log(np.tile(np.stack([P, 1 - P], axis=-1), (2, 1, 1))).astype(np.float32),
    LABELS,
    MEMBER,
    np.stack([~AUDIT, AUDIT]),
)
OF_LABEL = np.where(LABELS == 0, 0.9, 0.7)[4:]  # confidence of the shadow's only member of the class: its threshold
VICTIM = OWN[4:]


def logit(p):
    return np.log(p / (1 - p))


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("conf", logit(VICTIM) - logit(OF_LABEL)),
        ("xent", np.log(-np.log(OF_LABEL)) - np.log(-np.log(VICTIM))),
        # with two classes equation 8 is -2 (1 - p_y) log p_y
        ("mentr", np.log((1 - OF_LABEL) * -np.log(OF_LABEL)) - np.log((1 - VICTIM) * -np.log(VICTIM))),
    ],
)
def test_statistics_that_use_the_label_accuse_points_at_or_above_the_one_member_of_their_class(name, by_hand):
    scores, decision, *_ = threshold(TOY, classifier=name)
    np.testing.assert_allclose(scores, by_hand, atol=1e-6)
    assert decision.tolist() == [False, True, True, True, False, False]


def test_top1_conf_accuses_confident_points_by_the_threshold_of_their_predicted_class():
    """Predicted 0: member 0.9, others 0.6 and 0.65. Predicted 1: one member and no other, so all four points' 0.7."""
    scores, decision, *_ = threshold(TOY, classifier="top1_conf")
    expected = logit(np.array([0.8, 0.95, 0.7, 0.9, 0.9, 0.6])) - logit(np.array([0.9, 0.9, 0.7, 0.7, 0.9, 0.7]))
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert decision.tolist() == [False, True, True, True, True, False]  # the fifth is sure and wrong


def test_top1_conf_ignores_the_label_and_conf_does_not():
    other = TOY._replace(labels=1 - LABELS)
    same = {
        name: np.array_equal(threshold(TOY, classifier=name).scores, threshold(other, classifier=name).scores)
        for name in STATISTICS
    }
    assert same == {"conf": False, "xent": False, "mentr": False, "top1_conf": True}


def test_xent_decides_as_conf_and_mentr_as_song2021():
    signals = world(1.5).variants[0]
    conf, xent, mentr = (threshold(signals, classifier=name) for name in ("conf", "xent", "mentr"))
    np.testing.assert_array_equal(conf.decision, xent.decision)
    np.testing.assert_array_equal(mentr.decision, song2021(signals).decision)
    assert not np.array_equal(conf.decision, mentr.decision)


@pytest.mark.parametrize("name", STATISTICS)
def test_no_statistic_overflows_or_gives_very_confident_points_the_same_score(name):
    sure = np.array([[z, 0.0, 0.5] for z in (40, 40.5, 150, 150.001, 340)], dtype=np.float32)
    assert (np.diff(statistic(name, sure, np.zeros(5, dtype=int))) > 0).all()  # 1 - p is below 1e-17: p is 1 in float64
    extreme = np.array([[3000.0, 0, -3000.0], [-3000.0, 0, 3000.0]], dtype=np.float32)
    assert np.isfinite(statistic(name, extreme, np.zeros(2, dtype=int))).all()


def test_an_unknown_statistic_or_view_is_refused():
    with pytest.raises(ValueError, match="statistic 'entropy'"):
        threshold(TOY, classifier="entropy")
    with pytest.raises(ValueError, match="features 'top5'"):
        nn(TOY, seed=0, features="top5")


# nn


def test_the_views_are_the_posterior_its_largest_three_and_the_label_beside_it():
    signals = Signals(
        np.log(np.array([[[0.2, 0.5, 0.1, 0.2], [0.7, 0.1, 0.15, 0.05]]], dtype=np.float32)),
        np.array([3, 0]),
        np.zeros((1, 2), dtype=np.int8),
        np.ones((1, 2), dtype=bool),
    )
    rows = (np.zeros(2, dtype=int), np.arange(2))
    p = [[0.2, 0.5, 0.1, 0.2], [0.7, 0.1, 0.15, 0.05]]
    np.testing.assert_allclose(view(signals, rows, "posterior"), p, rtol=1e-6)
    np.testing.assert_allclose(view(signals, rows, "top3"), [[0.5, 0.2, 0.2], [0.7, 0.15, 0.1]], rtol=1e-6)
    labelled = [[*p[0], 0, 0, 0, 1], [*p[1], 1, 0, 0, 0]]
    np.testing.assert_allclose(view(signals, rows, "posterior_and_label"), labelled, rtol=1e-6)


def test_with_two_classes_the_top_three_are_two():
    planted = world(2.0, classes=2)
    signals = planted.variants[0]
    assert view(signals, audit_rows(signals)[1], "top3").shape == (800, 2)
    assert roc_auc_score(planted.truth, nn(signals, seed=1, features="top3").scores) > 0.6


@pytest.mark.parametrize(("features", "auc"), [*zip(FEATURES, (0.70, 0.70, 0.72), strict=True)])
def test_nn_comes_near_the_loss_attack_with_every_view_and_finds_nothing_without_a_leak(features, auc):
    planted = world(2.0, points=5000)
    empty = world(0.0, points=5000)
    best = roc_auc_score(planted.truth, yeom2018(planted.variants[0]).scores)
    auc_of_nn = roc_auc_score(planted.truth, nn(planted.variants[0], seed=1, features=features).scores)
    assert auc < auc_of_nn < best + 0.01
    assert abs(roc_auc_score(empty.truth, nn(empty.variants[0], seed=1, features=features).scores) - 0.5) < 0.05


@pytest.mark.parametrize("features", FEATURES)
def test_the_fast_recipe_of_nn_is_as_good_as_the_papers(features):
    planted = world(2.0, points=1500)
    fast, paper = (
        roc_auc_score(planted.truth, nn(planted.variants[0], seed=1, features=features, recipe=recipe).scores)
        for recipe in ("fast", "paper")
    )
    assert fast > paper - 0.02


# --attacks


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Signals of an original and a compressed model."""
    planted = world(2.0, points=600)
    folder = tmp_path_factory.mktemp("signals")
    for name, signals in zip(("original", "compressed"), planted.variants, strict=True):
        write_signals(folder / f"{name}.npz", signals, planted.truth)
    return [str(folder / f"{name}.npz") for name in ("original", "compressed")]


def keys(table):
    return [key_of(row) for _, row in table.iterrows()]


def nr(files, out, *flags):
    return NR(["--signals", files[0], "--out", str(out), *flags])


LABELS_ALONE = ("label_only_augmentation", "label_only_noise", "boundary")
CONTROLS = ("null", "references")  # of signals files without `columns`
THRESHOLDS = [f"threshold/{name}" for name in STATISTICS]


def test_chosen_attacks_come_in_the_tables_order_and_optional_attacks_only_when_chosen(files, tmp_path):
    table = nr(files, tmp_path, "--attacks", "threshold, nn_cls,gap,nn,nn_top3,samia")
    assert keys(table) == ["samia", "gap", "nn", "nn_top3", "nn_cls", *THRESHOLDS, *CONTROLS]
    assert sorted(np.load(tmp_path / "NR_scores.npz").files) == sorted(keys(table))
    assert table.loc[table["headline"], "attack"].isin(["gap", "threshold"]).tolist() == [True]
    assert not {attack.name for attack in attacks.NR} & {"nn", "nn_top3", "nn_cls", "threshold"}
    assert attacks.KNOWN["NR"][: len(attacks.NR)] == attacks.NR


def test_combined_scores_the_same_alone_as_among_all_attacks(files, tmp_path):
    for main, given, usual in (
        (SR, files, ["SR1", "SR2", "model_updates", *LABELS_ALONE, "joint", "calibrated", "neural", "combined"]),
        (MR, files, ["MR", *LABELS_ALONE, "joint", "calibrated", "neural", "combined"]),
    ):
        every = main(["--signals", *given, "--out", str(tmp_path / "every")])
        alone = main(["--signals", *given, "--out", str(tmp_path / "alone"), "--attacks", "combined"])
        assert list(dict.fromkeys(every["attack"])) == [*usual, *CONTROLS]
        assert keys(alone) == ["combined", *CONTROLS] and alone["headline"].tolist() == [True, False, False]
        assert alone["auc"][0] == every.loc[every["attack"] == "combined", "auc"].item()


@pytest.mark.parametrize(
    ("main", "names", "known"),
    [
        (NR, "samia,nosuch", "combined, nn, nn_top3, nn_cls, threshold"),
        (NR, "", "shokri2017, nasr2018"),
        (NR, "null", "shokri2017, nasr2018"),
        (
            SR,
            "samia",
            "model_updates, label_only_augmentation, label_only_noise, boundary, joint, calibrated, neural, combined",
        ),
        (MR, "SR2", "MR, label_only_augmentation, label_only_noise, boundary, joint, calibrated, neural, combined"),
    ],
)
def test_an_unknown_name_is_refused_in_a_line_that_lists_the_known_and_nothing_is_written(
    main, names, known, files, tmp_path, capsys
):
    given = files[:1] if main is NR else files
    with pytest.raises(SystemExit) as stopped:
        main(["--signals", *given, "--out", str(tmp_path / "out"), "--attacks", names])
    message = capsys.readouterr().err
    assert stopped.value.code == 2 and known in message and len(message.splitlines()) == 1
    assert repr(names.split(",")[-1]) in message
    assert not list(tmp_path.iterdir())


def test_a_table_is_kept_only_for_the_same_attacks_in_whatever_order_they_are_named(files, tmp_path, capsys):
    def done_before(*flags):
        capsys.readouterr()
        nr(files, tmp_path, "--skip_done", *flags)
        return "done before" in capsys.readouterr().out

    every = ["--attacks", ",".join(attack.name for attack in attacks.NR)]
    assert not done_before("--attacks", "gap,nn") and done_before("--attacks", "nn,gap")
    assert not done_before("--attacks", "gap") and not done_before("--attacks", "gap,nn") and not done_before()
    assert done_before(*every)  # nothing else than the usual table


def test_without_an_eligible_attack_there_is_no_headline_and_the_first_row_gives_the_null_control(files, tmp_path):
    table = nr(files, tmp_path, "--attacks", "nn,samia")
    assert keys(table) == ["samia", "nn", *CONTROLS] and not table["headline"].any()
    assert table["auc"][2] == table["null_auc"][0] != table["null_auc"][1]
    scores = np.load(tmp_path / "NR_scores.npz")
    others = np.isfinite(scores["null"])
    np.testing.assert_array_equal(scores["null"][others], scores["samia"][others])
    assert "*" not in attack_table(table)["headline"].tolist()


@pytest.mark.parametrize(("others", "few"), [(4999, True), (5000, False)])
def test_with_few_non_members_tpr_at_1_percent_stands_beside_that_at_a_tenth(files, tmp_path, others, few):
    table = nr(files, tmp_path, "--attacks", "gap").assign(n_nonmember=others)
    assert ("TPR at 1% FPR" in attack_table(table)) == few
    assert few_nonmembers(table) == (
        "TPR at 0.1 % false alarms rests on a few of only 4,999 non-members and reads too high; TPR at 1 % is the one "
        "to compare."
        if few
        else ""
    )


# What an attacker had to have


def test_each_row_says_what_its_attacker_had_to_have(files, tmp_path):
    table = nr(files, tmp_path, "--attacks", "shokri2017,nasr2018,samia,gap,threshold").set_index("attack")
    needs = {name: set(table.loc[[name], "needs"]) for name in table.index}
    assert needs["shokri2017"] == {"1 shadow model; posteriors"}
    assert needs["nasr2018"] == {"1 shadow model; posteriors and labels"}
    assert needs["samia"] == {"1 shadow model; posteriors and labels; posteriors of noisy copies"}
    assert needs["gap"] == {"1 shadow model; predicted and true labels"}
    assert table.loc["threshold"].set_index("classifier").loc["top1_conf", "needs"] == "1 shadow model; posteriors"
    assert needs["null"] == {""}
