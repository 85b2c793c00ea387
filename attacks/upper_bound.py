"""What an auditor can know at best of one model: attacks whose references trained on the victim's very points.

This is no attack from outside. It tells an auditor how far attacks from outside fall short of what can be known. It
compares references that trained on a point (in) with references that did not (out), in two ways; which one counts, and
with which settings, is chosen on the shadows:

Carlini et al. 2022 (IEEE S&P), algorithm 1, online LiRA, with one variance for all points or each point's own:

    score(x) = log N(confidence; mean_in, deviation_in) - log N(confidence; mean_out, deviation_out)

Lassila et al. 2025 (NeurIPS), online BASE, with the scales and temperatures of `attacks.base`:

    score(x) = log p_T(x | target) - scale log (mean p_T(x | in) + mean p_T(x | out)) / 2

With few references BASE is better, because it estimates one mean for each point and LiRA two. Where no reference
trained on a point, its mean over in is replaced: for LiRA by mean_out plus the average difference of the two means, for
BASE by the mean over out.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from attacks.base import ratios
from attacks.common.references import (
    Moments,
    checked_outsiders,
    known_insiders,
    reference_count,
    reference_log_p,
    reference_moments,
)
from attacks.common.signals import Result, Signals, Unusable, audit_rows
from attacks.common.statistics import confidence
from attacks.common.thresholds import choose_among
from attacks.lira import FORMS, fill_variance

LEAST_COVERED = 0.5  # the least share of audit points on which some reference trained


def upper_bound(target: Signals, *, seed: int = 0) -> Result:
    """Scores of the victim's audit points, (A,), from references with and without them. `seed` is unused.

    Raises Unusable unless every audit point has a reference that did not train on it, and at least half of them have
    one that did.
    """
    shadow, victim = audit_rows(target)
    outsiders = checked_outsiders(target, "upper_bound")
    insiders = known_insiders(target)
    if not all((reference_count(insiders)[rows] > 0).mean() >= LEAST_COVERED for rows in (shadow, victim)):
        raise Unusable(
            "it needs, for at least half of the audit points, a reference model that trained on them (train.py --split "
            "online)"
        )

    @np.errstate(invalid="ignore")  # rows that no attack reads may have no reference at all
    def mean_of_both(log_p):
        of_outsiders, of_insiders = (reference_log_p(log_p, mask) for mask in (outsiders, insiders))
        of_insiders = np.where(np.isnan(of_insiders), of_outsiders, of_insiders)
        return np.logaddexp(of_outsiders, of_insiders) - np.log(2)

    options = itertools.chain(likelihood_ratios(target, insiders, outsiders), ratios(target, mean_of_both))
    return choose_among(target, options)


def likelihood_ratios(target: Signals, insiders, outsiders) -> Iterator[tuple[str, np.ndarray]]:
    """The score of online LiRA, (R, N), of each form, with its name. insiders, outsiders: (R, N) bool."""
    confidences = confidence(target.logits, target.labels)
    of_insiders, of_outsiders = (reference_moments(mask, confidences) for mask in (insiders, outsiders))
    shift = np.nanmean(of_insiders.mean - of_outsiders.mean)
    filled = np.where(of_insiders.count > 0, of_insiders.mean, of_outsiders.mean + shift)
    of_insiders = of_insiders._replace(mean=filled)
    for form in FORMS:
        inside, outside = (log_normal(confidences, references, form) for references in (of_insiders, of_outsiders))
        yield form, inside - outside


def log_normal(confidences, references: Moments, form: str) -> np.ndarray:
    """Log densities, (R, N), of the confidences under the Gaussians of these references, up to a constant."""
    variance = fill_variance(references.variance, references.count)
    if form == "global_variance":
        variance = np.full_like(variance, np.nanmean(references.variance) if (references.count > 1).any() else 1.0)
    return -((confidences - references.mean) ** 2) / (2 * variance) - np.log(variance) / 2
