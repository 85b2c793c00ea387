"""Cells of the tables that people read: fractions become percent, intervals stand beside their value."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from compleak.audits.metrics import PRIORS, TPR, WIDER_TPR
from compleak.findings.rows import attack_rows
from core import console

ACCUSATION = {"strict_tpr": "members found", "strict_fpr": "others accused"}
ACCUSATION |= {f"ppv_{prior}": f"PPV at {100 * prior:g} %" for prior in PRIORS}
PRIORS_IN_WORDS = ", ".join(f"{100 * prior:g}" for prior in PRIORS)  # in percent
TNR_IN_WORDS = """Take the loss that only 0.1 % of the members exceed: TNR is the share of non-members that exceed it.
    It needs the losses alone, which only the model's owner or auditor has, and is meant to foretell how many members a
    strong attack finds (Dodd et al. 2025)."""
ENOUGH_NONMEMBERS = 5000  # for a TPR at 0.1 % false alarms, which with these rests on the five highest of them
DEFENCE_NAMES = {
    "": "none",
    "ppb": "PPB",
    "adv": "AdvReg",
    "dp": "DP-SGD",
    "relaxloss": "RelaxLoss",
    "label_smoothing": "label smoothing",
    "early_stopping": "early stopping",
    "weight_decay": "weight decay",
    "selena": "SELENA",
    "memguard": "MemGuard",
    "topk": "top-k",
    "round": "rounding",
    "label": "labels alone",
}


def percent(value: float) -> str:
    """`71.2`."""
    return f"{100 * value:.1f}"


def list_seeds(seeds: Iterable[int]) -> str:
    """`seed 7`, or `seeds 7 8 9`."""
    numbers = [str(seed) for seed in seeds]
    return f"seed{'s' if len(numbers) > 1 else ''} {' '.join(numbers)}"


def megabytes(count: float) -> str:
    """`2.85` for a number of bytes."""
    return f"{count / 1e6:.2f}"


def interval(value: float, low: float, high: float) -> str:
    """`71.2 [70.5, 71.9]`."""
    return f"{percent(value)} [{percent(low)}, {percent(high)}]"


def row_interval(row: pd.Series, key: str) -> str:
    """A measurement of one row with its interval."""
    return interval(*(row[key + end] for end in ("", "_lo", "_hi")))


def intervals(frame: pd.DataFrame, key: str) -> list[str]:
    """A column with its _lo and _hi; an empty cell where there is no value, or where the frame lacks the column."""
    if key not in frame:
        return [""] * len(frame)
    return intervals_of(frame, key, f"{key}_lo", f"{key}_hi")


def intervals_of(frame: pd.DataFrame, value: str, low: str, high: str) -> list[str]:
    """Three columns in one; an empty cell where there is no value, and no interval where there are no ends."""
    columns = [pd.to_numeric(frame[name]) for name in (value, low, high)]
    return [_interval_if_any(*cell) for cell in zip(*columns, strict=True)]


def _interval_if_any(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return ""
    return percent(value) if np.isnan(low) else interval(value, low, high)


def plus_minus(mean: float, deviation: float) -> str:
    """`71.2 ± 0.4`: a mean over seeds with its standard deviation, where there are several seeds.

    `undefined` where a seed has no value.
    """
    if np.isnan(mean):
        return "undefined"
    return percent(mean) if np.isnan(deviation) else f"{percent(mean)} ± {percent(deviation)}"


def row_plus_minus(row: pd.Series, key: str) -> str:
    """A measurement of one row, over seeds."""
    return plus_minus(row[key], row[f"{key}_sd"])


def defence_name(name: str, argument: float, recipe: str = "") -> str:
    """`PPB 4`, `DP-SGD 1 (lr 0.5, batch 256)`; `none` without a defence."""
    number = "" if pd.isna(argument) else f" {argument:g}"
    return f"{DEFENCE_NAMES.get(name, name)}{number}" + (f" ({recipe})" if recipe else "")


def listing(values: Iterable[float]) -> str:
    """`48.8, 49.8, 50.4`."""
    return ", ".join(percent(value) for value in values)


def list_settings(settings: dict[str, str]) -> str:
    """The stages that were given flags, with the flags."""
    return "; ".join(f"{stage} `{flags}`" for stage, flags in settings.items() if flags)


def few_nonmembers(table: pd.DataFrame) -> str:
    """What to mind where the TPR at 0.1 % false alarms rests on few non-members; "" where it does not.

    table: an attack table, or rows of one. The k-th highest of n non-members stands for (k + 1) / (n + 1) false alarms:
    twice as many as meant where n is 1,000.
    """
    fewest = int(table["n_nonmember"].min()) if len(table) else ENOUGH_NONMEMBERS
    if fewest >= ENOUGH_NONMEMBERS:
        return ""
    return (
        f"TPR at 0.1 % false alarms rests on a few of only {fewest:,} non-members and reads too high; "
        "TPR at 1 % is the one to compare."
    )


def attack_table(table: pd.DataFrame) -> pd.DataFrame:
    """An attack table as people read it: in percent, with `*` at the headline.

    Where there are few non-members, TPR at 1 % false alarms stands beside that at 0.1 %.
    """
    shown = table[["scenario", "variant", "attack", "classifier", "artifact_row"]].copy()
    for key, title in (("acc", "ACC"), ("auc", "AUC"), (TPR, "TPR at 0.1% FPR")):
        shown[title] = intervals(table, key)
    if few_nonmembers(attack_rows(table)):
        shown["TPR at 1% FPR"] = intervals(table, WIDER_TPR)
    shown["headline"] = ["*" if chosen else "" for chosen in table["headline"]]
    return shown.rename(columns={"artifact_row": "artifact row"})


def print_attack_table(table: pd.DataFrame) -> None:
    """Print an attack table in percent, and what to mind about it."""
    console.say(attack_table(table).to_string(index=False))
    if note := few_nonmembers(attack_rows(table)):
        console.say(note)
