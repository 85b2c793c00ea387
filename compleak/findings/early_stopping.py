"""One undefended training at several of its epochs: accuracy against leakage, as in figure 4 of SELENA (2022)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from compleak.findings import outputs
from compleak.findings.defences import (
    PLAIN,
    TRAINED_WITH,
    Audit,
    against_either_attacker,
    paired,
    rows_of_audit,
    spread_over_seeds,
)
from compleak.findings.rows import ALONE, ORIGINAL, STRONGEST, read_table, rows_of_target
from compleak.runs.run import Run
from defenses.early_stopping import EarlyStopping


class Snapshots(NamedTuple):
    rows: pd.DataFrame  # a row for each seed, snapshot and form of attack
    spread: pd.DataFrame  # the same over seeds, in the order of `epochs`


def snapshots(runs: Sequence[Run]) -> Snapshots:
    """What attacks on the original find at each snapshot, by whichever of the two attackers has the larger AUC.

    runs: early-stopped ones against both attackers, and the undefended training, which is the last snapshot. Columns
    beside those of `defences.rows_of_audit` and `spread_over_seeds`: `epochs` after which training ended, and their
    `share` of all epochs. Shares that round to the same epoch are one snapshot, so that a training of fewer than ten
    epochs has fewer.
    """
    planned = outputs.original_meta(runs[-1])["made_from"]["epochs"]
    rows = against_either_attacker(pd.concat([rows_of_audit(Audit(run, (ORIGINAL,))) for run in runs]))
    rows = _with_epochs(rows, planned).drop_duplicates(["seed", "epochs", "form"], keep="last", ignore_index=True)
    return Snapshots(rows, _with_epochs(spread_over_seeds(rows), planned))


def _with_epochs(frame: pd.DataFrame, planned: int) -> pd.DataFrame:
    """With the columns `epochs` and `share`, the shortest training first."""
    shares = frame["argument"].where(frame["defence"] != "", 1.0).astype(float)
    epochs = np.array([EarlyStopping(share, num_cls=0, seed=0).epochs(planned) for share in shares])
    frame = frame.assign(epochs=epochs, share=epochs / planned)
    return frame.iloc[np.argsort(shares.to_numpy(), kind="stable")]


def beside_defences(rows: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Each defence beside the undefended training at the first moment when it is as accurate.

    rows: of `snapshots`; others: of `defences.rows_of_audit`. Only seeds whose undefended run is also the end of the
    training in `rows` are compared. Of two attackers the one with the larger AUC counts. Columns: those of
    `spread_over_seeds`; `stopped_auc`, the mean over seeds; and how much larger the defence's AUC is, paired by seed,
    with interval (`difference`, `low`, `high`). These are NaN for another network than that of the snapshots, and where
    in some seed no snapshot is as accurate or the first is more accurate already. No rows without a common run.
    """
    curve = rows[rows["form"] == STRONGEST]
    defended = _of_originals(others[others["seed"].isin(_common_seeds(curve, others))])
    if defended.empty:
        return pd.DataFrame()
    lines = []
    for group, of_victim in defended.groupby(TRAINED_WITH, sort=False, dropna=False):
        aucs = of_victim.set_index("seed")["auc"]
        stopped = pd.Series([_stopped_auc(curve, row) for _, row in of_victim.iterrows()], of_victim["seed"])
        if stopped.isna().any():
            stopped[:] = np.nan  # the mean over fewer seeds would stand beside the defence's over all
        line = {"stopped_auc": stopped.mean(), **paired(aucs, stopped)}
        lines.append(dict(zip(TRAINED_WITH, group, strict=True)) | line)
    return spread_over_seeds(defended).merge(pd.DataFrame(lines).drop(columns="seeds"), on=TRAINED_WITH)


def read_beside_defences(file: Path) -> pd.DataFrame:
    """What `beside_defences` gave, as a page has written it."""
    return read_table(file, ["recipe"])


def _common_seeds(curve: pd.DataFrame, others: pd.DataFrame) -> list[int]:
    """The seeds whose undefended run both have."""
    runs = [frame.loc[frame["defence"] == "", ["seed", "run"]].drop_duplicates() for frame in (curve, others)]
    return runs[0].merge(runs[1])["seed"].tolist()


def _of_originals(others: pd.DataFrame) -> pd.DataFrame:
    """The strongest attack on the original under each defence but early stopping itself."""
    originals = rows_of_target(others[others["form"] == STRONGEST], *ALONE)
    is_compared = ~originals["defence"].isin(["", "early_stopping"]) & (originals["fine_tuning"] != PLAIN)
    return against_either_attacker(originals[is_compared])


def _stopped_auc(curve: pd.DataFrame, defended: pd.Series) -> float:
    """AUC of the undefended training at the first moment when it is as accurate as a defended model of the same seed.

    Between two snapshots it is interpolated. NaN where there is no such moment between the first and the last.
    """
    training = curve[(curve["seed"] == defended["seed"]) & (curve["network"] == defended["network"])]
    accuracy, auc = training.sort_values("epochs")[["accuracy", "auc"]].to_numpy().T
    reached = np.flatnonzero(accuracy >= defended["accuracy"])
    if not len(reached) or accuracy[0] > defended["accuracy"]:
        return np.nan
    after = reached[0]
    before = max(after - 1, 0)
    return float(np.interp(defended["accuracy"], accuracy[[before, after]], auc[[before, after]]))
