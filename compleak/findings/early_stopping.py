"""One undefended training at several of its epochs: accuracy against leakage, as in figure 4 of SELENA (2022)."""

from collections.abc import Sequence

import pandas as pd

from compleak.findings import outputs
from compleak.findings.defences import DEFENCE, Audit, rows_of_audit, spread_over_seeds
from compleak.findings.rows import ALONE, ORIGINAL, STRONGEST, rows_of_target
from compleak.runs.run import Run
from defenses.early_stopping import EarlyStopping


def snapshots(runs: Sequence[Run]) -> pd.DataFrame:
    """A row for each snapshot and form of attack on the original, over seeds, in the order of `epochs`.

    runs: early-stopped ones, and the undefended training, which is the last snapshot. Columns beside those of
    `defences.spread_over_seeds`: `share` of the epochs, and `epochs` after which training ended. Of a training of fewer
    than ten epochs there are fewer snapshots.
    """
    audits = [Audit(run, (ORIGINAL,)) for run in runs]
    rows = pd.concat([rows_of_audit(audit).assign(planned=_planned(audit.run)) for audit in audits])
    planned = int(rows["planned"].iloc[0])
    spread = spread_over_seeds(rows)
    shares = spread["argument"].where(spread["defence"] != "", 1.0).astype(float)
    epochs = [EarlyStopping(share, num_cls=0, seed=0).epochs(planned) for share in shares]
    curve = spread.assign(share=shares, epochs=epochs).sort_values("share", kind="stable")
    return curve.drop_duplicates(["epochs", "form"], keep="last").reset_index(drop=True)


def _planned(run: Run) -> int:
    return outputs.original_meta(run)["made_from"]["epochs"]


def beside_defences(curve: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
    """Each defence against an attacker who knows it, and the least leaking snapshot that is at least as accurate.

    curve: of `snapshots`; others: of `defences.spread_over_seeds`. Columns beside those of `others`: `epochs` and
    `stopped_auc`, both missing where no snapshot is as accurate.
    """
    curve = curve[curve["form"] == STRONGEST]
    own = rows_of_target(others[others["form"] == STRONGEST], *ALONE)
    own = own[(own["attacker"] == "adaptive") & (own["defence"] != "early_stopping")]
    own = own.drop_duplicates([*DEFENCE, "network"])  # an original is the same however its versions are fine-tuned
    lines = []
    for _, row in own.iterrows():
        as_accurate = curve[curve["accuracy_mean"] >= row["accuracy_mean"]]
        line = row.to_dict() | {"epochs": pd.NA, "stopped_auc": float("nan")}
        if len(as_accurate):
            best = as_accurate.loc[as_accurate["auc_mean"].idxmin()]
            line |= {"epochs": int(best["epochs"]), "stopped_auc": best["auc_mean"]}
        lines.append(line)
    return pd.DataFrame(lines)
