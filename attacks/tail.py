"""Dodd et al. 2025, The tail tells all: estimating model-level membership inference vulnerability without reference
models (arXiv:2510.19773): TNR of the loss attack.

No attack but a verdict on a whole model, from the losses of its members and of points it never saw, without a shadow
model: the auditor has both, an attacker has not. Non-members have a heavy tail of high losses. A model that memorises
moves its own hard points out of that tail, and it is these points that strong attacks then find. So the share of
non-members whose loss is higher than nearly all members' predicts how many members LiRA finds at a low false-positive
rate:

    TNR = share of non-members whose loss exceeds t, t the smallest loss that at most `fnr` of the members exceed

The paper's text was at hand in part only, so no equation is named here, and the false-negative rate (by default the
same 0.1 % at which TPR is reported) is our choice.
"""

import numpy as np

FNR = 0.001


def tail(member_losses, other_losses, fnr: float = FNR) -> float:
    """The share of non-members, as a fraction, whose loss lies above those of all but `fnr` of the members.

    member_losses (n,), other_losses (k,): finite. Equal losses fall on the same side. Raises ValueError where one of
    them is empty or not finite.
    """
    members, others = (np.sort(np.asarray(losses, dtype=np.float64)) for losses in (member_losses, other_losses))
    if not len(members) or not len(others):
        raise ValueError("losses of both members and non-members are needed")
    if not (np.isfinite(members).all() and np.isfinite(others).all()):
        raise ValueError("losses must be finite")
    allowed = int(np.floor(fnr * len(members) * (1 + 1e-12)))  # members that may lie above the threshold
    threshold = members[len(members) - 1 - allowed]
    return float((others > threshold).mean())
