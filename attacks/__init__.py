"""Membership inference attacks: arrays in, scores out. One file an attack, named after its paper or method.

`NR`, `SR` and `MR` list what a scenario reports, in the order of its table; all entries are called alike:

    for attack in attacks.NR:
        if not attacks.missing(attack, models):
            scores, decision = attack.run(models, seed=7)

`models` is a sequence of `Signals`: NR [the model], SR [original, compressed], MR [original or None, *compressed].
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from attacks.arrays import Result, Signals, audit_rows, outside
from attacks.base import base
from attacks.bavaria import bavaria
from attacks.blind import blind
from attacks.calibrated import calibrated
from attacks.gap import gap
from attacks.joint import joint
from attacks.lira import FORMS as LIRA_FORMS
from attacks.lira import lira
from attacks.model_updates import model_updates
from attacks.mr import Membership, membership, mr
from attacks.nasr2018 import nasr2018
from attacks.rmia import rmia
from attacks.samia import samia
from attacks.shokri2017 import shokri2017
from attacks.song2021 import song2021
from attacks.sr import sr
from attacks.yeom2018 import entropy, yeom2018

__all__ = ["MR", "NR", "SR", "Attack", "Membership", "Result", "Signals", "blind", "membership", "missing"]


class Attack(NamedTuple):
    """A row of a table."""

    name: str
    classifier: str  # "" where there is none
    artifact_row: str  # the authors' name of the row, "" where they have none
    run: Callable[..., Result]  # run(models, *, seed, recipe="fast", device="cpu", progress=None, memberships=None)
    needs: frozenset = frozenset()  # of "sensitivity", "references", "two references"
    published: bool = True  # an attack of the literature, not one of ours
    eligible: bool = True  # for the headline: its shadow scores are of rows it was not fitted on

    @property
    def key(self) -> str:
        """Unique in its scenario: `attack` or `attack/classifier`."""
        return f"{self.name}/{self.classifier}" if self.classifier else self.name


def _on_all(attack, models, *, seed, recipe="fast", device="cpu", progress=None, memberships=None, **bound):
    return attack(*models, seed=seed, **bound)


def _samia(models, *, seed, recipe="fast", device="cpu", progress=None, memberships=None):
    return samia(*models, seed=seed, recipe=recipe, device=device, progress=progress)


def _mr(models, *, seed, **options):
    return mr(models[0], models[1:], seed=seed, **options)


def _on_all_given(attack, models, *, seed, recipe="fast", device="cpu", progress=None, memberships=None):
    return attack([model for model in models if model is not None], seed=seed)


_CLASSIFIERS = ("logistic_regression", "random_forest")
_REFERENCE_NEEDS = {  # what is missing, in words, and how many references each of the victim's points must have
    "references": ("reference model for every audit point", 1),
    "two references": ("two reference models for every audit point of the victim", 2),
}
_REFERENCES, _TWO = frozenset({"references"}), frozenset({"two references"})
_ROW = "CompLeakNR_"
_OURS = tuple(
    Attack(attack.__name__, "", "", partial(_on_all_given, attack), _REFERENCES, published=False)
    for attack in (joint, calibrated)
)

NR = (
    *(
        Attack(attack.__name__, classifier, _ROW + row, partial(_on_all, attack, classifier=classifier))
        for attack, row in ((shokri2017, "train_based_method_1"), (nasr2018, "train_based_method_2"))
        for classifier in _CLASSIFIERS
    ),
    Attack("yeom2018", "", _ROW + "metric_based_method_1", partial(_on_all, yeom2018)),
    Attack("entropy", "", "", partial(_on_all, entropy)),
    Attack("song2021", "", _ROW + "metric_based_method_2", partial(_on_all, song2021)),
    Attack("samia", "", _ROW + "SAMIA", _samia, frozenset({"sensitivity"}), eligible=False),
    Attack("rmia", "", _ROW + "RMIA", partial(_on_all, rmia), _REFERENCES),
    Attack("gap", "", "", partial(_on_all, gap)),
    Attack("base", "", "", partial(_on_all, base), _REFERENCES),
    *(
        Attack("lira", form, "", partial(_on_all, lira, classifier=form), needs)
        for form, needs in zip(LIRA_FORMS, (_REFERENCES, _TWO), strict=True)
    ),
    Attack("bavaria", "", "", partial(_on_all, bavaria), _TWO),
    *_OURS,
)
SR = (
    *(
        Attack(name, classifier, "", partial(_on_all, sr, label=label, classifier=classifier))
        for name, label in (("SR1", False), ("SR2", True))
        for classifier in _CLASSIFIERS
    ),
    Attack("model_updates", "", "", partial(_on_all, model_updates)),
    *_OURS,
)
MR = (Attack("MR", "", "", _mr, eligible=False), *_OURS)


def missing(attack: Attack, models: Sequence[Signals | None]) -> list[str]:
    """What the attack needs and these signals lack, in words a user understands; [] when it can run."""
    given = [model for model in models if model is not None]
    lacks = []
    if any(len(model.logits) < 2 for model in given):
        lacks.append("shadow models")
    elif least := attack.needs & _REFERENCE_NEEDS.keys():
        (words, of_victim), few = _REFERENCE_NEEDS[min(least)], [_fewest_references(model) for model in given]
        if any(shadow < 1 or victim < of_victim for shadow, victim in few):
            lacks.append(words)
    if "sensitivity" in attack.needs and any(model.sensitivity is None for model in given):
        lacks.append("sensitivity")
    return lacks


def _fewest_references(target: Signals) -> tuple[int, int]:
    """Of any audit point: a shadow's, the victim's."""
    mask = outside(target)
    count = mask.sum(axis=0) - mask
    return tuple(int(count[rows].min()) for rows in audit_rows(target))
