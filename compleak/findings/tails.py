"""What the losses alone say of each model, without a shadow model: `attacks.tail` with its interval."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from attacks.common.statistics import cross_entropy
from attacks.tail import tail
from compleak.audits import metrics
from compleak.queries.signals_file import Record


def tail_of(losses: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """`tnr` with _lo and _hi, as a fraction. losses (A,), truth (A,) bool of the victim's audited points.

    It is the hit rate on non-members at few false alarms on members, so it has the interval of such a rate.
    """
    interval = metrics.tpr_interval(losses, ~truth)
    return metrics.interval_columns({"tnr": (tail(losses[truth], losses[~truth]), *interval)})


def tail_table(variants: Sequence[str], records: Sequence[Record]) -> pd.DataFrame:
    """A row for each model: `variant` and `tail_of` its audited points."""
    lines = []
    for variant, record in zip(variants, records, strict=True):
        losses = cross_entropy(record.logits[:1], record.labels)[0, record.audit[0]]
        lines.append({"variant": variant, **tail_of(losses, record.truth)})
    return pd.DataFrame(lines)
