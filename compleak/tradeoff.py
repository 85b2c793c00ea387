"""What defences cost and what they leave: accuracy against leakage, over seeds, arguments and attackers.

Each run has a victim with one defence, or none, and shadows of an attacker who assumes none (non-adaptive) or trains
with the same (adaptive). `results/defences/` gathers the NR, SR and MR tables of all of them.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from compleak import checkpoints, metrics, paths, report, runs
from compleak.seeds import plus_minus, t_interval
from compleak.summary import attack_table
from core.files import write_atomically
from defenses import DEFENCES, dp

FORMS = ("strongest", "published", "calibrated", "headline")
TARGET = ["defence", "argument", "network", "attacker", "scenario", "variant", "form"]
MEASURED = ("auc", metrics.TPR, "null_auc", "accuracy")
COLOURS = {"ppb": "#4477aa", "adv": "#ee6677", "dp": "#228833"}
ALONE, ALL = ("NR", paths.ORIGINAL), ("MR", "all")
NAMES = {"": "none", "ppb": "PPB", "adv": "AdvReg", "dp": "DP-SGD"}


def summarise_defences(made: Sequence[runs.Run], folder: Path, command: str, settings: dict[str, str]) -> str:
    """Write runs.csv, summary.csv, differences.csv, tradeoff.png and summary.md into `folder`; returns the latter."""
    rows = pd.concat([run_rows(run) for run in made], ignore_index=True)
    spread, compared = over_seeds(rows), differences(rows)
    text = markdown(made, rows, spread, compared, command, settings)
    for name, frame in {"runs": rows, "summary": spread, "differences": compared}.items():
        write_atomically(folder / f"{name}.csv", lambda part, frame=frame: frame.to_csv(part, index=False))
    report.save(figure(spread), folder / "tradeoff.png")
    write_atomically(folder / "summary.md", lambda part: part.write_text(text))
    return text


def run_rows(run: runs.Run) -> pd.DataFrame:
    """One row for each scenario, variant and form of attack of a run."""
    table, config = attack_table(run), run.config
    table = table[(table["scenario"] != "MR") | (table["variant"] == "all")]
    variants = table.loc[table["scenario"] == "NR", "variant"].unique()
    metas = {v: checkpoints.load_meta(paths.role_dir(run.root, run.name, v, run.roles[0])) for v in variants}
    attacker = "adaptive" if config["adaptive"] else "non-adaptive" if config["defend"] else ""
    head = {"run": run.name, "seed": config["seed"], "defence": config["defend"], "argument": config["defend_arg"]}
    head |= {"network": config["model_name"], "attacker": attacker, "members": trained_on(run)}
    rows = []
    for (scenario, variant), own in table.groupby(["scenario", "variant"], sort=False):
        held = variants if scenario == "MR" else [variant] if scenario == "NR" else [paths.ORIGINAL, variant]
        known = {"scenario": scenario, "variant": variant, "epsilon": epsilon_of([metas[v] for v in held])}
        known |= {"accuracy": metas[held[0]]["test_accuracy"], "train_accuracy": metas[held[0]]["train_accuracy"]}
        for form in FORMS:
            able = of_form(within(table, scenario, held) if form == "strongest" else own, form)
            rows += [{**head, **known, "form": form, **measured(able)}] if len(able) else []
    return pd.DataFrame(rows)


def within(table: pd.DataFrame, scenario: str, held: Sequence[str]) -> pd.DataFrame:
    """The tables that an attacker who holds these models can make: who has several can also attack one of them."""
    scenarios = {"NR": ("NR",), "SR": ("NR", "SR"), "MR": ("NR", "SR", "MR")}[scenario]
    return table[table["scenario"].isin(scenarios) & table["variant"].isin([*held, "all"])]


def trained_on(run: runs.Run) -> int:
    """Members that the victim's original is trained on: fewer than it has where some are the defence's reserve."""
    defence = DEFENCES[run.config["defend"]].procedure if run.config["defend"] else None
    if defence and defence.needs_reserve:
        return len(runs.reserves(run)[0][0])
    return len(runs.split(run)[0].victim.train)


def of_form(rows: pd.DataFrame, form: str) -> pd.DataFrame:
    """The attacks that a form is the strongest of."""
    if form == "published":
        return report.published_rows(rows)
    if form == "strongest":
        return report.attack_rows(rows)
    return rows[rows["headline"]] if form == "headline" else rows[rows["attack"] == "calibrated"]


def measured(rows: pd.DataFrame) -> dict:
    """AUC of the attack with the largest, with its name and null control; TPR of the one with the largest."""
    best, sharpest = rows.loc[rows["auc"].idxmax()], rows.loc[rows[metrics.TPR].idxmax()]
    sources = {"auc": best, "null_auc": best, metrics.TPR: sharpest}
    found = {key + end: float(row[key + end]) for key, row in sources.items() for end in ("", "_lo", "_hi")}
    return {"attack": f"{best['scenario']} {best['variant']} {report.key_of(best)}", **found}


def epsilon_of(metas: Sequence[dict]) -> float:
    """Of releasing all these models of a family, the original's training counted once; infinite without DP-SGD."""
    histories = [meta.get("privacy", {}).get("history") for meta in metas]
    if any(history is None for history in histories):
        return float("inf")
    training, tuned = histories[0][0], [part for history in histories for part in history[1:]]
    return dp.epsilon([training, *tuned])


def over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean, deviation and interval of each target over its seeds; of a single seed, the interval over audit points."""
    found = []
    for target, own in rows.groupby(TARGET, sort=False, dropna=False):
        row = dict(zip(TARGET, target, strict=True)) | {"seeds": len(own), "epsilon": own["epsilon"].mean()}
        for key in MEASURED:
            values = own[key].to_numpy()
            several = len(values) > 1
            ends = (f"{key}_lo", f"{key}_hi")
            low, high = t_interval(values)[1:] if several else (own[e].iloc[0] if e in own else np.nan for e in ends)
            row |= {f"{key}_mean": values.mean(), f"{key}_sd": values.std(ddof=1) if several else np.nan}
            row |= {f"{key}_lo": low, f"{key}_hi": high}
        found.append(row)
    return pd.DataFrame(found)


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """What a defence costs and achieves, each a difference paired by seed with its interval over seeds.

    `accuracy`: of the defended original less the undefended one. Of AUC and TPR, for each form of attack: `defence`,
    with it less without it; `knowing`, an attacker who knows the defence less one who does not; `family`, SR or MR less
    the original alone, under the defence.
    """
    found = []
    for (network, name, argument), own in rows.groupby(["network", "defence", "argument"], sort=False, dropna=False):
        plain = rows[(rows["network"] == network) & (rows["defence"] == "")]
        head = {"defence": name, "argument": argument, "network": network}
        if name:
            one, other = (some[some["form"] == FORMS[0]] for some in (own, plain))
            one = one[one["attacker"] == one["attacker"].iloc[0]]
            found.append({**head, "what": "accuracy", **paired(one, other, "accuracy", ALONE)})
        for form, attacker, (scenario, variant), key in comparisons(own):
            theirs, assumed, without = (
                some[some["form"] == form]
                for some in (own[own["attacker"] == attacker], own[own["attacker"] == "non-adaptive"], plain)
            )
            line = {**head, "attacker": attacker, "scenario": scenario, "variant": variant, "form": form, "of": key}
            target = (scenario, variant)
            if name:
                found.append({**line, "what": "defence", **paired(theirs, without, key, target)})
            if attacker == "adaptive":
                found.append({**line, "what": "knowing", **paired(theirs, assumed, key, target)})
            if scenario != "NR":
                found.append({**line, "what": "family", **paired(theirs, theirs, key, target, ALONE)})
    return pd.DataFrame(found)


def comparisons(rows: pd.DataFrame) -> Iterator[tuple]:
    """Every form, attacker, (scenario, variant) and measure there is."""
    columns = (rows["form"].unique(), rows["attacker"].unique())
    targets = rows[["scenario", "variant"]].drop_duplicates().itertuples(index=False, name=None)
    return itertools.product(*columns, list(targets), ("auc", metrics.TPR))


def paired(one: pd.DataFrame, other: pd.DataFrame, key: str, target: tuple, base: tuple | None = None) -> dict:
    """Mean and interval over seeds of `key` for a (scenario, variant) of `one` less that of `base` in `other`."""
    values = [
        rows[(rows["scenario"] == scenario) & (rows["variant"] == variant)].set_index("seed")[key]
        for rows, (scenario, variant) in ((one, target), (other, base or target))
    ]
    gaps = (values[0] - values[1]).dropna().to_numpy()
    several = len(gaps) > 1
    mean, low, high = t_interval(gaps) if several else (gaps.mean() if len(gaps) else np.nan, np.nan, np.nan)
    return {"difference": mean, "low": low, "high": high, "seeds": len(gaps)}


def figure(spread: pd.DataFrame):
    """Test accuracy against AUC of the strongest attack: a curve a defence over its argument, for NR and for MR."""
    made, panels = report.figure(11, 4.6, 2)
    rows = spread[spread["form"] == FORMS[0]]
    for axes, (target, title) in zip(panels, ((ALONE, "original alone (NR)"), (ALL, "all models (MR)")), strict=True):
        shown = rows[(rows["scenario"] == target[0]) & (rows["variant"] == target[1])]
        for (name, attacker), own in shown[shown["defence"] != ""].groupby(["defence", "attacker"]):
            curve(
                axes, own.sort_values("argument"), COLOURS[name], attacker == "adaptive", f"{NAMES[name]}, {attacker}"
            )
        for number, (network, own) in enumerate(shown[shown["defence"] == ""].groupby("network")):
            point = own.iloc[0]
            axes.plot(100 * point["accuracy_mean"], point["auc_mean"], "*sD"[number % 3], color="black", markersize=9,
                      label=f"undefended, {network}")  # fmt: skip
        axes.axhline(0.5, color="black", linewidth=0.8)
        axes.set(xlabel="test accuracy of the original, %", title=title)
    panels[0].set(ylabel="AUC of the strongest attack")
    both = [end for axes in panels for end in axes.get_ylim()]
    for axes in panels:
        axes.set(ylim=(min(both), max(both)))
    made.legend(*panels[0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=4)
    return made


def curve(axes, own: pd.DataFrame, colour: str, adaptive: bool, label: str) -> None:
    """One defence against one attacker, its arguments written beside the points; bars are deviations over seeds."""
    x, y = 100 * own["accuracy_mean"], own["auc_mean"]
    style = {
        "color": colour,
        "linestyle": "-" if adaptive else "--",
        "markerfacecolor": colour if adaptive else "white",
    }
    axes.errorbar(x, y, own["auc_sd"].fillna(0), marker="o", markersize=5, capsize=2, label=label, **style)
    if adaptive:
        for argument, *at in zip(own["argument"], x, y, strict=True):
            axes.annotate(f"{argument:g}", at, textcoords="offset points", xytext=(4, 4), fontsize=7, color=colour)


def leakage(spread: pd.DataFrame, form: str, key: str = "auc") -> pd.DataFrame:
    """One line a defence and attacker: accuracy, epsilon of the family, a measure of every target in percent."""
    lines = []
    rows = spread[spread["form"] == form]
    for (name, argument, network, attacker), own in rows.groupby(TARGET[:4], sort=False, dropna=False):
        alone, family = (own[(own["scenario"] == s) & (own["variant"] == v)] for s, v in (ALONE, ALL))
        line = {"defence": label(name, argument), "network": network, "attacker": attacker or "-"}
        line["accuracy"] = shown(alone.iloc[0], "accuracy")
        line["epsilon, all models"] = f"{spent:.1f}" if (spent := family["epsilon"].max()) < np.inf else ""
        targets = {f"{row['scenario']} {row['variant']}": shown(row, key) for _, row in own.iterrows()}
        lines.append({**line, **targets})
    return pd.DataFrame(lines).fillna("")


def members(rows: pd.DataFrame) -> str:
    """How many members the victims were trained on, by defence where that differs."""
    counts = rows.groupby("defence", sort=False)["members"].first()
    if counts.nunique() == 1:
        return f"{counts.iloc[0]}"
    return ", ".join(f"{NAMES[name]} {count}" for name, count in counts.items())


def label(name: str, argument: float) -> str:
    return f"{NAMES[name]} {argument:g}" if name else NAMES[name]


def shown(row: pd.Series, key: str) -> str:
    """`71.2 ± 0.4` over seeds, `71.2` of a single one."""
    mean, deviation = row[f"{key}_mean"], row[f"{key}_sd"]
    return f"{100 * mean:.1f}" if np.isnan(deviation) else plus_minus(mean, deviation)


def asked(compared: pd.DataFrame, what: str, form: str = FORMS[0], key: str = "auc") -> pd.DataFrame:
    """The rows of `differences` that answer one question."""
    rows = compared[compared["what"] == what]
    return rows if what == "accuracy" else rows[(rows["form"] == form) & (rows["of"] == key)]


def answers(rows: pd.DataFrame) -> pd.DataFrame:
    """Answers to one question for people: a line a defence and attacker, a column a target."""
    lines = {}
    for _, row in rows.iterrows():
        line, column = {"defence": label(row["defence"], row["argument"]), "network": row["network"]}, "accuracy"
        if row["what"] != "accuracy":
            line["attacker"], column = row["attacker"] or "-", f"{row['scenario']} {row['variant']}"
        several = not np.isnan(row["low"])
        cell = report.interval(*row[["difference", "low", "high"]]) if several else f"{100 * row['difference']:.1f}"
        lines.setdefault(tuple(line.values()), line)[column] = cell
    return pd.DataFrame(lines.values()).fillna("")


def verdict(rows: pd.DataFrame) -> str:
    """How many differences under a defence are above zero with their whole interval, and how many below."""
    rows = rows[rows["defence"] != ""]
    if rows["low"].isna().all():
        return "one seed, no intervals"
    above, below = int((rows["low"] > 0).sum()), int((rows["high"] < 0).sum())
    return (
        f"of {len(rows)} intervals {above} lie above zero and {below} below, where chance alone would put "
        f"{len(rows) * 0.025:.1f} on either side"
    )


def markdown(made, rows, spread, compared, command: str, settings: dict[str, str]) -> str:
    config, metas = made[0].config, [checkpoints.load_meta(run.dir / run.roles[0]) for run in made]
    first, commits = metas[0], " ".join(dict.fromkeys(meta["commit"] for meta in metas))
    stages = "; ".join(f"{stage} `{flags}`" for stage, flags in settings.items() if flags)
    nulls = rows[rows["form"] == FORMS[0]]
    off = int(((nulls["null_auc_lo"] > 0.5) | (nulls["null_auc_hi"] < 0.5)).sum())
    seeds = sorted(rows["seed"].unique())
    spreads = "mean ± standard deviation over seeds" if len(seeds) > 1 else "of a single seed"
    return f"""# Defences against an attacker with one model, two, or all

`{command}`

- data: {config["dataset_name"]} (fingerprint {config["data"]}); width {config["width"]:g}; seeds \
{" ".join(map(str, seeds))}; shadow models: {config["shadow_num"]}
- stages: {stages}
- {first["machine"]}, torch {first["versions"]["torch"]}, commit {commits}

Numbers are percent, {spreads}.

A defence is at work in training and in the fine-tuning of every compression. A non-adaptive attacker's shadows are
undefended, an adaptive one's have the same defence. DP-SGD trains a network with group normalisation, so its undefended
twin stands beside it. `accuracy` is the victim's original's on images it was not trained on; members it was trained on:
{members(rows)}. Epsilon is that of all models together at delta = {dp.DELTA:g}, by Opacus' accountant, as long as the
seed is secret. All defences use one learning rate, batch size and number of epochs.

`strongest` is the attack, of the literature or ours, that does best on the victim, picked with hindsight for AUC and
for TPR: what a defence has to withstand. Who holds several models can also attack one or two of them. The best of many
attacks is above 50 where nothing leaks, and the more so the more models there are to attack. `calibrated` alone can
fall far below it where victim and shadows are of different kinds, as a non-adaptive attacker's are.

![Accuracy against leakage](tradeoff.png)

## Leakage: AUC of the strongest attack

{report.markdown(leakage(spread, "strongest"))}

## Leakage: TPR at 0.1 % false alarms, strongest attack

{report.markdown(leakage(spread, "strongest", metrics.TPR))}

## Leakage: AUC of the calibrated attack

{report.markdown(leakage(spread, "calibrated"))}

## Leakage: AUC of the strongest published attack

{report.markdown(leakage(spread, "published"))}

## Price: accuracy of the defended original less the undefended

{report.markdown(answers(asked(compared, "accuracy")))}

## What the defence takes away

AUC of the strongest attack with the defence less without it, same network and target, paired by seed, with the 95 %
interval over seeds (Student's t): {verdict(asked(compared, "defence"))}.

{report.markdown(answers(asked(compared, "defence")))}

## Against whom: does knowing the defence help?

AUC of the adaptive attacker less the non-adaptive one's. Strongest attack: {verdict(asked(compared, "knowing"))}.

{report.markdown(answers(asked(compared, "knowing")))}

Calibrated attack: {verdict(asked(compared, "knowing", "calibrated"))}.

{report.markdown(answers(asked(compared, "knowing", "calibrated")))}

## Against whom: do more models help?

AUC of SR and MR less that on the original alone, under the same defence. Strongest attack, never below zero:
{verdict(asked(compared, "family"))}.

{report.markdown(answers(asked(compared, "family")))}

Calibrated attack: {verdict(asked(compared, "family", "calibrated"))}.

{report.markdown(answers(asked(compared, "family", "calibrated")))}

## Control

`null`, the strongest attack on non-members alone, in each run and target: {off} of {len(nulls)} intervals without 50,
of which one in twenty misses by chance. All runs of a seed compare the same two halves and stray together; mean AUC by
seed: {", ".join(f"{100 * mean:.1f}" for mean in nulls.groupby("seed")["null_auc"].mean())}.

Everything is in [summary.csv](summary.csv), each run in [runs.csv](runs.csv), the paired differences in
[differences.csv](differences.csv).
"""
