"""What `reproduce.py` is told to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from compleak.pipeline.presets import PRESETS, Preset
from compleak.runs.names import default_name, name_of
from compleak.runs.places import run_dir
from compleak.runs.settings import AS_THEY_ARE, DEFAULT_WIDTH, AnswersSettings, DefenceSettings, RunSettings
from compleak.runs.variants import ORIGINAL, PAPER_GRID, TECHNIQUES, Variant, parse_compressed
from core.files import read_json
from data.splits import COMPLEAK, DEFAULT_SEED

DEFENDED_GRID = parse_compressed(("pruning_0.6", "pruning_0.9", "quantization_int8", "clustering_4"))


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Where stages run, not what they do."""

    engine: str = "local"
    jobs: int = 1
    ray_address: str | None = None
    cpus_per_task: int = 1
    gpus_per_task: float = 1.0


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """One whole audit: the run, how its models are made and attacked, and which compressions it has."""

    run: RunSettings
    preset: str = "smoke"
    device: str | None = None
    batch_size: int | None = None  # None: the preset's
    finetuning_epochs: int | None = None  # after each compression; None: the preset's
    threads: int | None = None
    shadow_num: int = 1
    seed: int = DEFAULT_SEED
    layout: str = COMPLEAK
    keep: str = "all"  # or "signals": delete models' weights once they have answered, the victim's without attacks only
    attacks: bool = True  # or leave them, and the pages, to a later command
    recipe: str = "fast"
    compile: bool = False  # as for `train.py`
    asked: Mapping[str, int] = field(
        default_factory=dict, hash=False
    )  # of each probe, as for `query.py`; wins over the preset's
    again: bool = False
    answers: AnswersSettings = AS_THEY_ARE  # what is done to the answers of this run's models; they are another plan's
    variants: tuple[Variant, ...] = PAPER_GRID

    @property
    def audited(self) -> tuple[str, ...]:
        """The names of all models that are audited: the original and its compressed versions."""
        return tuple(map(str, (ORIGINAL, *self.variants)))

    @property
    def stages(self) -> Preset:
        """The preset, with the epochs of fine-tuning that were given in place of its own."""
        preset = PRESETS[self.preset]
        if self.finetuning_epochs is None:
            return preset
        given = {"epochs": self.finetuning_epochs}
        return replace(preset, **{technique: {**getattr(preset, technique), **given} for technique in TECHNIQUES})

    @property
    def name(self) -> str:
        """The folder of the models, with what a defence of answers adds to the folder of its tables."""
        return name_of(self.named_run) + self.answers.folder_suffix

    @property
    def named_run(self) -> RunSettings:
        """The run's settings with its name, which a preset is part of, and its width filled in."""
        width = self.stages.every.get("width") if self.run.width is None else self.run.width
        return replace(self.run, run_name=self.base_name, width=width)

    @property
    def base_name(self) -> str:
        """The run's name without its defence: as given, or made of data, network, width and preset."""
        default = default_name(self.run.identity)
        if self.run.run_name or self.preset == "paper":
            return self.run.run_name or default
        is_widened = self.run.width == DEFAULT_WIDTH and "width" in self.stages.every
        return f"{default}{'_w1' if is_widened else ''}_{self.preset}"  # unnamed, it would be the preset's own width

    def with_run(self, **changes) -> "PlanSettings":
        return replace(self, run=replace(self.run, **changes))

    def of_original_alone(self) -> "PlanSettings":
        """The same audit without any compressed model."""
        return replace(self, variants=())

    def shadow_count(self) -> int:
        """How many shadow models the run has: as asked for, or more where it has more already."""
        file = run_dir(self.run.root, name_of(self.named_run)) / "run.json"
        existing = read_json(file).get("shadow_num", 0) if file.exists() else 0
        return max(self.shadow_num, existing)


@dataclass(frozen=True, kw_only=True)
class ReproduceSettings:
    """A command: one audit, or one for each seed, defence and attacker, or snapshot, and where their stages run."""

    plan: PlanSettings
    seeds: tuple[int, ...] = ()
    defences: tuple[DefenceSettings | AnswersSettings, ...] | None = None  # None: no comparison
    plain_finetuning: bool = False  # compare also with defended originals whose fine-tuning is undefended
    early_stopping: bool = False  # snapshots of one training, in place of the usual audit
    tuned: tuple[DefenceSettings, ...] = ()  # defences whose learning rates and batch size are tried
    engine: EngineSettings = EngineSettings()
    command: str = ""  # the command line, for the pages
    compare: tuple[Path, ...] = ()  # folders of finished runs: write a page over these, and run nothing
