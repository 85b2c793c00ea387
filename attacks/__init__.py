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

from attacks.arrays import Result, Signals, reference_mask
from attacks.blind import blind
from attacks.calibrated import calibrated
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
    needs: frozenset = frozenset()  # of "sensitivity", "references"

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


def _calibrated(models, *, seed, recipe="fast", device="cpu", progress=None, memberships=None):
    return calibrated([model for model in models if model is not None], seed=seed)


_CLASSIFIERS = ("logistic_regression", "random_forest")
_REFERENCES, _SENSITIVITY = frozenset({"references"}), frozenset({"sensitivity"})
_ROW = "CompLeakNR_"
_CALIBRATED = Attack("calibrated", "", "", _calibrated, _REFERENCES)

NR = (
    *(
        Attack(attack.__name__, classifier, _ROW + row, partial(_on_all, attack, classifier=classifier))
        for attack, row in ((shokri2017, "train_based_method_1"), (nasr2018, "train_based_method_2"))
        for classifier in _CLASSIFIERS
    ),
    Attack("yeom2018", "", _ROW + "metric_based_method_1", partial(_on_all, yeom2018)),
    Attack("entropy", "", "", partial(_on_all, entropy)),
    Attack("song2021", "", _ROW + "metric_based_method_2", partial(_on_all, song2021)),
    Attack("samia", "", _ROW + "SAMIA", _samia, _SENSITIVITY),
    Attack("rmia", "", _ROW + "RMIA", partial(_on_all, rmia), _REFERENCES),
    _CALIBRATED,
)
SR = (
    *(
        Attack(name, classifier, "", partial(_on_all, sr, label=label, classifier=classifier))
        for name, label in (("SR1", False), ("SR2", True))
        for classifier in _CLASSIFIERS
    ),
    _CALIBRATED,
)
MR = (Attack("MR", "", "", _mr), _CALIBRATED)


def missing(attack: Attack, models: Sequence[Signals | None]) -> list[str]:
    """What the attack needs and these signals lack, in words a user understands; [] when it can run."""
    given = [model for model in models if model is not None]
    lacks = []
    if any(len(model.logits) < 2 for model in given):
        lacks.append("shadow models")
    elif "references" in attack.needs and not all(_has_references(model) for model in given):
        lacks.append("reference model for every audit point")
    if "sensitivity" in attack.needs and any(model.sensitivity is None for model in given):
        lacks.append("sensitivity")
    return lacks


def _has_references(target: Signals) -> bool:
    return all(
        reference_mask(target, model).any(axis=0)[target.audit[model]].all() for model in range(len(target.audit))
    )
