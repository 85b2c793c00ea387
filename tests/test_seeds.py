"""Many shadow models and many seeds, tiny, as `reproduce.py` runs them."""

import numpy as np
import pandas as pd
import pytest
from conftest import NETWORK, THREE_VARIANTS

import CompLeakNR
import reproduce
from core.errors import UserError

pytestmark = pytest.mark.slow

ROLES = ("victim_model", "shadow_model_0", "shadow_model_1")


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    """Two runs of victim and two shadows, whose weights are dropped on the way."""
    root = tmp_path_factory.mktemp("seeds")
    reproduce.main(command(root, "--seeds", 1, 2, "--keep", "signals"))
    return root


def command(root, *flags):
    run = [*NETWORK, "--run_name", "small", "--root", str(root), "--preset", "tiny", "--variants", *THREE_VARIANTS]
    return [*run, "--shadow_num", "2", *map(str, flags)]


def test_every_seed_has_its_run_and_the_folder_of_all_seeds_has_their_means(two_seeds, capsys):
    runs = [pd.read_csv(two_seeds / f"results/small_seed{seed}/summary.csv", keep_default_na=False) for seed in (1, 2)]
    shared = pd.read_csv(two_seeds / "results/small_seeds/summary.csv", keep_default_na=False)
    row = shared[(shared["scenario"] == "NR") & (shared["variant"] == "original") & (shared["attack"] == "rmia")].iloc[
        0
    ]
    aucs = [t.loc[(t["variant"] == "original") & (t["attack"] == "rmia"), "auc"].iloc[0] for t in runs]
    assert aucs[0] != aucs[1] and row["seeds"] == 2
    assert row["auc_mean"] == pytest.approx(np.mean(aucs)) and row["auc_sd"] == pytest.approx(np.std(aucs, ddof=1))
    assert {"lira", "bavaria", "joint", "combined"} <= set(shared["attack"])
    text = (two_seeds / "results/small_seeds/summary.md").read_text()
    assert "- defence: none" in text and "[seed 2](../small_seed2/summary.md)" in text
    assert "--seeds 1 2 " in text and "--keep signals" in text
    assert (two_seeds / "results/small_seeds/degrees.png").exists()
    claims = pd.read_csv(two_seeds / "results/small_seeds/claims.csv")
    assert set(claims["claim"]) == {"C1", "C2", "C3"} and (claims["seeds"] == 2).all()
    assert not (two_seeds / "results/small").exists()  # a single run's


def test_seeds_with_different_numbers_of_shadow_models_are_refused_before_anything_is_done(two_seeds):
    before = {file: file.stat().st_mtime_ns for file in two_seeds.rglob("*.*")}
    with pytest.raises(UserError, match="small_seed1 2, small_seed2 2, small_seed3 1; give --shadow_num 2$"):
        reproduce.main([*command(two_seeds, "--seeds", 1, 2, 3), "--shadow_num", "1"])
    assert before == {file: file.stat().st_mtime_ns for file in two_seeds.rglob("*.*")}


def test_after_the_shadow_weights_are_deleted_finished_stages_still_count_as_done(two_seeds, capsys):
    left = {file.parent.name for file in two_seeds.rglob("model.pt")}
    assert left == {"victim_model"}
    assert not list(two_seeds.rglob("answers.npz"))
    reproduce.main(command(two_seeds, "--seeds", 1, 2, "--keep", "signals"))
    out = capsys.readouterr().out
    assert out.count("done before") == 2 * (3 * (1 + len(THREE_VARIANTS)) + 1 + 2 * len(THREE_VARIANTS) + 1)
    more = [*NETWORK, "--root", str(two_seeds), "--run_name", "small_seed1", "--original", "--sensitivity_draws", "2"]
    with pytest.raises(UserError, match="were dropped to save space"):
        CompLeakNR.main(more)


def test_deleting_shadow_weights_as_one_goes_gives_the_same_tables(two_seeds, tmp_path):
    reproduce.main([*command(tmp_path, "--seed", 2), "--run_name", "small_seed2"])
    for name in ("summary", "greedy", "points"):
        tables = [
            pd.read_csv(root / f"results/small_seed2/{name}.csv", keep_default_na=False).drop(
                columns="seconds", errors="ignore"
            )
            for root in (two_seeds, tmp_path)
        ]
        pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_adding_a_shadow_model_queries_only_that_model(two_seeds, monkeypatch):
    from compleak.queries import answers

    asked = []
    ask_model = answers.ask_model

    def note_and_ask(question, *machine):
        asked.append(question.role)
        return ask_model(question, *machine)

    monkeypatch.setattr(answers, "ask_model", note_and_ask)
    more = [*command(two_seeds, "--seed", 1, "--keep", "signals"), "--run_name", "small_seed1", "--shadow_num", "3"]
    reproduce.main(more)
    assert set(asked) == {"shadow_model_2"}
