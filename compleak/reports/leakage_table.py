"""The first table of a page: what the attacker finds with each model alone, with it and the original, with several."""

from collections.abc import Callable

import pandas as pd

from compleak.findings.rows import CONTESTED


def leakage_table(models: pd.DataFrame, leading: pd.DataFrame, cell: Callable[[pd.Series, str], str]) -> pd.DataFrame:
    """A line for each variant with NR and SR, then a line for each family of models with MR.

    models: cells about each variant, which is the index; leading: a row for each target and form.
    cell(row, measure): a measurement of a row as it is shown.
    """
    lines = []
    for variant, facts in models.iterrows():
        of_variant = leading[(leading["variant"] == variant) & leading["scenario"].isin(["NR", "SR"])]
        lines.append({"variant": variant, **facts, **_cells(of_variant, cell)})
    for family, of_family in leading[leading["scenario"] == "MR"].groupby("variant", sort=False):
        lines.append({"variant": f"{family} (MR)", **_cells(of_family, cell)})
    return pd.DataFrame(lines).fillna("")


def _cells(rows: pd.DataFrame, cell: Callable[[pd.Series, str], str]) -> dict[str, str]:
    cells = {}
    for _, row in rows.iterrows():
        column = "NR" if row["scenario"] == "NR" else "SR/MR"
        for key, title in CONTESTED.items():
            cells[f"{column} {row['form']} {title}"] = cell(row, key)
    return cells
