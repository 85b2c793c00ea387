"""Membership inference attacks: arrays in, scores out. One file an attack, named after its paper or method.

`NR`, `SR` and `MR` list what a scenario reports, in the order of its table (`USUAL` by the scenario's name); `KNOWN`
lists all that can be asked for by name (`--attacks`), which in NR and MR is more. All entries are called alike:

    for attack in attacks.NR:
        if not attacks.missing(attack, models):
            scores, decision, *_ = attack.run(models, seed=7)

`models` is a sequence of `Signals`: NR [the model], SR [original, compressed], MR [original or None, *compressed].
"""

from attacks.blind import blind
from attacks.common.signals import Result, Signals, Unusable, audit_rows
from attacks.mr import Membership, membership
from attacks.registry import KNOWN, MR, NR, SR, TWO_REFERENCES, UPPER_BOUND, USUAL, Attack, missing, needs

__all__ = [
    "KNOWN",
    "MR",
    "NR",
    "SR",
    "TWO_REFERENCES",
    "UPPER_BOUND",
    "USUAL",
    "Attack",
    "Membership",
    "Result",
    "Signals",
    "Unusable",
    "audit_rows",
    "blind",
    "membership",
    "missing",
    "needs",
]
