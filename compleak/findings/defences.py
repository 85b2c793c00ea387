"""What defences cost and what they leave: accuracy against leakage, over seeds, arguments and attackers.

Each run has a victim with one defence, or none. The shadow models are those of an attacker who assumes no defence
(non-adaptive) or who trains with the same one (adaptive).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from compleak.audits import metrics
from compleak.audits.intervals import CONFIDENCE
from compleak.findings import outputs
from compleak.findings.rows import (
    ALL,
    ALONE,
    HEADLINE,
    LABEL_ONLY,
    ORIGINAL,
    PUBLISHED,
    STRONGEST,
    TARGET,
    name_of,
    read_table,
    rows_of_form,
    rows_of_target,
    strongest,
)
from compleak.findings.seeds import t_interval
from compleak.runs.roles import VICTIM
from compleak.runs.run import Run
from compleak.runs.settings import AS_THEY_ARE, AnswersSettings, DefenceSettings
from defenses import dp

COMPARED_FORMS = (STRONGEST, HEADLINE, PUBLISHED, "calibrated", LABEL_ONLY)
BEST_OF_ALL_HELD = (STRONGEST, LABEL_ONLY)  # the best attack on any of the models that the attacker holds
DEFENCE = ["defence", "argument", "recipe"]
# What tells victims apart, but for their seed. Originals are equal also where only the fine-tuning's recipe differs.
TRAINED_WITH = [*DEFENCE, "network"]
SETTING = [*TRAINED_WITH, "attacker", "fine_tuning"]  # in which runs differ, apart from their seed
GROUP = [*SETTING, *TARGET, "form"]
LEAKAGE = ("auc", metrics.TPR)
MEASURED = (*LEAKAGE, metrics.WIDER_TPR, "acc", "null_auc", "accuracy", "train_accuracy")
EITHER = "either"  # stands for whichever of the two attackers on a defence has the larger AUC
PLAIN, DEFENDED = "plain", "defended"  # fine-tuning after compression
LEAST_PROTECTION = 0.02  # of AUC; of less, no share is given that is left
KNOWN_TABLES = {"NR": ("NR",), "SR": ("NR", "SR"), "MR": ("NR", "SR", "MR")}


class DefencesFindings(NamedTuple):
    rows: pd.DataFrame  # `rows_of_audit` of all audits
    either: pd.DataFrame  # `against_either_attacker`
    spread: pd.DataFrame  # `spread_over_seeds`
    differences: pd.DataFrame  # `differences`
    after_compression: pd.DataFrame  # `after_compression`


class Audit(NamedTuple):
    """The tables of one run's models, as they answer or behind a defence of answers."""

    run: Run
    variants: tuple[str, ...]  # the models that the attacker holds, the original first
    answers: AnswersSettings = AS_THEY_ARE


def findings_of_defences(audits: Sequence[Audit]) -> DefencesFindings:
    """Work everything out from the NR, SR and MR tables of all audits."""
    rows = pd.concat([rows_of_audit(audit) for audit in audits], ignore_index=True)
    spread = spread_over_seeds(rows)
    either = against_either_attacker(rows)
    compared = differences(pd.concat([rows, either[either["defence"] != ""]], ignore_index=True))
    return DefencesFindings(rows, either, spread, compared, after_compression(spread))


def rows_of_audit(audit: Audit) -> pd.DataFrame:
    """A row for each target and form of attack of an audit."""
    run = audit.run
    table = outputs.attack_table(run, audit.variants, audit.answers)
    table = table[(table["scenario"] != "MR") | (table["variant"] == ALL)]
    metas = {variant: outputs.model_meta(run, variant, VICTIM) for variant in audit.variants}
    run_columns = _run_columns(audit)
    rows = []
    for (scenario, variant), own in table.groupby(TARGET, sort=False):
        models = _models_of_target(scenario, variant, list(metas))
        columns = run_columns | {"scenario": scenario, "variant": variant} | _model_columns([metas[v] for v in models])
        for form in COMPARED_FORMS:
            attacked = _tables_within(table, scenario, models) if form in BEST_OF_ALL_HELD else own
            candidates = rows_of_form(attacked, form)
            if len(candidates):
                rows.append(columns | {"form": form} | _leakage(candidates))
    return pd.DataFrame(rows)


def _run_columns(audit: Audit) -> dict:
    config = audit.run.config
    defence = audit.answers if audit.answers.name else audit.run.defence
    return {
        "run": audit.run.name + audit.answers.folder_suffix,
        "seed": config["seed"],
        "defence": defence.name,
        "argument": defence.argument,
        "recipe": audit.run.defence.recipe,
        "network": config["model_name"],
        "attacker": _attacker(defence),
        "fine_tuning": _fine_tuning(config),
        "members": outputs.trained_members(audit.run),
    }


def _attacker(defence: DefenceSettings | AnswersSettings) -> str:
    """`adaptive` or `non-adaptive`; "" where there is no defence to adapt to."""
    if defence.adaptive:
        return "adaptive"
    return "non-adaptive" if defence.name else ""


def _fine_tuning(config: dict) -> str:
    """`defended` or `plain`: how the compressed versions were fine-tuned; "" where no defence is trained in."""
    if not config["defend"]:
        return ""
    return PLAIN if config["undefended_finetuning"] else DEFENDED


def _models_of_target(scenario: str, variant: str, variants: list[str]) -> list[str]:
    """The models that the attacker on a target holds."""
    return {"NR": [variant], "SR": [ORIGINAL, variant], "MR": variants}[scenario]


def _model_columns(metas: Sequence[dict]) -> dict:
    """The epsilon of all these models and the accuracy of the first."""
    accuracy = {"accuracy": metas[0]["test_accuracy"], "train_accuracy": metas[0]["train_accuracy"]}
    return {"epsilon": epsilon_of(metas), **accuracy}


def epsilon_of(metas: Sequence[dict]) -> float:
    """Of releasing all these models of a family, the original's training counted once; infinite without DP-SGD."""
    histories = [meta.get("privacy", {}).get("history") for meta in metas]
    if any(history is None for history in histories):
        return float("inf")
    training = histories[0][0]
    fine_tuning = [part for history in histories for part in history[1:]]
    return dp.epsilon([training, *fine_tuning])


def _tables_within(table: pd.DataFrame, scenario: str, models: Sequence[str]) -> pd.DataFrame:
    """The rows that an attacker who holds these models can make: one who has several can also attack one of them."""
    return table[table["scenario"].isin(KNOWN_TABLES[scenario]) & table["variant"].isin([*models, ALL])]


def _leakage(rows: pd.DataFrame) -> dict:
    """AUC, name and null control of the attack with the largest AUC; TPR and ACC of the attack with the largest."""
    best = strongest(rows)
    columns = {"attack": name_of(best), "n_nonmember": int(best["n_nonmember"])}
    chosen = {"auc": best, "null_auc": best}
    chosen |= {key: strongest(rows, key) for key in (metrics.TPR, metrics.WIDER_TPR, "acc")}
    for key, row in chosen.items():
        columns |= {key + end: float(row[key + end]) for end in ("", "_lo", "_hi")}
    return columns


def against_either_attacker(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the two attackers on each defence the one whose AUC is larger, seed by seed, under the name EITHER.

    Who knows a defence can train the shadow models with it or without. All measures are those of this attacker, so the
    other's TPR may be larger. rows: of `rows_of_audit`; those without a defence stay as they are.
    """
    keys = [key for key in GROUP if key != "attacker"]
    best = rows.reset_index(drop=True)
    best = best.loc[best.groupby(["seed", *keys], sort=False, dropna=False)["auc"].idxmax()]
    return best.assign(attacker=best["attacker"].where(best["defence"] == "", EITHER))


def spread_over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each victim, attacker, target and form: mean, deviation and interval over seeds of all MEASURED.

    The interval is Student's t. Of a single seed it is the interval over audit points, and there is no deviation.
    """
    lines = []
    for group, own in rows.groupby(GROUP, sort=False, dropna=False):
        line = dict(zip(GROUP, group, strict=True)) | {"seeds": len(own), "epsilon": own["epsilon"].mean()}
        line["n_nonmember"] = own["n_nonmember"].min()
        for key in MEASURED:
            line |= _spread(own, key)
        lines.append(line)
    return pd.DataFrame(lines)


def read_rows(file: Path) -> pd.DataFrame:
    """What `rows_of_audit` gave of all audits, as a page has written it; what an older page lacks is NaN."""
    names = [key for key in GROUP if key != "argument"]
    rows = read_table(file, names)
    return rows.reindex(columns=[*rows.columns, *(key for key in MEASURED if key not in rows)])


def read_differences(file: Path) -> pd.DataFrame:
    """What `differences` gave, as a page has written it."""
    names = [key for key in (*SETTING, *TARGET, "form", "of", "what") if key != "argument"]
    return read_table(file, names)


def _spread(own: pd.DataFrame, key: str) -> dict[str, float]:
    values = own[key].to_numpy()
    if len(values) > 1:
        deviation = values.std(ddof=1)
        _, low, high = t_interval(values)
    else:
        deviation = np.nan
        low, high = (own[key + end].iloc[0] if key + end in own else np.nan for end in ("_lo", "_hi"))
    return {f"{key}_mean": values.mean(), f"{key}_sd": deviation, f"{key}_lo": low, f"{key}_hi": high}


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """What a defence costs and achieves: differences paired by seed, each with its interval over seeds.

    `what` says which: `accuracy` is the defended original's minus the undefended one's. The others are differences of
    `of` (AUC or TPR) for each form of attack: `defence` compares with the same target without the defence,
    `fine-tuning` plain with defended fine-tuning, `knowing` an attacker who knows the defence with one who does not,
    `family` SR or MR with the original alone under the same defence. Each way of fine-tuning has lines of its own.
    rows: of `rows_of_audit`, and of `against_either_attacker`, which has no line of `family`.
    """
    lines = []
    keys = [*TRAINED_WITH, "fine_tuning"]
    groups = dict(iter(rows.groupby(keys, sort=False, dropna=False)))
    for group, own in groups.items():
        head = dict(zip(keys, group, strict=True))
        undefended = rows[(rows["network"] == head["network"]) & (rows["defence"] == "")]
        if head["defence"] and head["fine_tuning"] != PLAIN:
            lines.append({**head, "what": "accuracy", **_accuracy_difference(own, undefended)})
        for comparison in _comparisons(own):
            lines += [{**head, **line} for line in _leakage_differences(own, undefended, comparison)]
            if head["fine_tuning"] == PLAIN and comparison.target != ALONE:
                defended = groups[(*group[:-1], DEFENDED)]
                lines.append({**head, **_fine_tuning_difference(own, defended, comparison)})
    return pd.DataFrame(lines)


class _Comparison(NamedTuple):
    form: str
    attacker: str
    scenario: str
    variant: str
    of: str  # measure of leakage

    @property
    def target(self) -> tuple[str, str]:
        return self.scenario, self.variant

    @property
    def columns(self) -> dict[str, str]:
        return {key: getattr(self, key) for key in ("attacker", "scenario", "variant", "form", "of")}

    def leakage(self, rows: pd.DataFrame, target: tuple[str, str] | None = None) -> pd.Series:
        """By seed, of these rows; without a target on the comparison's own."""
        return _values(rows[rows["form"] == self.form], self.of, target or self.target)


def _comparisons(rows: pd.DataFrame) -> Iterator[_Comparison]:
    targets = list(rows[TARGET].drop_duplicates().itertuples(index=False, name=None))
    for form in rows["form"].unique():
        for attacker in rows["attacker"].unique():
            for target in targets:
                for key in LEAKAGE:
                    yield _Comparison(form, attacker, *target, key)


def _accuracy_difference(own: pd.DataFrame, undefended: pd.DataFrame) -> dict:
    """The same for all forms and both attackers: the first of each stands for all."""
    defended = own[(own["form"] == STRONGEST) & (own["attacker"] == own["attacker"].iloc[0])]
    without = undefended[undefended["form"] == STRONGEST]
    return paired(_values(defended, "accuracy", ALONE), _values(without, "accuracy", ALONE))


def _leakage_differences(own: pd.DataFrame, undefended: pd.DataFrame, comparison: _Comparison) -> Iterator[dict]:
    """How much more one attacker learns about one target than in the cases it is compared with.

    own: rows under one defence, or under none; undefended: rows of the same network without a defence.
    """
    of_attacker = own[own["attacker"] == comparison.attacker]
    first = comparison.leakage(of_attacker)
    if own["defence"].iloc[0]:
        yield {**comparison.columns, "what": "defence", **paired(first, comparison.leakage(undefended))}
    if comparison.attacker == "adaptive":
        unaware = own[own["attacker"] == "non-adaptive"]
        yield {**comparison.columns, "what": "knowing", **paired(first, comparison.leakage(unaware))}
    if comparison.scenario != "NR" and comparison.attacker != EITHER:
        yield {**comparison.columns, "what": "family", **paired(first, comparison.leakage(of_attacker, ALONE))}


def _fine_tuning_difference(plain: pd.DataFrame, defended: pd.DataFrame, comparison: _Comparison) -> dict:
    """How much more one attacker learns about one target where its compressed models were fine-tuned plainly."""
    ways = [rows[rows["attacker"] == comparison.attacker] for rows in (plain, defended)]
    return {**comparison.columns, "what": "fine-tuning", **paired(*map(comparison.leakage, ways))}


def _values(rows: pd.DataFrame, key: str, target: tuple[str, str]) -> pd.Series:
    """A measurement of one target by seed."""
    return rows_of_target(rows, *target).set_index("seed")[key]


def paired(first: pd.Series, second: pd.Series) -> dict:
    """Mean difference with its interval over the seeds that both have; of a single seed there is no interval."""
    gaps = (first - second).dropna().to_numpy()
    mean, low, high = np.nan, np.nan, np.nan
    if len(gaps) == 1:
        mean = gaps.mean()
    if len(gaps) > 1:
        mean, low, high = t_interval(gaps)
    return {"difference": mean, "low": low, "high": high, "seeds": len(gaps)}


def after_compression(spread: pd.DataFrame) -> pd.DataFrame:
    """What of the protection is left where the fine-tuning after compression is plain.

    A row for each defence, attacker and target with a compressed model: AUC of the strongest attack without the
    defence, with it throughout (`defended`), and with it in the original's training alone (`plain`), and the test
    accuracy of the first model of the target in the last two cases, all means over seeds. `left` is how much of what
    the defence takes away from the AUC it still takes away under plain fine-tuning; NaN where it takes away less than
    LEAST_PROTECTION. No rows where no run has plain fine-tuning.
    """
    rows = spread[(spread["form"] == STRONGEST) & ~_of_target(spread, ALONE)]
    undefended = rows[rows["defence"] == ""].set_index(["network", *TARGET])["auc_mean"]
    keys = [key for key in (*SETTING, *TARGET) if key != "fine_tuning"]
    lines = []
    for group, own in rows[rows["defence"] != ""].groupby(keys, sort=False, dropna=False):
        ways = {way: row for way, row in own.set_index("fine_tuning").iterrows()}
        if PLAIN not in ways or DEFENDED not in ways:
            continue
        line = dict(zip(keys, group, strict=True))
        line["undefended"] = undefended.get((line["network"], *(line[key] for key in TARGET)), np.nan)
        for way, row in ways.items():
            line |= {way: row["auc_mean"], f"{way}_accuracy": row["accuracy_mean"]}
        lines.append(line | {"left": _share_left(**{key: line[key] for key in ("undefended", DEFENDED, PLAIN)})})
    return pd.DataFrame(lines)


def _of_target(rows: pd.DataFrame, target: tuple[str, str]) -> pd.Series:
    return (rows["scenario"] == target[0]) & (rows["variant"] == target[1])


def _share_left(undefended: float, defended: float, plain: float) -> float:
    taken = undefended - defended
    return (undefended - plain) / taken if taken >= LEAST_PROTECTION else np.nan


def differences_of(compared: pd.DataFrame, what: str, form: str = STRONGEST, of: str = LEAKAGE[0]) -> pd.DataFrame:
    """The rows of `differences` that answer one question."""
    rows = compared[compared["what"] == what]
    return rows if what == "accuracy" else rows[(rows["form"] == form) & (rows["of"] == of)]


class Signs(NamedTuple):
    """How many intervals of differences under a defence lie wholly on one side of zero.

    Only targets of a single model (NR) are counted where there are any, since SR and MR often repeat the attack on one
    of their models. Lines of EITHER are left out, since each repeats one of the two attackers, and so are those of the
    original under plain fine-tuning, which is the same model as under defended fine-tuning.
    """

    count: int
    above: int
    below: int
    by_chance: float  # expected on either side where there is no difference


def count_signs(rows: pd.DataFrame) -> Signs | None:
    """None where the differences have no intervals, as of a single seed."""
    rows = rows[(rows["defence"] != "") & (rows["attacker"] != EITHER)]
    rows = rows[~((rows["fine_tuning"] == PLAIN) & _of_target(rows, ALONE))]
    if (rows["scenario"] == "NR").any():
        rows = rows[rows["scenario"] == "NR"]
    if len(rows) and rows["low"].isna().all():
        return None
    above = int((rows["low"] > 0).sum())
    below = int((rows["high"] < 0).sum())
    return Signs(len(rows), above, below, len(rows) * (1 - CONFIDENCE) / 2)


class Nulls(NamedTuple):
    """The null control of the strongest attacks, over all runs and targets."""

    count: int
    off: int  # whose interval leaves 0.5 out
    mean_by_seed: pd.Series


def null_controls(rows: pd.DataFrame) -> Nulls:
    nulls = rows[rows["form"] == STRONGEST]
    off = (nulls["null_auc_lo"] > 0.5) | (nulls["null_auc_hi"] < 0.5)
    return Nulls(len(nulls), int(off.sum()), nulls.groupby("seed")["null_auc"].mean())
