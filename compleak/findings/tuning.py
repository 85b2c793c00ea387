"""Which learning rates and batch size suit a defence, judged on the attacker's pool: it holds no point of the victim.

The first shadow model is trained with each candidate on its members. What counts is its accuracy on its non-members,
points of the pool that it was not trained on. Where a learning rate of fine-tuning is tried, it is compressed, too, and
the mean accuracy of the original and its compressed versions counts.

Nobody looks at the victim, so the choice does not make the audit's numbers look better than they are. It costs the
members of a victim of the same seed no privacy; another seed draws another split, whose victim has points in this pool.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from compleak.findings import outputs
from compleak.runs import checkpoints
from compleak.runs.roles import roles_of
from compleak.runs.run import Run
from compleak.runs.variants import ORIGINAL, Variant

COMPARED = ["defence", "argument", "network"]  # candidates are compared where these agree
FIRST_SHADOW = roles_of(1)[1]


def tuning_table(runs: Sequence[Run], versions: Sequence[Sequence[Variant]]) -> pd.DataFrame:
    """A row for each candidate, with `chosen` at the most accurate of each defence; the first of equals.

    versions: the models of each run, the original first. Where there are several, each has a column with its accuracy.
    What diverged has none. A candidate of which any model diverged has no `pool_accuracy` and is never chosen.
    """
    measured = [_measured(run, own) for run, own in zip(runs, versions, strict=True)]
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
        "finetuning_lr": run.config["defend_finetuning_lr"],
    }


def _measured(run: Run, versions: Sequence[Variant]) -> dict:
    """What the models of one candidate say; a model whose training diverged is not there and says nothing."""
    made = [variant for variant in versions if checkpoints.is_finished(run.role_dir(variant, FIRST_SHADOW))]
    metas = {variant: outputs.model_meta(run, str(variant), FIRST_SHADOW) for variant in made}
    original = metas.get(ORIGINAL, {})
    accuracies = {str(variant): metas[variant]["test_accuracy"] if variant in metas else np.nan for variant in versions}
    return {
        "pool_accuracy": float(np.mean(list(accuracies.values()))),
        **(accuracies if len(accuracies) > 1 else {}),
        "train_accuracy": original.get("train_accuracy", np.nan),
        "epsilon": original.get("privacy", {}).get("epsilon"),
        "seconds": sum(meta["seconds"] for meta in metas.values()),
    }
