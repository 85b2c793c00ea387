"""The end of a reproduction: every stage's outputs gathered into `summary.csv`, `summary.md` and figures."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from compleak import checkpoints, metrics, paths, report, runs, signals
from compleak.ablation import added, family_figure, greedy
from compleak.defended import privacy_said
from compleak.exposure import contact_sheet, points_table
from compleak.techniques import COMPRESSED
from compleak.verdicts import MARGIN, Difference, overall, verdicts
from core.files import read_json, write_atomically

VARIANTS = (paths.ORIGINAL, *COMPRESSED)
CLAIMS = {
    "C1": "the 90 % pruned model leaks less than the original, lightly compressed ones about as much",
    "C2": "original and compressed model together (SR) leak more than either alone (NR)",
    "C3": "all compressed models together (MR) leak more than the best pair (SR)",
}


def summarise(run: runs.Run, command: str, settings: dict[str, str]) -> str:
    """Write tables and figures into the run's folder; returns the text that `summary.md` holds.

    command: what to type to get them again; settings: the flags each kind of stage was given, "" where none.
    """
    table, models = attack_table(run), model_table(run)
    truth, scores, seed = membership(run), functools.partial(scores_of, run), run.config["seed"]
    claims = verdicts(table, scores, truth, seed)
    family, steps = added(table, models, scores, truth, seed), greedy_steps(run, truth)
    points = exposed(run, table, truth)
    text = markdown(run, table, models, claims, (family, steps), command, settings)
    frames = {
        "summary": table,
        "models": models,
        "claims": pd.DataFrame(claims, columns=Difference._fields),
        "family": family,
    }
    for name, frame in {**frames, "greedy": steps, "points": points}.items():
        write_atomically(run.dir / f"{name}.csv", lambda part, frame=frame: frame.to_csv(part, index=False))
    figures(run, table, models, truth)
    report.save(family_figure(family, steps, f"{run.name}: accuracy, size, leakage"), run.dir / "family.png")
    if run.config["features"] is None:
        data, title = runs.dataset(run), f"{run.name}: the members that are found first"
        report.save(contact_sheet(points, data.images, data.classes, title), run.dir / "exposed.png")
    write_atomically(run.dir / "summary.md", lambda part: part.write_text(text))
    return text


def membership(run: runs.Run) -> np.ndarray:
    """(A,) bool: which of the victim's audit points are members; the truth behind every table of the run."""
    return signals.load(signals.file_of(run, paths.ORIGINAL)).truth


def greedy_steps(run: runs.Run, truth: np.ndarray) -> pd.DataFrame:
    """`ablation.greedy` on all variants of a run."""
    records = {variant: signals.load(signals.file_of(run, variant)) for variant in VARIANTS}
    views = {variant: signals.attacker_view(record) for variant, record in records.items()}
    return greedy(views, truth, run.config["seed"])


def exposed(run: runs.Run, table: pd.DataFrame, truth: np.ndarray) -> pd.DataFrame:
    """`exposure.points_table` of a run."""
    file = signals.file_of(run, paths.ORIGINAL)
    record = signals.load(file)
    points, labels = signals.points(file)[record.audit[0]], record.labels[record.audit[0]]
    return points_table(table, functools.partial(scores_of, run), truth, points, labels)


def attack_table(run: runs.Run) -> pd.DataFrame:
    """The NR, SR and MR tables that a run has so far under each other, columns as in PROTOCOL §7."""
    files = [table_file(run, scenario, variant) for scenario in ("NR", "SR") for variant in VARIANTS]
    tables = [pd.read_csv(f, keep_default_na=False) for f in [*files, table_file(run, "MR", "all")] if f.exists()]
    return pd.concat(tables, ignore_index=True)


def table_file(run: runs.Run, scenario: str, variant: str) -> Path:
    place = paths.ORIGINAL if scenario == "MR" else variant
    return paths.variant_dir(run.root, run.name, place) / f"{scenario}.csv"


def model_table(run: runs.Run) -> pd.DataFrame:
    """Accuracy, bytes and stated property of every model of a run."""
    rows = []
    for variant in VARIANTS:
        for role in run.roles:
            meta = checkpoints.load_meta(paths.role_dir(run.root, run.name, variant, role))
            kept = ("train_accuracy", "test_accuracy", "bytes", "seconds")
            row = {"variant": variant, "role": role, **{key: meta[key] for key in kept}}
            rows.append({**row, "property": meta.get("property", "")})
    return pd.DataFrame(rows)


def scores_of(run: runs.Run, row: pd.Series) -> np.ndarray:
    """The scores behind a row of the table, over the victim's audit points."""
    file = table_file(run, row["scenario"], row["variant"]).with_name(f"{row['scenario']}_scores.npz")
    prefix = f"{row['variant']}/" if row["scenario"] == "MR" and row["variant"] != "all" else ""
    with np.load(file, allow_pickle=False) as scores:
        return scores[prefix + report.key_of(row)]


def curves(run: runs.Run, table: pd.DataFrame, truth: np.ndarray) -> list[tuple]:
    """For `report.roc_figure`: the strongest published attack and the headline of each scenario, and a null control."""
    found = []
    for scenario in ("NR", "SR", "MR"):
        variants = table.loc[table["scenario"] == scenario, "variant"].unique()
        for form in report.FORMS:
            rows = [report.scenario_row(table, scenario, variant, form) for variant in variants]
            best = max((row for row in rows if row is not None), key=lambda row: row["auc"], default=None)
            if best is not None:
                label = f"{scenario} {form}: {report.key_of(best)}, {best['variant']} (AUC {best['auc']:.3f})"
                found.append((label, scores_of(run, best), truth, scenario))
    nulls = table[table["attack"] == "null"]
    null = nulls[nulls["scenario"] == nulls["scenario"].iloc[-1]].iloc[0]
    halves = np.arange((~truth).sum()) < (~truth).sum() // 2
    label = f"null control of {null['scenario']} {null['variant']} (AUC {null['auc']:.3f})"
    return [*found, (label, scores_of(run, null)[~truth], halves, "control")]


def figures(run: runs.Run, table: pd.DataFrame, models: pd.DataFrame, truth: np.ndarray) -> None:
    roc = report.roc_figure(curves(run, table, truth), f"{run.name}: strongest attack of each scenario")
    report.save(roc, run.dir / "roc.png")
    pick = functools.partial(report.scenario_row, table)
    report.save(
        report.degrees_figure(pick, VARIANTS, f"{run.name}: leakage against compression"), run.dir / "degrees.png"
    )
    report.save(report.cost_figure(models, f"{run.name}: what compression costs the victim"), run.dir / "cost.png")


def headline(victim: pd.DataFrame, together: Sequence[str], pick: Callable, shown: Callable) -> pd.DataFrame:
    """One line a variant: accuracy, size, and the strongest published attack and the headline of NR and SR; then MR.

    victim: `accuracy` and `MB` by variant, as they are shown; together: the variants of MR.
    pick(scenario, variant, form): its row, or None; shown(row, key): a measurement of it in words.
    """
    lines = []
    for variant in (*victim.index, *together):
        known = variant in victim.index
        line = {"variant": variant, **victim.loc[variant]} if known else {"variant": f"{variant} (MR)"}
        for scenario, form in itertools.product(("NR", "SR") if known else ("MR",), report.FORMS):
            row, column = pick(scenario, variant, form), "NR" if scenario == "NR" else "SR/MR"
            for key, title in (("auc", "AUC"), (metrics.TPR, "TPR")) if row is not None else ():
                line[f"{column} {form} {title}"] = shown(row, key)
        lines.append(line)
    return pd.DataFrame(lines).fillna("")


def headline_rows(table: pd.DataFrame, models: pd.DataFrame) -> pd.DataFrame:
    """`headline` of one run."""
    victim = models[models["role"] == paths.VICTIM].set_index("variant")
    said = pd.DataFrame({"accuracy": [f"{100 * value:.1f}" for value in victim["test_accuracy"]]}, victim.index)
    said["MB"] = [f"{value / 1e6:.2f}" for value in victim["bytes"]]
    together = table.loc[table["scenario"] == "MR", "variant"].unique()
    return headline(said, together, functools.partial(report.scenario_row, table), report.cell)


def claim_table(claims: list[Difference]) -> pd.DataFrame:
    lines = []
    for claim, text in CLAIMS.items():
        for form in report.FORMS:
            own = [difference for difference in claims if (difference.claim, difference.form) == (claim, form)]
            held = sum(difference.verdict == "holds" for difference in own)
            lines.append(
                {
                    "claim": claim,
                    "says": text,
                    "attacks": form,
                    "verdict": overall(own),
                    "comparisons": f"{held} of {len(own)} hold",
                }
            )
    return pd.DataFrame(lines)


def markdown(
    run: runs.Run,
    table: pd.DataFrame,
    models: pd.DataFrame,
    claims: list[Difference],
    ablation: tuple[pd.DataFrame, pd.DataFrame],
    command: str,
    settings: dict[str, str],
) -> str:
    config = run.config
    first = checkpoints.load_meta(paths.role_dir(run.root, run.name, paths.ORIGINAL, run.roles[0]))
    controls = report.percent(distinct_controls(table))[["scenario", "variant", "attack", "AUC"]]
    detail = pd.DataFrame(claims, columns=Difference._fields)
    detail["difference"] = [report.interval(d.difference, d.low, d.high) for d in claims]
    stages = "; ".join(f"{stage} `{flags}`" for stage, flags in settings.items() if flags)
    members, others = table["n_member"].max(), table["n_nonmember"].max()
    inputs, sheet = "images", "![The members that are found first](exposed.png)\n\n"
    if config["features"] is not None:
        inputs, sheet = "features", ""
    return f"""# {run.name}

`{command}`

- data: {config["dataset_name"]} (fingerprint {config["data"]}), seed {config["seed"]}
- shadow models: {config["shadow_num"]}; audited: {members} members and {others} non-members
- network: {config["model_name"]} at width {config["width"]:g}, {recipe(first)}
- defence: {runs.defence_said(run) or "none"}{privacy_said(first)}
- stages: {stages}
- cost: {cost(run, first)}

All numbers are percent with 95 % intervals; TPR is at a false-positive rate of at most 0.1 %. `published` is the
strongest attack of the literature in that scenario by its AUC on the victim, which no attacker knows. `headline` is the
attack, of the literature or ours, that did best on the shadow models, each in turn the pretended victim (by the area
under the ROC curve over the log of the false-positive rate, from 0.1 % up): {headlines(table)}.

{report.markdown(headline_rows(table, models))}

![ROC](roc.png)
![Leakage against compression](degrees.png)
![Accuracy and size](cost.png)

## The paper's claims

{report.markdown(claim_table(claims))}

Differences of AUC in points, paired on the same audit points. "About as much" (C1) is an interval within
{100 * MARGIN:g} points of zero. `published` takes the strongest attack on either side by its AUC on the victim, from
more candidates for NR than for SR, and for SR than for MR, which favours the former; `headline` is chosen on shadows.

{report.markdown(detail[["claim", "form", "what", "difference", "verdict"]])}

## What each compressed model adds

`adds` is the AUC of the headline attack on original and compressed model together minus that on the original alone.

{report.markdown(family_rows(ablation[0]))}

![Accuracy, size, leakage](family.png)

An attacker who chooses by his shadows takes the models in this order, attacking with `joint`:

{report.markdown(greedy_rows(ablation[1]))}

## What an accusation is worth

The headline of each scenario, at the threshold that gives 0.1 % false alarms on the shadows: how many members it
finds, how many others it accuses, and which share of the accused are members where 1, 10 or 50 % of all points are.

{report.markdown(accusation_rows(table))}

## Who is exposed

{sheet}`points.csv` has every audit point with its scores and ranks, most exposed first.

## Honest strength

The headline may not fall behind the strongest published attack, picked with hindsight, on the same models and points.

{report.markdown(strength_rows(table))}

## Controls

Both must sit at an AUC of 50: `null`, the headline attack of each table on non-members alone, and `blind`, a
classifier that sees the {inputs} and no model, fitted on half of these points and judged on the rest.
{inside(distinct_controls(table))} of {len(controls)} have it within their 95 % interval, of which one in twenty misses
by chance. {control_verdict(distinct_controls(table))}
All `null` rows compare the same two halves of the non-members, on related models: they stray together.

{report.markdown(controls)}

The `null_auc` columns of [summary.csv](summary.csv) hold the same control for every attack:
{inside(report.attack_rows(table), "null_auc")} of {len(report.attack_rows(table))} are at 50 within their interval.

Every attack's row is in [summary.csv](summary.csv), every model's in [models.csv](models.csv).
"""


def family_rows(family: pd.DataFrame) -> pd.DataFrame:
    """`ablation.added` for people."""
    shown = pd.DataFrame({"variant": family["variant"], "accuracy": [f"{100 * v:.1f}" for v in family["accuracy"]]})
    shown["MB"] = [f"{v / 1e6:.2f}" for v in family["bytes"]]
    for key in ("alone", "with_original", "adds"):
        shown[key.replace("_", " ")] = report.intervals(family, key)
    return shown


def greedy_rows(steps: pd.DataFrame) -> pd.DataFrame:
    """`ablation.greedy` for people."""
    shown = steps[["models", "added"]].copy()
    for key, title in (("auc", "AUC"), (metrics.TPR, "TPR at 0.1% FPR"), ("gain", "gain of AUC")):
        shown[title] = report.intervals(steps, key)
    return shown


def accusation_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The strict threshold's rates and precision, for the headlines of the original, of the strongest pair, of all."""
    chosen = [
        report.strongest(rows) for _, rows in table[table["headline"]].groupby("scenario", sort=False)
    ]  # by AUC on the victim
    rows = pd.DataFrame(chosen, columns=table.columns)
    names = [f"{row['scenario']} {row['variant']} {report.key_of(row)}" for _, row in rows.iterrows()]
    shown = pd.DataFrame({"attack": names})
    for key, title in (("strict_tpr", "members found"), ("strict_fpr", "others accused")):
        shown[title] = report.intervals(rows, key)
    for prior in metrics.PRIORS:
        shown[f"PPV at {100 * prior:g} %"] = report.intervals(rows, f"ppv_{prior}")
    return shown


def contests(table: pd.DataFrame) -> Iterator[tuple[tuple[str, str], pd.Series, pd.DataFrame]]:
    """(scenario, variant), headline and published attacks for the original, each pair and all.

    A table without either, as `--attacks` may leave it, is left out.
    """
    for target, rows in table.groupby(["scenario", "variant"], sort=False):
        own, published = rows[rows["headline"]], report.published_rows(rows)
        if len(own) and len(published):
            yield target, own.iloc[0], published


def strength_rows(table: pd.DataFrame) -> pd.DataFrame:
    """AUC and TPR at 0.1 % FPR of headline and strongest published attack."""
    lines = []
    for (scenario, variant), own, published in contests(table):
        line = {"scenario": scenario, "variant": variant}
        for key, title in (("auc", "AUC"), (metrics.TPR, "TPR")):
            best = published.loc[published[key].idxmax()]
            line[f"{title} headline"] = report.cell(own, key)
            line[f"{title} published"] = report.cell(best, key)
            line[f"{title} by"] = report.key_of(best)
        lines.append(line)
    return pd.DataFrame(lines)


def headlines(table: pd.DataFrame) -> str:
    """Which attacks the shadows chose, and in how many tables: `NR joint 9; SR joint 7, calibrated 1; ...`."""
    chosen = table[table["headline"]]
    lines = []
    for scenario, rows in chosen.groupby("scenario", sort=False):
        counts = rows.apply(report.key_of, axis=1).value_counts()
        lines.append(f"{scenario} " + ", ".join(f"{key} {number}" for key, number in counts.items()))
    return "; ".join(lines)


def control_verdict(controls: pd.DataFrame) -> str:
    """One sentence: do the control rows, taken together, stray from 0.5 beyond chance (Bonferroni, 5 %)?"""
    columns = (pd.to_numeric(controls[key]) for key in ("auc", "n_member", "n_nonmember"))
    smallest = min(metrics.chance_of(*row) for row in zip(*columns, strict=True))
    together = min(1.0, smallest * len(controls))
    found = "do not stray from 50 beyond chance" if together > 0.05 else "STRAY from 50: do not trust the other numbers"
    return (
        f"Taken together they {found}: the smallest of {len(controls)} p-values (Mann-Whitney) is {smallest:.3f}, "
        f"{together:.2f} after Bonferroni's correction."
    )


def distinct_controls(table: pd.DataFrame) -> pd.DataFrame:
    """The control rows; the blind one, the same for all variants of a run, once."""
    controls = table[table["attack"].isin(report.CONTROLS)]
    return controls.drop_duplicates(["attack", "auc", "auc_lo", "auc_hi"])


def inside(rows: pd.DataFrame, key: str = "auc") -> int:
    """How many rows have 0.5 within their interval."""
    low, high = (pd.to_numeric(rows[key + end]) for end in ("_lo", "_hi"))
    return int(((low <= 0.5) & (high >= 0.5)).sum())


def minutes(run: runs.Run) -> float:
    """Of all stages added up, whichever ran at once."""
    return sum(read_json(run.dir / "seconds.json").values()) / 60


def cost(run: runs.Run, meta: dict) -> str:
    """Minutes of all stages and where they were spent."""
    made = f"torch {meta['versions']['torch']}, commit {meta['commit']}"
    return f"{minutes(run):.0f} minutes, all stages added up, on {meta['machine']} ({made})"


def recipe(meta: dict) -> str:
    made = meta["made_from"]
    augment = "with" if made["augment"] else "without"
    noise = f", {made['label_noise']:.0%} of all labels drawn anew" if made["label_noise"] else ""
    return f"{made['epochs']} epochs, lr {made['lr']:g}, batch {made['batch_size']}, {augment} augmentation{noise}"
