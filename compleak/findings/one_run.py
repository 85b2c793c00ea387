"""Everything that a page about one run shows, as finished frames."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from compleak.findings import ablation, claims, exposure, outputs, roc, tails
from compleak.runs.run import Run


class RunFindings(NamedTuple):
    attacks: pd.DataFrame  # `outputs.attack_table`
    models: pd.DataFrame  # `outputs.model_table`
    claims: pd.DataFrame  # `claims.compare`
    family: pd.DataFrame  # `ablation.family_table`
    greedy: pd.DataFrame  # `ablation.greedy_order`
    points: pd.DataFrame  # `exposure.points_table`
    curves: pd.DataFrame  # `roc.roc_curves`
    tails: pd.DataFrame  # `tails.tail_table`


def findings_of_run(run: Run, variants: Sequence[str]) -> RunFindings:
    """Work everything out from what the stages of a run have left; nothing is written.

    variants: those of one audit, the original first. All have been attacked, and MR has attacked them together.
    """
    seed = run.config["seed"]
    truth = outputs.membership(run)
    scores, p_values = (functools.partial(read, run) for read in (outputs.scores_of, outputs.p_values_of))
    table = outputs.attack_table(run, variants)
    models = outputs.model_table(run, variants)
    return RunFindings(
        attacks=table,
        models=models,
        claims=claims.compare(table, scores, truth, seed),
        family=ablation.family_table(table, models, scores, truth, seed),
        greedy=ablation.greedy_order(*outputs.attacker_views(run, variants), seed),
        points=exposure.points_table(table, scores, truth, *outputs.audit_points(run), p_values),
        curves=roc.roc_curves(table, scores, truth),
        tails=tails.tail_table(variants, outputs.records_of(run, variants)),
    )


def curves_of_run(run: Run) -> pd.DataFrame:
    """`roc.roc_curves` of what a run has been attacked with so far."""
    table = outputs.attack_table(run, outputs.attacked_variants(run))
    return roc.roc_curves(table, functools.partial(outputs.scores_of, run), outputs.membership(run))
