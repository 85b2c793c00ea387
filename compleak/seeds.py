"""What runs that differ in nothing but their seed have in common: split, training, compression and attack repeated."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t

from compleak import metrics, paths, report, runs, summary, verdicts
from compleak.exposure import agreement
from core.files import write_atomically

ROW = ["scenario", "variant", "attack", "classifier"]
MEASURED = ("acc", "auc", metrics.TPR, "strict_tpr", "strict_fpr", *(f"ppv_{prior}" for prior in metrics.PRIORS))


def summarise_seeds(made: Sequence[runs.Run], folder: Path, command: str) -> str:
    """Write tables and a figure over all runs into `folder`, whose summaries exist; returns what `summary.md` holds."""
    tables = {run.name: pd.read_csv(run.dir / "summary.csv", keep_default_na=False) for run in made}
    models = pd.concat([pd.read_csv(run.dir / "models.csv", keep_default_na=False) for run in made])
    claims = over_seeds_claims([pd.read_csv(run.dir / "claims.csv") for run in made])
    spread = over_seeds(list(tables.values()))
    exposure = [pd.read_csv(run.dir / "points.csv") for run in made]
    for run, table in zip(made, exposure, strict=True):
        table.attrs["run"] = f"seed {run.config['seed']}"
    agreed = agreement(exposure)

    def pick(scenario: str, variant: str, form: str) -> pd.Series | None:
        return form_over_seeds(list(tables.values()), scenario, variant, form)

    title = f"{folder.name}: mean over {len(made)} seeds, bars from the lowest to the highest"
    figure = report.degrees_figure(pick, summary.VARIANTS, title)
    text = markdown(folder.name, made, models, pick, claims, agreed, list(tables.values()), command)
    for name, frame in {"summary": spread, "claims": claims, "agreement": agreed}.items():
        write_atomically(folder / f"{name}.csv", lambda part, frame=frame: frame.to_csv(part, index=False))
    report.save(figure, folder / "degrees.png")
    write_atomically(folder / "summary.md", lambda part: part.write_text(text))
    return text


def over_seeds(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean and standard deviation (n - 1) of every row's measurements, and how many seeds have the row.

    What one seed has no value of, as the precision of an attack that accuses nobody, is undefined over seeds.
    """
    joined = pd.concat([report.attack_rows(table) for table in tables], ignore_index=True)
    numbers = joined[ROW].join(joined[list(MEASURED)].apply(pd.to_numeric))
    grouped = numbers.groupby(ROW, sort=False)
    columns = {"seeds": grouped.size()}
    for key in MEASURED:
        columns[f"{key}_mean"] = grouped[key].agg(lambda values: values.mean(skipna=False))
        columns[f"{key}_sd"] = grouped[key].agg(lambda values: values.std(skipna=False))
    columns["headline"] = joined.groupby(ROW, sort=False)["headline"].sum()  # in how many seeds it was chosen
    return pd.DataFrame(columns).reset_index()


def form_over_seeds(tables: Sequence[pd.DataFrame], scenario: str, variant: str, form: str) -> pd.Series | None:
    """Mean, extremes (_lo, _hi) and deviation (_sd) of a scenario's strongest published attack, or of its headline."""
    rows = [report.scenario_row(table, scenario, variant, form) for table in tables]
    if any(row is None for row in rows):
        return None
    found = {}
    for key in MEASURED:
        values = pd.to_numeric(pd.Series([row[key] for row in rows]))
        for end, of in {"": "mean", "_lo": "min", "_hi": "max", "_sd": "std"}.items():
            found[key + end] = values.agg(of, skipna=False)
    return pd.Series(found)


def over_seeds_claims(claims: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Every comparison's mean difference with a 95 % interval over seeds (Student's t), and what it says of its claim.

    `alone` counts the seeds whose own paired interval, over audit points, gives the same verdict.
    """
    rows = []
    for (claim, form, key), own in pd.concat(claims).groupby(["claim", "form", "key"], sort=False):
        mean, low, high = t_interval(own["difference"].to_numpy())
        verdict = verdicts.judge(key, low, high)
        row = {"claim": claim, "form": form, "key": key, "difference": mean, "low": low, "high": high}
        rows.append({**row, "verdict": verdict, "alone": int((own["verdict"] == verdict).sum()), "seeds": len(own)})
    return pd.DataFrame(rows)


def t_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and the 95 % interval of its expectation, from few independent values (n,), n >= 2."""
    half = t.ppf((1 + metrics.CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def plus_minus(mean: float, deviation: float) -> str:
    return "undefined" if np.isnan(mean) else f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def headline(models: pd.DataFrame, pick) -> pd.DataFrame:
    """One line a variant, mean ± standard deviation over seeds in percent; then MR."""
    victim = models[models["role"] == paths.VICTIM].groupby("variant", sort=False)
    accuracy, size = victim["test_accuracy"].agg(["mean", "std"]), victim["bytes"].mean()
    said = pd.DataFrame({"accuracy": [plus_minus(*row) for row in accuracy.to_numpy()]}, accuracy.index)
    said["MB"] = [f"{value / 1e6:.2f}" for value in size]
    return summary.headline(said, ["all"], pick, lambda row, key: plus_minus(row[key], row[f"{key}_sd"]))


def strength(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Headline minus the strongest published attack by the same measure, per seed: mean with a t-interval."""
    gaps, lines = {}, []
    for table in tables:
        for target, own, published in summary.contests(table):
            gaps.setdefault(target, []).append([own[key] - published[key].max() for key in ("auc", metrics.TPR)])
    for (scenario, variant), found in gaps.items():
        auc, tpr = (report.interval(*t_interval(gap)) for gap in np.array(found).T)
        lines.append({"scenario": scenario, "variant": variant, "AUC": auc, "TPR at 0.1% FPR": tpr})
    return pd.DataFrame(lines)


def markdown(name, made, models, pick, claims, agreed, tables, command) -> str:
    links = ", ".join(f"[seed {run.config['seed']}](../{run.name}/summary.md)" for run in made)
    config, members, others = made[0].config, tables[0]["n_member"].max(), tables[0]["n_nonmember"].max()
    shown = claims.assign(difference=[report.interval(*row) for row in claims[["difference", "low", "high"]].values])
    nulls = np.array([[float(v) for v in report.attack_rows(table)["null_auc"]] for table in tables])
    accused = pd.DataFrame(
        [
            {"scenario": scenario, "variant": variant}
            | {title: plus_minus(row[key], row[f"{key}_sd"]) for key, title in ACCUSATION.items()}
            for scenario, variant in (("NR", "original"), ("MR", "all"))
            if (row := pick(scenario, variant, "headline")) is not None
        ]
    )
    return f"""# {name}

`{command}`

- data: {config["dataset_name"]} (fingerprint {config["data"]}); network: {config["model_name"]} at width \
{config["width"]:g}
- every seed splits, trains, compresses and attacks anew: {links}
- defence: {runs.defence_said(made[0]) or "none"}
- shadow models: {config["shadow_num"]}; audited in each run: {members} members and {others} non-members
- cost: {cost(made)}

All numbers are percent: mean ± standard deviation over {len(made)} seeds. TPR is at a false-positive rate of at most
0.1 %. `published` is each run's strongest attack of the literature by its AUC on the victim, `headline` the attack that
did best on the run's shadows.

{report.markdown(headline(models, pick))}

![Leakage against compression](degrees.png)

## The paper's claims

Differences of AUC in points, each run's paired on the same audit points: mean over seeds with the 95 % interval of
Student's t. `alone` counts the runs whose own interval, over audit points, says the same.

{report.markdown(shown[["claim", "form", "key", "difference", "verdict", "alone"]])}

## Headline against the strongest published attack

Mean difference with its interval over seeds; the published attack is picked with hindsight, for AUC and TPR apart.

{report.markdown(strength(tables))}

## What an accusation is worth

At the threshold that gives 0.1 % false alarms on the shadows; PPV is the share of members among the accused where 1, 10
or 50 % of all points are, undefined where a run accuses nobody.

{report.markdown(accused)}

## Who is exposed: the same points again?

Rank correlation (Spearman) of exposure between runs, over points that are members in both.

{report.markdown(agreement_rows(agreed))}

## Controls

`null`, every attack on non-members alone, over all {nulls.shape[1]} rows of a run: mean AUC
{", ".join(f"{100 * row.mean():.1f}" for row in nulls)} in the runs. The rows of one run compare the same two halves and
stray together. Each run's own page judges them, and `blind`, with intervals.

Every attack's row is in [summary.csv](summary.csv).
"""


ACCUSATION = {"strict_tpr": "members found", "strict_fpr": "others accused"}
ACCUSATION |= {f"ppv_{prior}": f"PPV at {100 * prior:g} %" for prior in metrics.PRIORS}


def agreement_rows(agreed: pd.DataFrame) -> pd.DataFrame:
    """`exposure.agreement` for people."""
    shown = agreed[["run", "other", "members of both"]].copy()
    if "correlation" in agreed:
        cells = agreed[["correlation", "correlation_lo", "correlation_hi"]].itertuples(index=False)
        shown["correlation"] = [f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in cells]
    return shown


def cost(made: Sequence[runs.Run]) -> str:
    """Minutes of all stages of all runs."""
    return f"{sum(summary.minutes(run) for run in made):.0f} minutes, all stages of all runs added up"
