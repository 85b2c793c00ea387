"""The models of a run: the victim in row 0, then the attacker's shadow models."""

from collections.abc import Sequence

import numpy as np

from core.errors import UserError

VICTIM = "victim_model"


def roles_of(shadow_num: int) -> list[str]:
    """The names of a run's models, as folders spell them: `victim_model`, `shadow_model_0`, ..."""
    return [VICTIM, *(f"shadow_model_{number}" for number in range(shadow_num))]


def selected_roles(roles: Sequence[str], names: Sequence[str] | None) -> list[str]:
    """The roles that --roles names, in the run's order; all of them for None. UserError where the run has none such."""
    if names is None:
        return list(roles)
    if unknown := set(names) - set(roles):
        raise UserError(f"--roles {min(unknown)}: this run has {' '.join(roles)}")
    return [role for role in roles if role in names]


def role_seed(seed: int, row: int) -> int:
    """A seed of its own for each model of a run: victim and shadow models start and shuffle differently."""
    return int(np.random.SeedSequence([seed, row]).generate_state(1)[0])
