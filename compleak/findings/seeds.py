"""What runs that differ in nothing but their seed have in common: split, training, compression and attack repeated."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t

from compleak.audits import metrics
from compleak.audits.intervals import CONFIDENCE
from compleak.findings.claims import judge
from compleak.findings.exposure import agreement, found_again, records_over_seeds
from compleak.findings.outputs import read_table
from compleak.findings.rows import (
    CONTESTED,
    LEADING_FORMS,
    TARGET,
    attack_rows,
    rows_of_target,
    scenario_row,
    strength_table,
)
from compleak.runs.run import Run

ROW = ["scenario", "variant", "attack", "classifier"]
MEASURED = ("acc", "auc", metrics.TPR, "strict_tpr", "strict_fpr", *(f"ppv_{prior}" for prior in metrics.PRIORS))
STATISTICS = {"": "mean", "_lo": "min", "_hi": "max", "_sd": "std"}


class SeedsFindings(NamedTuple):
    tables: list[pd.DataFrame]  # each run's attack table
    models: pd.DataFrame  # all runs' model tables under each other
    spread: pd.DataFrame  # `spread_over_seeds`
    leading: pd.DataFrame  # `leading_over_seeds`
    claims: pd.DataFrame  # `claims_over_seeds`
    strength: pd.DataFrame  # `strength_over_seeds`
    agreement: pd.DataFrame  # `exposure.agreement`
    records: pd.DataFrame  # `exposure.records_over_seeds`
    found_again: pd.DataFrame  # `exposure.found_again`
    null_means: list[float]  # each run's mean AUC of all its attacks on non-members alone


def findings_of_seeds(seed_runs: Sequence[Run]) -> SeedsFindings:
    """Work everything out from the tables that each run's own summary has written."""
    tables = [read_table(run.dir / "summary.csv") for run in seed_runs]
    points = {f"seed {run.config['seed']}": pd.read_csv(run.dir / "points.csv") for run in seed_runs}
    return SeedsFindings(
        tables=tables,
        models=pd.concat([read_table(run.dir / "models.csv") for run in seed_runs]),
        spread=spread_over_seeds(tables),
        leading=leading_over_seeds(tables),
        claims=claims_over_seeds([pd.read_csv(run.dir / "claims.csv") for run in seed_runs]),
        strength=strength_over_seeds(tables),
        agreement=agreement(points),
        records=records_over_seeds(points),
        found_again=found_again(points),
        null_means=[float(pd.to_numeric(attack_rows(table)["null_auc"]).mean()) for table in tables],
    )


def spread_over_seeds(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean and standard deviation (n - 1) of every attack's measurements, and how many seeds have the attack.

    A measurement that one seed lacks, as the precision of an attack that accuses nobody, is undefined over seeds.
    `headline` counts the seeds in which the shadow models chose the attack.
    """
    joined = pd.concat([attack_rows(table) for table in tables], ignore_index=True)
    numbers = joined[ROW].join(joined[list(MEASURED)].apply(pd.to_numeric))
    grouped = numbers.groupby(ROW, sort=False)
    columns = {"seeds": grouped.size()}
    for key in MEASURED:
        columns[f"{key}_mean"] = grouped[key].agg(lambda values: values.mean(skipna=False))
        columns[f"{key}_sd"] = grouped[key].agg(lambda values: values.std(skipna=False))
    columns["headline"] = joined.groupby(ROW, sort=False)["headline"].sum()
    return pd.DataFrame(columns).reset_index()


def leading_over_seeds(tables: Sequence[pd.DataFrame], forms: Sequence[str] = LEADING_FORMS) -> pd.DataFrame:
    """A row for each target and form that every run has: scenario, variant, form, and MEASURED with _lo, _hi and _sd.

    Each run contributes its own strongest attack of the form; _lo and _hi are the lowest and the highest over runs.
    """
    lines = []
    for target in tables[0][TARGET].drop_duplicates().itertuples(index=False, name=None):
        for form in forms:
            rows = [scenario_row(table, *target, form) for table in tables]
            if all(row is not None for row in rows):
                lines.append({**dict(zip(TARGET, target, strict=True)), "form": form, **_statistics(rows)})
    measured = [key + end for key in MEASURED for end in STATISTICS]
    return pd.DataFrame(lines, columns=[*TARGET, "form", *measured])


def _statistics(rows: Sequence[pd.Series]) -> dict[str, float]:
    columns = {}
    for key in MEASURED:
        values = pd.to_numeric(pd.Series([row[key] for row in rows]))
        columns |= {key + end: values.agg(statistic, skipna=False) for end, statistic in STATISTICS.items()}
    return columns


def leading_row(leading: pd.DataFrame, scenario: str, variant: str, form: str) -> pd.Series | None:
    """One row of `leading_over_seeds`; None where there is none."""
    rows = rows_of_target(leading, scenario, variant)
    rows = rows[rows["form"] == form]
    return rows.iloc[0] if len(rows) else None


def claims_over_seeds(claims: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The mean difference of every comparison that all runs have, with a 95 % interval over seeds (Student's t).

    `verdict` is judged by that interval. `alone` counts the seeds whose own paired interval, over audit points, gives
    the same verdict.
    """
    rows = []
    for (claim, form, key), own in pd.concat(claims).groupby(["claim", "form", "key"], sort=False):
        if len(own) < len(claims):
            continue
        mean, low, high = t_interval(own["difference"].to_numpy())
        verdict = judge(key, low, high)
        row = {"claim": claim, "form": form, "key": key, "difference": mean, "low": low, "high": high}
        rows.append({**row, "verdict": verdict, "alone": int((own["verdict"] == verdict).sum()), "seeds": len(own)})
    columns = ["claim", "form", "key", "difference", "low", "high", "verdict", "alone", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def strength_over_seeds(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Headline minus the strongest published attack by the same measure: mean over seeds with Student's t interval.

    A row for each target that all runs have; columns `<measure>`, `<measure>_lo` and `<measure>_hi`.
    """
    strengths = pd.concat([strength_table(table) for table in tables], ignore_index=True)
    lines = []
    for target, own in strengths.groupby(TARGET, sort=False):
        if len(own) < len(tables):
            continue
        line = dict(zip(TARGET, target, strict=True))
        for key in CONTESTED:
            gaps = own[f"{key}_headline"] - own[f"{key}_published"]
            line |= metrics.interval_columns({key: t_interval(gaps.to_numpy())})
        lines.append(line)
    return pd.DataFrame(lines)


def t_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and the 95 % interval of its expectation, from few independent values (n,), n >= 2."""
    half = t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mean = float(values.mean())
    return mean, float(values.mean() - half), float(values.mean() + half)
