"""One row of a table of attacks, and the files in which a table lies (PROTOCOL §7)."""

import contextlib
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

import attacks
from compleak.audits import metrics
from compleak.queries.signals_file import DAMAGED
from core.files import read_json, write_atomically, write_json

CHOSEN = "chosen"  # the row of an attacker whose two fits choose different attacks
NAMES = ("scenario", "variant", "attack", "classifier", "artifact_row")
TEXTS = (*NAMES, "needs", "chosen")  # columns, in which an empty cell is no missing number


def measured_row(names: dict, scores, decision, truth, *, seed: int, seconds: float, scored_by=None) -> dict:
    """A table's row: `names` by NAMES, the measurements of scores and decisions (n,) against the truth (n,).

    scored_by: (n,) or None, the fit behind each score and decision (`metrics.evaluate`).
    """
    measured = metrics.evaluate(scores, decision, truth, seed=seed, scored_by=scored_by)
    first = {key: measured.pop(key) for key in metrics.COLUMNS}
    return {**names, **first, "seed": seed, "seconds": round(seconds, 2), **measured}


def names_of(scenario: str, variant: str, attack: attacks.Attack) -> dict:
    return dict(zip(NAMES, (scenario, variant, attack.name, attack.classifier, attack.artifact_row), strict=True))


def control_names(scenario: str, variant: str, control: str) -> dict:
    return dict(zip(NAMES, (scenario, variant, control, "", ""), strict=True))


class TableFiles:
    """The four files of a table: NR.csv, NR_scores.npz, NR_p_values.npz and NR.json, or those of SR or MR."""

    def __init__(self, folder: Path, scenario: str) -> None:
        self.table = folder / f"{scenario}.csv"
        self.scores = folder / f"{scenario}_scores.npz"
        self.p_values = folder / f"{scenario}_p_values.npz"
        self.record = folder / f"{scenario}.json"

    def hold(self, made_from: dict) -> bool:
        """Whether all four are there and were made from the same signals, settings and code."""
        if not all(file.exists() for file in (self.table, self.scores, self.p_values, self.record)):
            return False
        return read_json(self.record).get("made_from") == made_from

    def read(self) -> pd.DataFrame:
        """The table with the types and the numbers that were written. An attack may be called `null`."""
        missing = {"keep_default_na": False, "na_values": [""]}
        table = pd.read_csv(self.table, dtype=dict.fromkeys(TEXTS, str), **missing)
        texts = table.columns.intersection(TEXTS)
        return table.assign(**table[texts].fillna(""))

    def write(
        self, table: pd.DataFrame, scores: dict[str, np.ndarray], p_values: dict[str, np.ndarray], record: dict
    ) -> None:
        """Write all four. The record says that the others belong to it, so the old one is removed before they are
        written, and the new one is written after them.

        p_values: the headlines' (A,), by the name of the block.
        """
        self.record.unlink(missing_ok=True)
        write_atomically(self.scores, lambda part: np.savez(part, **scores))
        write_atomically(self.p_values, lambda part: np.savez(part, **p_values))
        write_atomically(self.table, lambda part: table.to_csv(part, index=False))
        write_json(self.record, record)


class UnfinishedTable:
    """The results of a table's attacks while it is being made, so that a killed run loses one attack and not all.

    A result can be used whichever attacks were asked for beside it. So a later run finds the results even if it leaves
    out the attack that was killed.
    """

    def __init__(self, folder: Path, scenario: str, made_from: dict) -> None:
        self.folder = folder / f"{scenario}_unfinished"
        content = {key: value for key, value in made_from.items() if key != "attacks"}
        self.digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def file(self, job: str, attack: str) -> Path:
        return self.folder / f"{self.digest}_{job}_{attack.replace('/', '_')}.npz"

    def read(self, file: Path) -> tuple[attacks.Result, float] | None:
        """A kept result and its seconds; None where there is none."""
        with contextlib.suppress(*DAMAGED), np.load(file, allow_pickle=False) as kept:
            result = attacks.Result(kept["scores"], kept["decision"], kept["shadow_scores"], str(kept["chosen"]))
            return result, float(kept["seconds"])
        return None

    def keep(self, file: Path, result: attacks.Result, seconds: float) -> None:
        write_atomically(file, lambda part: np.savez(part, seconds=seconds, **result._asdict()))

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
