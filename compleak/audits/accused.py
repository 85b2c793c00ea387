"""How sure an accusation is: p-values from the scores of points that are known to be no members.

Membership inference attacks with false discovery rate control (ICCV 2025; arXiv:2508.07066): the conformal p-value of
a point is the rank of its score among those of known non-members. If the point is no member and its score behaves as
theirs do, the p-value is at most u with a probability of at most u, whatever the attack. The list of accused is drawn
up from these by Benjamini & Hochberg 1995 (`compleak.findings.exposure.discoveries`).

Known non-members are those of the shadow models or, for an attacker who knows half of the points, those of the victim
itself in the known half. The latter are of the same kind as the judged ones. The former are answers of other models:
that they score alike is an assumption, which the auditor can check by looking at who is on the list.
"""

from collections.abc import Sequence

import numpy as np

import attacks
from compleak.audits.attackers import Part
from compleak.audits.verdicts import join


def conformal_p_values(scores: np.ndarray, of_non_members: np.ndarray) -> np.ndarray:
    """(n,): (1 + how many of the k known non-members score so high or higher) / (1 + k).

    of_non_members (k,): scores by a fit and a choice that did not see these points.
    """
    others = np.sort(of_non_members)
    above = len(others) - np.searchsorted(others, scores, side="left")
    return (1 + above) / (1 + len(others))


def p_values_of(parts: Sequence[Part], results: Sequence[attacks.Result]) -> np.ndarray:
    """(A,): the p-value of each audited point, by its part's own known non-members. results: one for each part."""
    pairs = zip(parts, results, strict=True)
    return join(
        parts,
        [conformal_p_values(result.scores, result.shadow_scores[part.known_truth == 0]) for part, result in pairs],
    )
