"""Shokri et al. 2017, Membership inference attacks against machine learning models (IEEE S&P).

A classifier on the posterior tells members from non-members (section V.D). Here one classifier serves all classes, and
the posterior is sorted in descending order, so that the classifier sees how sure the model is and not of which class.
On unsorted posteriors logistic regression does no better than chance.
"""

import numpy as np

from attacks.common.classifiers import classify
from attacks.common.signals import Result, Signals, audit_rows
from attacks.common.statistics import posterior


def features(target: Signals, rows) -> np.ndarray:
    """Posterior sorted in descending order, (n, C)."""
    return -np.sort(-posterior(target.logits[rows]), axis=-1)


def shokri2017(target: Signals, *, seed: int, classifier: str = "random_forest") -> Result:
    """Scores of the victim's audit points, (A,). classifier: "logistic_regression" or "random_forest".

    Raises Unusable where there is no shadow model or too few points to hold some out, ValueError for another
    classifier.
    """
    shadow, victim = audit_rows(target)
    fitted_on, applied_to = features(target, shadow), features(target, victim)
    return classify(classifier, fitted_on, target.member[shadow], shadow, applied_to, seed=seed)
