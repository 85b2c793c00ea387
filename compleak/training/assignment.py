"""What is decided about one model of a run before it is made: worked out once, then handed down."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import defenses
from compleak.runs.roles import role_seed
from compleak.runs.run import Run, reserve_of, split
from compleak.runs.variants import ORIGINAL, Variant
from data import splits


@dataclass(frozen=True)
class Assignment:
    """One model: which points it sees, with which seed and defence, and where it is kept."""

    run: Run
    variant: Variant
    role: str
    members: np.ndarray  # (n,) the points that it is trained on
    held_out: np.ndarray  # (m,) the points that its test accuracy is measured on
    reserve: np.ndarray | None  # (k,) the points that its defence may use beside the members
    seed: int
    defence: str  # "" for none
    folder: Path

    @property
    def title(self) -> str:
        return f"{self.variant} {self.role}"

    def new_procedure(self, slim_penalty: float = 0.0) -> defenses.Procedure:
        """The training step of this model's defence, or plain training with a penalty on batch norm's scales."""
        if not self.defence:
            return defenses.Procedure(slim_penalty)
        config = self.run.config
        return defenses.build(self.defence, config["defend_arg"], num_cls=config["num_cls"], seed=self.seed)

    def defence_facts(self) -> dict:
        """What the defence adds to the checkpoint's `made_from`; nothing without a defence."""
        if not self.defence:
            return {}
        facts = {"defend": self.defence, "defend_arg": self.run.config["defend_arg"]}
        if self.reserve is not None:
            facts["reserve"] = points_fingerprint(self.members, self.reserve)
        return facts

    def members_fingerprint(self) -> str:
        """Which points the model is trained on and tested on, as a short hash."""
        return points_fingerprint(self.members, self.held_out)


def assign(run: Run, variant: Variant, role: str) -> Assignment:
    """The assignment of one model of a run."""
    row = run.row_of(role)
    defence = defence_of(run, role, variant)
    members, reserve = members_and_reserve(run, role, row)
    others = split(run)[0].pairs[row].test
    return Assignment(
        run=run,
        variant=variant,
        role=role,
        members=members,
        held_out=others if reserve is None else others[~np.isin(others, reserve)],
        reserve=reserve if defence else None,
        seed=role_seed(run.config["seed"], row),
        defence=defence,
        folder=run.role_dir(variant, role),
    )


def defence_of(run: Run, role: str, variant: Variant) -> str:
    """The defence that a model is trained with, "" for none.

    Where only fine-tuning is defended, an original has none; where only originals are, a fine-tuned model has none.
    """
    defence = run.defence
    is_original = variant == ORIGINAL
    is_fine_tuned = not is_original and variant.is_fine_tuned
    is_spared = defence.undefended_original if is_original else defence.undefended_finetuning and is_fine_tuned
    return defence.name if defence.defends(role) and not is_spared else ""


def members_and_reserve(run: Run, role: str, row: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The points that a model trains on, and the reserve where the role's defence needs one.

    An undefended original leaves out the reserve that its defended fine-tuning will use, so that no model has memorised
    its reserve.
    """
    if run.defence.defends(role) and defenses.DEFENCES[run.defence.name].step.needs_reserve:
        return reserve_of(run, row)
    return split(run)[0].pairs[row].train, None


def points_fingerprint(train: np.ndarray, test: np.ndarray) -> str:
    return splits.fingerprint(splits.Split([splits.Pair(train, test)]))
