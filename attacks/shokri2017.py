"""Shokri et al. 2017, Membership inference attacks against machine learning models (IEEE S&P).

A classifier on the posterior tells members from non-members (section V.D). One classifier serves all classes and the
posterior is sorted in descending order, so that it reads "how sure", not "which class"; unsorted, logistic regression
sits at chance.
"""

import numpy as np

from attacks.arrays import Result, Signals, audit_rows, classify, posterior


def features(target: Signals, rows) -> np.ndarray:
    """Posterior sorted in descending order, (n, C)."""
    return -np.sort(-posterior(target.logits[rows]), axis=-1)


def shokri2017(target: Signals, *, seed: int, classifier: str = "random_forest") -> Result:
    """Scores of the victim's audit points, (A,). classifier: "logistic_regression" or "random_forest"."""
    shadow, victim = audit_rows(target)
    fitted_on, applied_to = features(target, shadow), features(target, victim)
    return classify(classifier, fitted_on, target.member[shadow], shadow, applied_to, seed=seed)
