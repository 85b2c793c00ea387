"""What a model can be asked beside its plain answer. One entry a probe; an attack says which probes it needs.

A probe has an array of its own name in the signals file, and a number, its amount, that says how much is asked.

    sensitivity  (R, N, C) float32     how far each probability moves when the input does
    augmented    (R, N, Q, C) float16  log-posteriors of Q fixed crops and flips of each point
    correct      (R, N, Q) bool        whether the label of each of Q fixed crops and flips is right, and nothing else
    noise        (R, N, L) float32     share of noisy copies whose label is right, for L strengths of noise
    boundary     (R, N, 2) float32     distance to the decision boundary by labels alone and by gradients

An attack compares what a model says of its audited points with what it says of those of other models, so all probes
are asked about audit sets. `augmented` is asked about more: attacks compare it with references, the models that did not
train on the point. It is asked about each point that the model audits or has not trained on; left out are only the
unaudited members. Floats are NaN, and bits False, where nothing was asked.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from compleak.queries.boundary import FEWEST_POINTS, ask_boundary, find_boundary_problem, import_toolbox
from compleak.queries.noise import ask_noise, can_be_noisy, find_noise_problem
from compleak.queries.sensitivity import ask_sensitivity, find_sensitivity_problem
from compleak.queries.subject import Subject
from compleak.queries.views import ask_augmented, ask_correct, find_augmented_problem, find_correct_problem, has_views
from data.inputs import InputKind
from data.noise import LEVELS
from data.views import MOST_VIEWS


class Probe(NamedTuple):
    """A question that is asked of a model about some points."""

    flag: str
    help: str
    find_problem: Callable[[np.ndarray, np.ndarray, np.ndarray], str | None]  # (array, logits, asked) -> a sentence
    amount_key: str  # under which the amount is kept with the answers
    default_amount: int
    query: Callable[[Subject, int], np.ndarray]  # (subject, amount) -> (n, ...)
    queries_per_point: Callable[[int], int]  # amount -> answers of the model about most points
    least: int = 1  # the smallest amount beside 0
    most: float = math.inf  # the largest amount
    of_outsiders: bool = False  # also asked about points that the model neither audits nor was trained on
    suits: Callable[[InputKind], bool] = lambda kind: True
    needs: str = ""  # what suitable inputs have
    check_installed: Callable[[], object] = lambda: None  # UserError where a package is missing

    @property
    def is_usual(self) -> bool:
        """Whether it is asked by default."""
        return self.default_amount > 0

    def is_asked(self, audited: np.ndarray, member: np.ndarray) -> np.ndarray:
        """(N,) bool: the points that a model is asked about; audited and member: (N,) bool of this model.

        Both may also be (R, N), of several models.
        """
        return audited | ~member if self.of_outsiders else audited


PROBES = {
    "sensitivity": Probe(
        flag="sensitivity_draws",
        help="noise draws for SAMIA, 0 for none",
        find_problem=find_sensitivity_problem,
        amount_key="draws",
        default_amount=10,
        query=ask_sensitivity,
        queries_per_point=lambda draws: draws,
    ),
    "augmented": Probe(
        flag="queries",
        help=f"fixed crops and flips of each image, such as 2 or 18 ({MOST_VIEWS} at most), whose posteriors lira, "
        "rmia and ours average; 0 for none",
        find_problem=find_augmented_problem,
        amount_key="queries",
        default_amount=0,
        query=ask_augmented,
        queries_per_point=lambda count: count,
        most=MOST_VIEWS,
        of_outsiders=True,
        suits=has_views,
        needs="crops and flips",
    ),
    "correct": Probe(
        flag="label_queries",
        help=f"fixed crops and flips of each image, up to {MOST_VIEWS}, of which only the labels count, for "
        "label_only_augmentation; 0 for none",
        find_problem=find_correct_problem,
        amount_key="label_queries",
        default_amount=0,
        query=ask_correct,
        queries_per_point=lambda count: count,
        most=MOST_VIEWS,
        suits=has_views,
        needs="crops and flips",
    ),
    "noise": Probe(
        flag="noise_repeats",
        help="noisy copies of each point for each strength of noise, of which only the labels count, for "
        "label_only_noise; 0 for none",
        find_problem=find_noise_problem,
        amount_key="noise_repeats",
        default_amount=0,
        query=ask_noise,
        queries_per_point=lambda repeats: repeats * LEVELS,
        suits=can_be_noisy,
        needs="values that noise changes a little",
    ),
    "boundary": Probe(
        flag="boundary_points",
        help=f"points of each audit set, {FEWEST_POINTS} or more, whose distance to the decision boundary is measured, "
        'thousands of answers each, for boundary; needs pip install ".[boundary]"; 0 for none',
        find_problem=find_boundary_problem,
        amount_key="boundary_points",
        default_amount=0,
        query=ask_boundary,
        queries_per_point=lambda count: 0,  # of most points; of those drawn, HopSkipJump asks about 1,300 times
        least=FEWEST_POINTS,
        suits=can_be_noisy,
        needs="values that a search for the boundary changes",
        check_installed=import_toolbox,
    ),
}
