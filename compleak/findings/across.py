"""The paper's claims across data sets and networks, from the tables of finished runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from compleak.findings.claims import overview
from compleak.findings.controls import check_controls, control_rows, count_at_chance
from compleak.findings.outputs import read_table, victim_models
from compleak.findings.rows import (
    ALONE,
    ORIGINAL,
    TOGETHER,
    headline_rows,
    key_of,
    on_most_points,
    published_rows,
    scenario_row,
)
from compleak.findings.seeds import claims_over_seeds, t_interval
from compleak.runs.run import read_config
from core.errors import UserError

FILES = ("run.json", "claims.csv", "models.csv", "summary.csv")  # that a finished run has, and that are published
COLUMNS = ["claim", "form", "key", "difference", "low", "high", "verdict"]  # of a run's comparisons
MAY_DIFFER = ("seed", "split", "data_dir", "tokenizer", "features")  # between runs of one setting
TARGETS = {"NR": ALONE, "MR": TOGETHER}  # whose headlines stand beside the claims


class FinishedRun(NamedTuple):
    """One run's tables."""

    folder: Path
    config: dict
    claims: pd.DataFrame
    models: pd.DataFrame
    attacks: pd.DataFrame

    @property
    def setting(self) -> dict:
        """What runs of different seeds have in common.

        run.json does not say how models were trained and compressed. So the name of the folder without the seed, which
        a preset is part of, counts as well.
        """
        config = {key: value for key, value in self.config.items() if key not in MAY_DIFFER}
        return {**config, "folder": folder_of_seeds(self)}


class AcrossFindings(NamedTuple):
    """Frames that name a setting in their columns `data` and `network`, in the order in which runs were given."""

    folders: list[list[Path]]  # of each setting, one folder for each seed
    settings: pd.DataFrame  # a row a setting: seeds, shadow models, points, accuracies, AUCs and controls
    claims: pd.DataFrame  # every comparison: claim, form, key, difference, low, high, verdict
    verdicts: pd.DataFrame  # `claims.overview` of each setting
    strength: pd.DataFrame  # `strength_of` each setting


def findings_across(folders: Sequence[Path]) -> AcrossFindings:
    """Read the runs and join those of one setting.

    Raises UserError where a folder holds no finished run, or two hold the same one.
    """
    settings = group_by_setting([read_run(folder) for folder in folders])
    names = names_of([runs[0] for runs in settings])
    comparisons = [claims_of(runs) for runs in settings]
    return AcrossFindings(
        folders=[[run.folder for run in runs] for runs in settings],
        settings=pd.DataFrame([{**name, **facts_of(runs)} for name, runs in zip(names, settings, strict=True)]),
        claims=joined(names, comparisons),
        verdicts=joined(names, [overview(claims) for claims in comparisons]),
        strength=joined(names, [strength_of(runs) for runs in settings]),
    )


def read_run(folder: Path) -> FinishedRun:
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f"{folder} is no folder of a finished run: it has no {name}")
    tables = [read_table(folder / name) for name in FILES[1:]]
    if lacks := set(COLUMNS) - set(tables[0].columns):
        raise UserError(
            f"{folder / FILES[1]} was written by an earlier version and lacks {', '.join(sorted(lacks))}: give the "
            "run's command again, which writes it anew"
        )
    return FinishedRun(folder, read_config(folder / FILES[0]), *tables)


def group_by_setting(runs: Sequence[FinishedRun]) -> list[list[FinishedRun]]:
    """The runs of each setting. UserError where a seed is there twice."""
    groups: list[list[FinishedRun]] = []
    for run in runs:
        group = next((group for group in groups if group[0].setting == run.setting), None)
        if group is None:
            groups.append([run])
            continue
        twin = next((other for other in group if other.config["seed"] == run.config["seed"]), None)
        if twin is not None:
            raise UserError(f"{twin.folder} and {run.folder} are runs of the same settings and seed: leave one out")
        group.append(run)
    return groups


def names_of(runs: Sequence[FinishedRun]) -> list[dict[str, str]]:
    """Data set and network of each in words; those that have both in common are told apart by their folders.

    Where these have the same name too, the whole path stands there.
    """
    names = [
        {"data": run.config["dataset_name"], "network": f"{run.config['model_name']} at width {run.config['width']:g}"}
        for run in runs
    ]
    for distinguish in (folder_of_seeds, lambda run: str(run.folder)):
        are_alone = [names.count(name) == 1 for name in names]
        parts = zip(names, are_alone, runs, strict=True)
        names = [name if alone else {**name, "network": distinguish(run)} for name, alone, run in parts]
    return names


def folder_of_seeds(run: FinishedRun) -> str:
    """The name of the run's folder without its seed."""
    return run.folder.name.removesuffix(f"_seed{run.config['seed']}")


def joined(names: Sequence[dict[str, str]], frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The settings' frames under each other, with the names of each setting in front."""
    parts = []
    for name, frame in zip(names, frames, strict=True):
        columns = pd.DataFrame([name] * len(frame), index=frame.index)
        parts.append(columns.join(frame))
    return pd.concat(parts, ignore_index=True)


def claims_of(runs: Sequence[FinishedRun]) -> pd.DataFrame:
    """The comparisons of one setting: of its one run as they are, of several with intervals over seeds."""
    return (runs[0].claims if len(runs) == 1 else claims_over_seeds([run.claims for run in runs]))[COLUMNS]


def facts_of(runs: Sequence[FinishedRun]) -> dict:
    """What a setting's row says beside the claims; means over its seeds, and the controls of all of them together."""
    first = runs[0]
    victims = pd.concat([victim_models(run.models) for run in runs])
    originals = victims[victims["variant"] == ORIGINAL]
    controls = pd.concat([control_rows(run.attacks) for run in runs])
    return {
        "seeds": len(runs),
        "shadows": first.config["shadow_num"],
        "members": int(first.attacks["n_member"].max()),
        "train_accuracy": originals["train_accuracy"].mean(),
        "test_accuracy": originals["test_accuracy"].mean(),
        **{f"{name}_auc": headline_auc(runs, *target) for name, target in TARGETS.items()},
        "controls": len(controls),
        "controls_at_chance": count_at_chance(controls),
        "controls_passed": check_controls(controls).passed,
    }


def strength_of(runs: Sequence[FinishedRun]) -> pd.DataFrame:
    """Headline beside the published attack with the best mean AUC over a setting's models and runs: one row, or none.

    Means of AUC over the targets of NR and over runs: `headline`, and `published` of the attack named `attack`. `lead`
    is their difference, with an interval over runs, lead_lo and lead_hi, where there are several. The attack is the
    same for all targets and runs, but picked with hindsight. No row unless every target has a headline and
    some published attack ran on all of them.
    """
    tables = [on_most_points(run.attacks[run.attacks["scenario"] == "NR"]) for run in runs]
    means = pd.DataFrame([mean_by_attack(published_rows(table)) for table in tables]).dropna(axis=1)
    has_headlines = all(len(headline_rows(table)) == table["variant"].nunique() for table in tables)
    if not has_headlines or means.empty:
        return pd.DataFrame()
    headlines = np.array([headline_rows(table)["auc"].mean() for table in tables])
    best = means.mean().idxmax()
    leads = headlines - means[best].to_numpy()
    lead, low, high = t_interval(leads) if len(runs) > 1 else (leads[0], np.nan, np.nan)
    row = {"attack": best, "published": means[best].mean(), "headline": headlines.mean()}
    return pd.DataFrame([row | {"lead": lead, "lead_lo": low, "lead_hi": high}])


def mean_by_attack(table: pd.DataFrame) -> pd.Series:
    """The mean AUC over targets of each attack that ran on all of them, by its key."""
    of_attacks = table.assign(key=[key_of(row) for _, row in table.iterrows()]).groupby("key", sort=False)["auc"]
    return of_attacks.mean()[of_attacks.size() == table["variant"].nunique()]


def headline_auc(runs: Sequence[FinishedRun], scenario: str, variant: str) -> float:
    """The mean AUC of the headline on one target; NaN where a run has none."""
    rows = [scenario_row(run.attacks, scenario, variant, "headline") for run in runs]
    return pd.Series([float("nan") if row is None else float(row["auc"]) for row in rows]).mean(skipna=False)
