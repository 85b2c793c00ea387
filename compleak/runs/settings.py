"""What a stage is told to do, as values. `parse()` of each script makes them; nothing below reads a command line.

In `RunSettings` None means "not said": a stage that opens a run checks only what was said.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from compleak.runs.roles import VICTIM
from compleak.runs.variants import ORIGINAL, Variant
from core.project import PROJECT
from data.datasets import Reading
from data.splits import COMPLEAK, DEFAULT_SEED

DEFAULT_DATASET, DEFAULT_MODEL, DEFAULT_WIDTH = "cifar10", "resnet18", 1.0
WEIGHT_DECAY = {"sgd": 5e-4, "adamw": 1e-2}  # PROTOCOL, section 2; Devlin et al. 2019, appendix A.2
OPTIMIZERS = tuple(WEIGHT_DECAY)
CLUSTERING_LR = 0.00001  # PROTOCOL, section 3; the other compressions' is `CompressSettings.lr`


@dataclass(frozen=True)
class DefenceSettings:
    """Which defence a run has. `name` is "" for none; `argument` is the defence's one number."""

    name: str = ""
    argument: float | None = None
    adaptive: bool = False  # the attacker trains the shadow models with the defence as well
    undefended_original: bool = False  # only the fine-tuning after compression is defended
    undefended_finetuning: bool = False  # only the original is defended
    lr: float | None = None  # of defended originals, and scales defended fine-tuning; None: as without a defence
    finetuning_lr: float | None = None  # of defended fine-tuning where the stage's is `CompressSettings.lr`
    batch_size: int | None = None  # of all defended training; None: as of undefended training

    def defends(self, role: str) -> bool:
        """Whether a role's models are defended: the victim's are, shadow models' where the attacker is adaptive."""
        return bool(self.name) and (role == VICTIM or self.adaptive)

    @property
    def recipe(self) -> str:
        """What of the recipe is the defence's own: `lr 0.5, batch 256, fine-tuning lr 1`; "" where nothing is."""
        parts = {"lr": self.lr, "batch": self.batch_size, "fine-tuning lr": self.finetuning_lr}
        return ", ".join(f"{name} {value:g}" for name, value in parts.items() if value is not None)

    def as_config(self) -> dict:
        """The defence as run.json holds it."""
        return {
            "defend": self.name,
            "defend_arg": self.argument,
            "adaptive": self.adaptive,
            "undefended_original": self.undefended_original,
            "undefended_finetuning": self.undefended_finetuning,
            "defend_lr": self.lr,
            "defend_batch_size": self.batch_size,
            "defend_finetuning_lr": self.finetuning_lr,
        }

    @classmethod
    def from_config(cls, config: dict) -> "DefenceSettings":
        return cls(
            name=config["defend"],
            argument=config["defend_arg"],
            adaptive=config["adaptive"],
            undefended_original=config["undefended_original"],
            undefended_finetuning=config["undefended_finetuning"],
            lr=config["defend_lr"],
            batch_size=config["defend_batch_size"],
            finetuning_lr=config["defend_finetuning_lr"],
        )


UNDEFENDED = DefenceSettings()


@dataclass(frozen=True)
class AnswersSettings:
    """Which defence of answers is looked at. `name` is "" for none; `argument` is its one number, where it has one."""

    name: str = ""
    argument: float | None = None
    adaptive: bool = False  # the attacker knows the defence, and the shadow models answer through it as well

    def __str__(self) -> str:
        return self.name or "none" if self.argument is None else f"{self.name}:{self.argument:g}"

    @property
    def folder_suffix(self) -> str:
        """What the defence adds to the names of folders, and so keeps tables apart: `_topk_3_adaptive`; "" of none."""
        if not self.name:
            return ""
        return f"_{self}{'_adaptive' if self.adaptive else ''}".replace(":", "_")


AS_THEY_ARE = AnswersSettings()


@dataclass(frozen=True)
class RunSettings:
    """Which run is meant, and the folder that all runs live in."""

    dataset_name: str | None = None
    data_dir: Path | None = None
    model_name: str | None = None
    width: float | None = None
    num_cls: int | None = None
    label_column: str | None = None  # these four: how the data are read, see `data.datasets.Reading`
    text_column: str | None = None
    min_class: int | None = None
    image_size: int | None = None  # None where it is the usual one
    pretrained: Path | None = None  # folder from which a network for texts takes its weights
    run_name: str | None = None  # the folder's name, to which a defence adds its own
    defence: DefenceSettings = UNDEFENDED
    root: Path = PROJECT

    @property
    def reading(self) -> Reading:
        return Reading(self.label_column, self.text_column, self.min_class, self.image_size)

    @property
    def identity(self) -> dict:
        """Data set, network, width and size of images: what was said, else the default."""
        return {
            "dataset_name": self.dataset_name or DEFAULT_DATASET,
            "model_name": self.model_name or DEFAULT_MODEL,
            "width": DEFAULT_WIDTH if self.width is None else self.width,
            "image_size": self.image_size,
        }


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """What every stage is told."""

    run: RunSettings
    device: str | None = None  # None: CUDA where there is one, else the CPU
    batch_size: int = 128
    threads: int | None = None  # None: as many as there are free cores when the stage begins


@dataclass(frozen=True, kw_only=True)
class ModelSettings(StageSettings):
    """What every stage that trains is told. `roles` names the models to make; None means all of the run."""

    roles: tuple[str, ...] | None = None
    epochs: int
    lr: float
    optimizer: str = "sgd"  # one of OPTIMIZERS
    augment: bool = True
    compile: bool = False  # the training step, by torch.compile


@dataclass(frozen=True, kw_only=True)
class TrainSettings(ModelSettings):
    """`train.py`: original models, and the split that belongs to the run."""

    epochs: int = 100
    lr: float = 0.1
    slim_penalty: float = 0.0
    shadow_num: int = 1
    seed: int = DEFAULT_SEED
    max_points: int | None = None
    layout: str = COMPLEAK  # of the split: `data.splits.LAYOUTS`
    label_noise: float = 0.0
    part: int | None = None  # make only this part of the defence's training; None: the whole model


@dataclass(frozen=True, kw_only=True)
class CompressSettings(ModelSettings):
    """`prune.py`, `qat.py`, `clustering.py`: one compressed variant of a run's originals."""

    variant: Variant
    epochs: int = 30
    lr: float = 0.001


@dataclass(frozen=True, kw_only=True)
class QuantizeSettings(StageSettings):
    """`ptq.py`: one variant of a run's originals that is compressed without fine-tuning. `roles`: as for training."""

    variant: Variant
    roles: tuple[str, ...] | None = None
    calibration_points: int = 1024  # of a model's members, at most; only int8_static reads input ranges from points


@dataclass(frozen=True, kw_only=True)
class QuerySettings(StageSettings):
    """`query.py`: ask models before they are attacked.

    `asked` is how much is asked of each probe (`compleak.queries.probes`), by its name; of those that are not named, as
    much as the answers at hand have.
    """

    roles: tuple[str, ...] | None = None
    variants: tuple[Variant, ...] = ()
    asked: Mapping[str, int] = field(default_factory=dict, hash=False)
    drop_weights: Literal["none", "shadows", "all"] = "none"  # of models that have answered; all: the victim's too
    split_ai: bool = False  # write what SELENA's Split-AI answers, and ask nothing else


@dataclass(frozen=True, kw_only=True)
class ExportSettings(StageSettings):
    """`export.py`: write finished models as ONNX. `variants` None: all that the victim has."""

    out: Path
    roles: tuple[str, ...] = (VICTIM,)
    variants: tuple[Variant, ...] | None = None
    audit: bool = False  # write the models of all roles, and the task and the points that audit.py needs


@dataclass(frozen=True, kw_only=True)
class AttackSettings(StageSettings):
    """`CompLeakNR.py`, `CompLeakSR.py`, `CompLeakMR.py`: the models to attack, and how.

    `variants` are those of a run: NR (the model,), SR (compressed,), MR (compressed, ...). `files`, where given, are
    signals files in their place: NR (model,), SR (original, compressed), MR ([original,] compressed, ...).
    """

    scenario: str  # "NR", "SR" or "MR"
    variants: tuple[Variant, ...] = (ORIGINAL,)
    files: tuple[Path, ...] = ()
    with_original: bool = True  # MR: whether the attacker has the original model
    answers: AnswersSettings = AS_THEY_ARE  # what is done to answers before the attacker sees them
    attacks: tuple[str, ...] | None = None  # names of attacks; None: the usual ones
    attacker: str | None = None  # "shadows" or "known_half"; None: shadows where there are shadow models
    out: Path | None = None
    seed: int | None = None  # of the attacks and the intervals; None: the run's
    asked: Mapping[str, int] = field(default_factory=dict, hash=False)  # as for `query.py`
    recipe: str = "fast"
    again: bool = False  # attack even where a table of the same signals and settings is there
    upper_bound: bool = False  # NR: a further row, what could be known by models trained on the victim's points
