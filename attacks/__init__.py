"""Membership inference attacks: arrays in, scores out. One file an attack, named after its paper or method.

`NR`, `SR` and `MR` list what a scenario reports, in the order of its table; `KNOWN` what can be asked of it by name
(`--attacks`), which for NR is more. All entries are called alike:

    for attack in attacks.NR:
        if not attacks.missing(attack, models):
            scores, decision, _ = attack.run(models, seed=7)

`models` is a sequence of `Signals`: NR [the model], SR [original, compressed], MR [original or None, *compressed].
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from attacks.arrays import Result, Signals, Unusable, audit_rows, outside, reference_count
from attacks.base import base
from attacks.bavaria import bavaria
from attacks.blind import blind
from attacks.calibrated import calibrated
from attacks.combined import combined
from attacks.gap import gap
from attacks.joint import joint
from attacks.lira import FORMS as LIRA_FORMS
from attacks.lira import lira
from attacks.model_updates import model_updates
from attacks.mr import Membership, membership, mr
from attacks.nasr2018 import nasr2018
from attacks.nn import nn
from attacks.rmia import rmia
from attacks.samia import samia
from attacks.shokri2017 import shokri2017
from attacks.song2021 import song2021
from attacks.sr import sr
from attacks.threshold import STATISTICS, threshold
from attacks.yeom2018 import entropy, yeom2018

__all__ = ["KNOWN", "MR", "NR", "SR", "Attack", "Membership", "Result", "Signals", "Unusable", "blind", "membership"]
__all__ += ["missing"]


class Attack(NamedTuple):
    """A row of a table."""

    name: str
    classifier: str  # "" where there is none
    artifact_row: str  # the authors' name of the row, "" where they have none
    # run(models, *, seed, recipe="fast", device="cpu", progress=None, memberships=None, earlier=None)
    run: Callable[..., Result]
    needs: frozenset = frozenset()  # of "sensitivity", "references", "two references"
    published: bool = True  # an attack of the literature, not one of ours
    eligible: bool = True  # for the headline: its shadow scores are of rows it was not fitted on

    @property
    def key(self) -> str:
        """Unique in its scenario: `attack` or `attack/classifier`."""
        return f"{self.name}/{self.classifier}" if self.classifier else self.name


def _row(attack, classifier="", artifact_row="", needs=frozenset(), *, name="", **bound) -> Attack:
    """An attack of the literature that takes the models one by one."""
    bound |= {"classifier": classifier} if classifier else {}

    def run(models, *, seed, **_):
        return attack(*models, seed=seed, **bound)

    return Attack(name or attack.__name__, classifier, artifact_row, run, needs)


def _network(attack, **bound):
    """The run of an attack network on one model."""

    def run(models, *, seed, earlier=None, memberships=None, **options):
        return attack(*models, seed=seed, **bound, **options)

    return run


def _mr(models, *, seed, earlier=None, **options):
    return mr(models[0], models[1:], seed=seed, **options)


def _joint(models, *, seed, **_):
    return joint(_given(models), seed=seed)


def _calibrated(models, *, seed, **_):
    return calibrated(_given(models), seed=seed)


def _combined(models, *, seed, earlier=None, **_):
    return combined(_given(models), seed=seed, earlier=earlier)


def _given(models):
    return [model for model in models if model is not None]


_CLASSIFIERS = ("logistic_regression", "random_forest")
_REFERENCE_NEEDS = {  # what is missing, in words, and how many references each of the victim's points must have
    "references": ("reference model for every audit point", 1),
    "two references": ("two reference models for every audit point of the victim", 2),
}
_REFERENCES, _TWO = frozenset({"references"}), frozenset({"two references"})
_ARTIFACT = "CompLeakNR_"
_OURS = tuple(
    Attack(name, "", "", run, _REFERENCES, published=False)
    for name, run in {"joint": _joint, "calibrated": _calibrated, "combined": _combined}.items()
)

NR = (
    *(
        _row(attack, classifier, _ARTIFACT + row)
        for attack, row in ((shokri2017, "train_based_method_1"), (nasr2018, "train_based_method_2"))
        for classifier in _CLASSIFIERS
    ),
    _row(yeom2018, "", _ARTIFACT + "metric_based_method_1"),
    _row(entropy),
    _row(song2021, "", _ARTIFACT + "metric_based_method_2"),
    Attack("samia", "", _ARTIFACT + "SAMIA", _network(samia), frozenset({"sensitivity"}), eligible=False),
    _row(rmia, "", _ARTIFACT + "RMIA", _REFERENCES),
    _row(gap),
    _row(base, "", "", _REFERENCES),
    *(_row(lira, form, "", needs) for form, needs in zip(LIRA_FORMS, (_REFERENCES, _TWO), strict=True)),
    _row(bavaria, "", "", _TWO),
    *_OURS,
)
SR = (
    *(
        _row(sr, classifier, name=name, label=label)
        for name, label in (("SR1", False), ("SR2", True))
        for classifier in _CLASSIFIERS
    ),
    _row(model_updates),
    *_OURS,
)
MR = (Attack("MR", "", "", _mr, eligible=False), *_OURS)

EXTRA = (  # of NR, where they are asked for: the attacks that SAMIA was compared with
    *(
        Attack(name, "", "", _network(nn, features=features), eligible=False)
        for name, features in (("nn", "posterior"), ("nn_top3", "top3"), ("nn_cls", "posterior_and_label"))
    ),
    *(_row(threshold, statistic) for statistic in STATISTICS),
)
KNOWN = {"NR": (*NR, *EXTRA), "SR": SR, "MR": MR}


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
    count = reference_count(outside(target))
    return tuple(int(count[rows].min()) for rows in audit_rows(target))
