"""Many shadows and many seeds, tiny; and what is said of points, of families of models and of runs."""

import numpy as np
import pandas as pd
import pytest
from conftest import KEPT, NETWORK
from scipy.stats import spearmanr

import CompLeakNR
import reproduce
from attacks.joint import joint
from compleak import ablation, engines, exposure, metrics, seeds, verdicts
from core.errors import UserError
from tests.planted import gaussian_signals

ROLES = ("victim_model", "shadow_model_0", "shadow_model_1")


@pytest.fixture(scope="module")
def two_seeds(small_audit, tmp_path_factory):
    """Two runs of victim and two shadows, whose weights are dropped on the way."""
    root = tmp_path_factory.mktemp("seeds")
    reproduce.main(command(root, "--seeds", 1, 2, "--keep", "signals"))
    return root


def command(root, *flags):
    return [*NETWORK, "--run_name", "small", "--root", str(root), "--shadow_num", "2", *map(str, flags)]


def test_every_seed_has_its_run_and_their_folder_says_what_they_share(two_seeds, capsys):
    runs = [pd.read_csv(two_seeds / f"results/small_seed{seed}/summary.csv", keep_default_na=False) for seed in (1, 2)]
    shared = pd.read_csv(two_seeds / "results/small_seeds/summary.csv", keep_default_na=False)
    row = shared[(shared["scenario"] == "NR") & (shared["variant"] == "original") & (shared["attack"] == "rmia")].iloc[
        0
    ]
    own = [t.loc[(t["variant"] == "original") & (t["attack"] == "rmia"), "auc"].iloc[0] for t in runs]
    assert own[0] != own[1] and row["seeds"] == 2
    assert row["auc_mean"] == pytest.approx(np.mean(own)) and row["auc_sd"] == pytest.approx(np.std(own, ddof=1))
    assert {"lira", "bavaria", "joint", "combined"} <= set(shared["attack"])
    text = (two_seeds / "results/small_seeds/summary.md").read_text()
    assert (
        "- defence: none" in text
        and "--seeds 1 2 --keep signals" in text
        and "[seed 2](../small_seed2/summary.md)" in text
    )
    assert (two_seeds / "results/small_seeds/degrees.png").exists()
    claims = pd.read_csv(two_seeds / "results/small_seeds/claims.csv")
    assert set(claims["claim"]) == {"C1", "C2", "C3"} and (claims["seeds"] == 2).all()
    assert not (two_seeds / "results/small").exists()  # a single run's


def test_seeds_with_more_and_less_shadows_are_refused_before_anything_is_done(two_seeds):
    before = {file: file.stat().st_mtime_ns for file in two_seeds.rglob("*.*")}
    with pytest.raises(UserError, match="small_seed1 2, small_seed2 2, small_seed3 1; give --shadow_num 2$"):
        reproduce.main([*command(two_seeds, "--seeds", 1, 2, 3), "--shadow_num", "1"])
    assert before == {file: file.stat().st_mtime_ns for file in two_seeds.rglob("*.*")}


def test_shadow_weights_are_dropped_and_everything_else_goes_on(two_seeds, capsys):
    left = {file.parent.name for file in two_seeds.rglob("model.pt")}
    assert left == {"victim_model"}
    assert not list(two_seeds.rglob("answers.npz"))
    reproduce.main(command(two_seeds, "--seeds", 1, 2, "--keep", "signals"))
    out = capsys.readouterr().out
    assert out.count("done before") == 2 * (3 * (1 + len(KEPT)) + 1 + 2 * len(KEPT) + 1)
    more = [*NETWORK, "--root", str(two_seeds), "--run_name", "small_seed1", "--original", "--sensitivity_draws", "2"]
    with pytest.raises(UserError, match="were dropped to save space"):
        CompLeakNR.main(more)


def test_answers_kept_one_by_one_give_the_same_tables(two_seeds, tmp_path):
    reproduce.main([*command(tmp_path, "--seed", 2), "--run_name", "small_seed2"])
    for name in ("summary", "greedy", "points"):
        tables = [
            pd.read_csv(root / f"results/small_seed2/{name}.csv", keep_default_na=False).drop(
                columns="seconds", errors="ignore"
            )
            for root in (two_seeds, tmp_path)
        ]
        pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_another_shadow_is_asked_and_the_others_are_not_asked_again(two_seeds, tmp_path, monkeypatch):
    from compleak import signals

    asked, ask = [], signals.answers
    monkeypatch.setattr(signals, "answers", lambda run, what, variant, role, *more, **options: asked.append(role)
                        or ask(run, what, variant, role, *more, **options))  # fmt: skip
    flags = [*NETWORK, "--run_name", "small_seed1", "--root", str(two_seeds), "--seed", "1", "--keep", "signals"]
    reproduce.main([*flags, "--shadow_num", "3"])
    assert set(asked) == {"shadow_model_2"}


def test_the_data_are_fetched_by_one_run_at_a_time():
    args = reproduce.parse(["--seeds", "3", "4", "--keep", "signals"])
    plans = {name: reproduce.plan(own) for name, own in reproduce.runs_of(args).items()}
    stages, place = reproduce.together(plans)
    engines.check_order(stages)
    first, second = (f"digits_resnet18_smoke_seed{seed}" for seed in (3, 4))
    needs = {stage.name: stage.needs for stage in stages}
    assert needs[f"{second} data"] == (f"{first} data",) and needs[f"{first} data"] == ()
    assert needs[f"{second} train victim_model"] == (f"{second} data",)
    assert place[f"{second} query shadow_model_0"] == second and len(place) == len(stages)


@pytest.mark.parametrize(
    ("flags", "says"),
    [(["--seeds", "4", "4"], "two or more"), (["--seeds", "1", "2", "--seed", "3"], "not allowed with")],
)
def test_seeds_that_make_no_sense_are_refused(flags, says, capsys):
    with pytest.raises(SystemExit):
        reproduce.parse(flags)
    assert says in capsys.readouterr().err


def test_the_interval_over_seeds_is_students():
    mean, low, high = seeds.t_interval(np.array([1.0, 2.0, 3.0]))
    assert mean == 2 and high - mean == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)  # t of 2 degrees, 97.5 %
    assert mean - low == pytest.approx(high - mean)


def test_what_one_seed_has_no_value_of_is_undefined_over_seeds():
    row = {"scenario": "NR", "variant": "original", "attack": "rmia", "classifier": "", "headline": True}
    tables = [pd.DataFrame([{**row, **dict.fromkeys(seeds.MEASURED, 0.5), "ppv_0.01": ppv}]) for ppv in (0.25, "")]
    spread = seeds.over_seeds(tables).iloc[0]  # "" is how a precision of no accusations is read
    assert spread["seeds"] == 2 and spread["auc_mean"] == 0.5
    assert np.isnan(spread["ppv_0.01_mean"]) and np.isnan(spread["ppv_0.01_sd"])
    found = seeds.form_over_seeds(tables, "NR", "original", "headline")
    assert seeds.plus_minus(found["ppv_0.01"], found["ppv_0.01_sd"]) == "undefined"
    assert seeds.plus_minus(found["auc"], found["auc_sd"]) == "50.0 ± 0.0"


def test_a_claim_is_judged_by_the_spread_over_seeds():
    def claims(*differences):
        row = {"claim": "C3", "form": "headline", "key": "MR - best SR", "low": 0.001, "high": 0.1, "verdict": "holds"}
        return seeds.over_seeds_claims([pd.DataFrame([{**row, "difference": d}]) for d in differences]).iloc[0]

    assert claims(0.02, 0.021, 0.019)[["verdict", "alone"]].tolist() == [verdicts.HOLDS, 3]
    assert claims(0.02, 0.2, 0.001)[["verdict", "alone"]].tolist() == [verdicts.UNDECIDED, 0]


# Points


def test_exposure_is_the_false_positive_rate_at_which_a_point_is_first_accused():
    truth = np.array([True, False, True, False, False])
    found = exposure.false_alarms(np.array([5.0, 4.0, 4.0, 1.0, 0.0]), truth)
    np.testing.assert_allclose(found, [1 / 4, 1 / 3, 2 / 4, 2 / 3, 1])  # of three non-members and a member
    np.testing.assert_array_equal(exposure.false_alarms(np.zeros(5), truth), 1)


def test_agreement_is_the_rank_correlation_of_common_members():
    rng = np.random.default_rng(0)
    tables = []
    for run in range(2):
        exposed = np.arange(200) + rng.normal(scale=60, size=200)
        table = pd.DataFrame({"point": np.arange(200) + 50 * run, "member": 1, "exposure": np.roll(exposed, -50 * run)})
        tables.append(table)
        table.attrs["run"] = f"seed {run}"
    found = exposure.agreement(tables).iloc[0]
    expected = spearmanr(tables[0]["exposure"][50:], tables[1]["exposure"][:150]).statistic
    assert found["members of both"] == 150 and found["correlation"] == pytest.approx(expected)
    assert found["correlation_lo"] < expected < found["correlation_hi"]


# Families of models


def test_greedy_takes_the_strongest_model_first_and_never_needs_the_truth():
    world = gaussian_signals(4, 4000, (0.3, 1.5, 0.6), seed=1)
    views = dict(zip(("weak", "strong", "middle"), world.variants, strict=True))
    steps = ablation.greedy(views, world.truth, seed=0)
    assert steps["added"].iloc[0] == "strong" and steps["models"].tolist() == [1, 2, 3]
    last = metrics.auc(joint([views[name] for name in steps["added"]]).scores, world.truth)
    assert steps["auc"].iloc[-1] == pytest.approx(last)
    shuffled = ablation.greedy(views, np.random.default_rng(0).permutation(world.truth), seed=0)
    assert shuffled["added"].tolist() == steps["added"].tolist()
