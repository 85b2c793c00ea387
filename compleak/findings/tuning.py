"""Which learning rate and batch size suit a defence: judged on the attacker's pool, which holds no point of the victim.

The first shadow model is trained with each candidate on its members. What counts is its accuracy on its non-members,
points of the pool that it was not trained on. Nobody looks at the victim, so the choice does not make the audit's
numbers look better than they are. It costs the members of a victim of the same seed no privacy; another seed draws
another split, whose victim has points in this pool.
"""

from collections.abc import Sequence

import pandas as pd

from compleak.findings import outputs
from compleak.runs import checkpoints
from compleak.runs.roles import roles_of
from compleak.runs.run import Run
from compleak.runs.variants import ORIGINAL
from core.errors import UserError

COMPARED = ["defence", "argument", "network"]  # candidates are compared where these agree
FIRST_SHADOW = roles_of(1)[1]


def tuning_table(runs: Sequence[Run]) -> pd.DataFrame:
    """A row for each candidate, with `chosen` at the most accurate of each defence; the first of equals.

    A candidate whose training diverged has no accuracy. UserError where all did.
    """
    finished = [checkpoints.is_finished(run.role_dir(ORIGINAL, FIRST_SHADOW)) for run in runs]
    if not any(finished):
        raise UserError("the training of every candidate diverged: name lower learning rates, as NAME:ARG:LR:BATCH")
    measured = [_measured(run) if is_made else {} for run, is_made in zip(runs, finished, strict=True)]
    rows = pd.DataFrame([{**_candidate(run), **facts} for run, facts in zip(runs, measured, strict=True)])
    best = rows.dropna(subset="pool_accuracy").groupby(COMPARED, sort=False)["pool_accuracy"].idxmax()
    return rows.assign(chosen=rows.index.isin(best))


def _candidate(run: Run) -> dict:
    return {
        "defence": run.config["defend"],
        "argument": run.config["defend_arg"],
        "network": run.config["model_name"],
        "lr": run.config["defend_lr"],
        "batch_size": run.config["defend_batch_size"],
    }


def _measured(run: Run) -> dict:
    meta = outputs.model_meta(run, str(ORIGINAL), FIRST_SHADOW)
    return {
        "pool_accuracy": meta["test_accuracy"],
        "train_accuracy": meta["train_accuracy"],
        "epsilon": meta.get("privacy", {}).get("epsilon"),
        "seconds": meta["seconds"],
    }
