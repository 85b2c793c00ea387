"""One page over runs of several data sets and networks: how the claims fall, from the tables that runs leave."""

import json

import pandas as pd
import pytest

import reproduce
from compleak.runs.settings import UNDEFENDED
from core.errors import UserError

CONFIG = {"data_dir": None, "data": "f", "images": 9, "num_cls": 2, "width": 0.5, "max_points": None, "split": "s"}
CONFIG |= {"label_noise": 0.0, "shadow_num": 1, **UNDEFENDED.as_config()}
COMPARISONS = {  # (claim, key) -> difference, of which 0.01 each way is the interval
    ("C1", "pruning_0.9 - original"): -0.3,
    ("C1", "quantization_int8 - original"): -0.05,
    ("C2", "SR clustering_4 - best NR"): 0.005,
    ("C3", "MR - best SR"): 0.04,
}
VERDICTS = ["holds", "does not hold", "undecided", "holds"]


def write_run(folder, data, network, seed, shift=0.0, **further):
    """The four files of a finished run whose differences are those above, moved by `shift`."""
    folder.mkdir(parents=True)
    config = {**CONFIG, "dataset_name": data, "model_name": network, "seed": seed}
    config |= {"tokenizer": f"of seed {seed}", "features": 1000 + seed}  # of texts: the pool's, so each seed's own
    config |= further
    (folder / "run.json").write_text(json.dumps(config))
    lines = [
        {"claim": claim, "form": form, "key": key, "difference": d + shift, "low": d - 0.01, "high": d + 0.01}
        for form in ("published", "without references", "headline")
        for (claim, key), d in COMPARISONS.items()
    ]
    pd.DataFrame(lines).assign(verdict=VERDICTS * 3, what="x").to_csv(folder / "claims.csv", index=False)
    models = {"variant": "original", "role": "victim_model", "train_accuracy": 1.0, "test_accuracy": 0.5 + shift}
    pd.DataFrame([models]).to_csv(folder / "models.csv", index=False)
    points = {"n_member": 50, "n_nonmember": 50}
    rows = [
        {"scenario": "NR", "variant": "original", "attack": "joint", "auc": 0.9 + shift, "headline": True},
        {"scenario": "MR", "variant": "all", "attack": "joint", "auc": 0.95, "headline": True},
        {"scenario": "NR", "variant": "original", "attack": "null", "auc": 0.51, "auc_lo": 0.4, "auc_hi": 0.6},
    ]
    pd.DataFrame([{**points, **row} for row in rows]).fillna({"headline": False}).to_csv(
        folder / "summary.csv", index=False
    )
    (folder / "summary.md").write_text("page")


def test_the_page_joins_seeds_tells_settings_apart_and_lies_beside_the_runs(tmp_path, capsys):
    write_run(tmp_path / "a_seed1", "letters", "mlp", seed=1)
    write_run(tmp_path / "b1", "digits", "vgg16_bn", seed=1)
    write_run(tmp_path / "a_seed2", "letters", "mlp", seed=2, shift=0.02)
    reproduce.main(["--compare", *(str(tmp_path / name) for name in ("a_seed1", "b1", "a_seed2"))])
    folder = tmp_path / "comparison"
    assert (folder / "across.png").stat().st_size > 10_000
    page = (folder / "summary.md").read_text()
    assert page in capsys.readouterr().out
    verdicts = ["does not hold (1 of 2 hold, 1 fails)", "undecided (0 of 1 hold)", "holds (1 of 1 hold)"]
    line = " | ".join(verdict for verdict in verdicts for _ in range(3))
    assert f"| digits | vgg16_bn at width 0.5 | {line} |" in page
    links = "[1](../a_seed1/summary.md) [2](../a_seed2/summary.md)"
    assert f"| letters | mlp at width 0.5 | 50 | 1 | {links} | 100.0 | 51.0 " in page
    assert "| 91.0 | 95.0 | 2 of 2, passed |" in page
    claims = pd.read_csv(folder / "claims.csv")
    letters = claims[(claims["data"] == "letters") & (claims["form"] == "headline")]
    half = 12.706204736 * 0.01  # of Student's t with one degree of freedom, times the standard error of two values
    assert letters["difference"].tolist() == pytest.approx([-0.29, -0.04, 0.015, 0.05])
    assert letters["high"].tolist() == pytest.approx([d + half for d in (-0.29, -0.04, 0.015, 0.05)])
    digits = claims[(claims["data"] == "digits") & (claims["form"] == "headline")]
    assert digits["verdict"].tolist() == VERDICTS and digits["low"].iloc[0] == pytest.approx(-0.31)


def test_the_headline_stands_beside_the_one_published_attack_that_does_best_on_all_models(tmp_path):
    for seed, lead in ((1, 0.03), (2, 0.01)):
        write_run(tmp_path / f"a_seed{seed}", "letters", "mlp", seed=seed)
        # rmia is the best on neither model, and the best on average; base is better and was not run on all of them
        published = {"rmia": (0.8, 0.7), "yeom2018": (0.81, 0.6), "lira": (0.6, 0.75), "base": (0.99, None)}
        rows = [
            {"variant": variant, "attack": name, "auc": aucs[place], "headline": False}
            for name, aucs in published.items()
            for place, variant in enumerate(("original", "pruning_0.6"))
            if aucs[place] is not None
        ]
        rows += [
            {"variant": variant, "attack": "joint", "auc": auc + lead, "headline": True}
            for variant, auc in (("original", 0.8), ("pruning_0.6", 0.7))
        ]
        rows.append({"variant": "original", "attack": "null", "auc": 0.5, "auc_lo": 0.4, "auc_hi": 0.6})
        table = pd.DataFrame(rows).fillna({"headline": False})
        table.assign(scenario="NR", classifier="", n_member=50, n_nonmember=50).to_csv(
            tmp_path / f"a_seed{seed}/summary.csv", index=False
        )
    reproduce.main(["--compare", str(tmp_path / "a_seed1"), str(tmp_path / "a_seed2")])
    row = pd.read_csv(tmp_path / "comparison/strength.csv").iloc[0]
    assert row["attack"] == "rmia" and row[["published", "headline", "lead"]].tolist() == pytest.approx(
        [0.75, 0.77, 0.02]
    )
    assert row["lead_hi"] == pytest.approx(0.02 + 12.706204736 * 0.01)
    page = (tmp_path / "comparison/summary.md").read_text()
    assert "| letters | mlp at width 0.5 | rmia | 75.0 | 77.0 | 2.0 [-10.7, 14.7] |" in page


def test_settings_of_one_data_set_and_network_are_named_after_their_folders_without_the_seed(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / f"small_seed{seed}", "letters", "mlp", seed=seed, max_points=50)
    write_run(tmp_path / "large", "letters", "mlp", seed=1, max_points=500)
    reproduce.main(["--compare", *(str(tmp_path / name) for name in ("small_seed1", "small_seed2", "large"))])
    claims = pd.read_csv(tmp_path / "comparison/claims.csv")
    assert claims["network"].unique().tolist() == ["small", "large"]


def test_runs_of_other_names_are_other_settings_since_run_json_does_not_say_how_models_were_trained(tmp_path):
    folders = [tmp_path / "a/run", tmp_path / "b/run", tmp_path / "run_half_seed2"]
    for folder, further in zip(folders, ({"max_points": 50}, {"max_points": 500}, {"max_points": 50}), strict=True):
        write_run(folder, "letters", "mlp", seed=2 if "half" in folder.name else 1, **further)
    reproduce.main(["--compare", *map(str, folders)])
    claims = pd.read_csv(tmp_path / "a/comparison/claims.csv")
    assert claims["network"].unique().tolist() == [*map(str, folders[:2]), "run_half"]


def test_a_folder_without_a_finished_run_and_a_run_that_is_given_twice_are_refused(tmp_path):
    write_run(tmp_path / "a", "letters", "mlp", seed=1)
    write_run(tmp_path / "b/a", "letters", "mlp", seed=1)
    with pytest.raises(UserError, match="a and .*b/a are runs of the same settings and seed"):
        reproduce.main(["--compare", str(tmp_path / "a"), str(tmp_path / "b/a")])
    (tmp_path / "b/a/claims.csv").unlink()
    with pytest.raises(UserError, match="a is no folder of a finished run: it has no claims.csv"):
        reproduce.main(["--compare", str(tmp_path / "b/a")])
    assert not (tmp_path / "comparison").exists()
