"""Which learning rate and batch size suit a defence: judged on the attacker's pool, which holds no point of the victim.

The first shadow model is trained with each candidate on its members. What counts is its accuracy on its non-members,
points of the pool that it was not trained on. Nobody looks at the victim, so the choice costs the victim's members no
privacy, and it does not make the audit's numbers look better than they are.
"""

from collections.abc import Sequence

import pandas as pd

from compleak.findings import outputs
from compleak.runs.roles import roles_of
from compleak.runs.run import Run
from compleak.runs.variants import ORIGINAL

COMPARED = ["defence", "argument", "network"]  # candidates are compared where these agree


def tuning_table(runs: Sequence[Run]) -> pd.DataFrame:
    """A row for each candidate, with `chosen` at the most accurate of each defence; the first of equals."""
    rows = pd.DataFrame([_row(run) for run in runs])
    best = rows.groupby(COMPARED, sort=False)["pool_accuracy"].idxmax()
    return rows.assign(chosen=rows.index.isin(best))


def _row(run: Run) -> dict:
    first_shadow = roles_of(1)[1]
    meta = outputs.model_meta(run, str(ORIGINAL), first_shadow)
    return {
        "defence": run.config["defend"],
        "argument": run.config["defend_arg"],
        "network": run.config["model_name"],
        "lr": meta["made_from"]["lr"],
        "batch_size": meta["made_from"]["batch_size"],
        "pool_accuracy": meta["test_accuracy"],
        "train_accuracy": meta["train_accuracy"],
        "epsilon": meta.get("privacy", {}).get("epsilon"),
        "seconds": meta["seconds"],
    }
