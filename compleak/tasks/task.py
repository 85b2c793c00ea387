"""What an audit of shipped models is told, as values: made from a task file or from the flags of `audit.py` alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from compleak.runs.settings import AS_THEY_ARE, AnswersSettings
from compleak.tasks.privbox import PrivBoxTask
from core.project import PROJECT
from data.foreign import Preprocessing
from data.noise import LEVELS
from data.splits import DEFAULT_SEED

RUN_PREFIX = "run:"  # of a model that is a variant of one of this project's runs
LIMITS = ("LOW", "MIDDLE")  # levels that --fail_above knows


@dataclass(frozen=True)
class ModelEntry:
    """A model to open. `place` is a path, or `run:<name>/<variant>`; `weights` goes with a Python file."""

    name: str
    place: str
    input: str | None = None
    output: str | None = None
    weights: Path | None = None

    @property
    def path(self) -> Path:
        return Path(self.place)

    @property
    def is_of_run(self) -> bool:
        return self.place.startswith(RUN_PREFIX)


@dataclass(frozen=True)
class ShadowEntry:
    """A shadow model: its versions by the names of the audited models, and the points that it was trained on.

    `members` and `nonmembers` are data; where there is `data`, of this shadow model or of the task, they are lists of
    its points. `audited` lists the points of the audit set, as many members as others; None: they are drawn.
    """

    models: Mapping[str, ModelEntry]
    members: Path
    nonmembers: Path | None = None
    audited: Path | None = None
    data: Path | None = None


@dataclass(frozen=True)
class ShadowTraining:
    """Shadow models that the audit trains itself, from `get_model()` of the audited models' Python files."""

    data: Path  # points that the audited models were not trained on
    count: int = 1
    epochs: int = 10
    lr: float = 1e-3
    batch_size: int = 128
    optimizer: str = "adam"


@dataclass(frozen=True)
class Task:
    """One audit. The first model is the original, the others are compressed versions of it."""

    models: tuple[ModelEntry, ...]
    name: str
    command: str
    members: Path | None = None
    nonmembers: Path | None = None
    data: Path | None = None  # where given, members and nonmembers are lists of its points
    label_column: str | None = None
    classes: tuple[str, ...] | None = None  # in the order of the models' outputs
    preprocessing: Preprocessing = Preprocessing()
    attacker: str | None = None  # None: shadows where there are shadow models, else known_half
    shadows: tuple[ShadowEntry, ...] = ()
    shadow_training: ShadowTraining | None = None
    references: tuple[Mapping[str, ModelEntry], ...] = ()  # of each, the file for every audited model
    answers: AnswersSettings = AS_THEY_ARE  # what is done to answers before the attacker sees them
    attacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by scenario; none: the usual ones
    release: Mapping[str, str] = field(default_factory=dict)
    seed: int = DEFAULT_SEED
    max_points: int | None = None  # audited, members and non-members together
    sensitivity_draws: int = 0
    queries: int = 0  # fixed crops and flips of each image whose posteriors are asked for
    label_queries: int = 0  # those of which the labels alone count
    noise_repeats: int = 0  # noisy copies of each point at each strength, of which the labels alone count
    boundary_points: int = 0  # of each audit set, whose distance to the decision boundary is measured
    no_flip: bool = False  # leave mirrored images out of crops and flips: a mirrored digit is not that digit
    recipe: str = "fast"
    batch_size: int = 128
    threads: int | None = None
    device: str | None = None
    root: Path = PROJECT
    out: Path | None = None
    again: bool = False
    fail_above: str | None = None
    redact: bool = False
    accept_low_accuracy: bool = False
    privbox: tuple[PrivBoxTask, ...] = ()  # attacks of a PrivBox file on this model, run beside ours
    privbox_file: Path | None = None

    @property
    def views(self) -> int:
        """How many crops and flips of each image are asked about, the image as it is among them."""
        return max(self.queries, self.label_queries)

    @property
    def questions_per_point(self) -> int:
        """Of most points: the distance to the boundary, of a sample of them, takes thousands."""
        return max(1, self.views) + self.sensitivity_draws + self.noise_repeats * LEVELS

    @property
    def folder(self) -> Path:
        """Where everything goes that the audit writes."""
        return self.out or self.root / "results" / "audits" / f"{self.name}{self.answers.folder_suffix}"
