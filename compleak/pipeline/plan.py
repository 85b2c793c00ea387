"""The stages of one audit as a plan: what each does, with which settings, and which stages it needs.

A stage makes one model or one table of attacks. Each model, of the victim or of a shadow model, original or compressed,
is made in a stage of its own, as soon as its source is ready.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from compleak.audits.attack_stage import attack
from compleak.pipeline.settings import PlanSettings
from compleak.queries.collect import query_models
from compleak.runs.roles import VICTIM, roles_of
from compleak.runs.settings import (
    AS_THEY_ARE,
    CLUSTERING_LR,
    AttackSettings,
    CompressSettings,
    QuantizeSettings,
    QuerySettings,
    StageSettings,
    TrainSettings,
)
from compleak.runs.variants import ORIGINAL, Variant
from compleak.training.compress import compress_models
from compleak.training.original import train_originals
from defenses import DEFENCES


class StageKey(NamedTuple):
    """Which stage it is: unique in a plan. `kind` is data, part, train, compress, query, NR, SR or MR.

    `str` leaves the run out: `compress pruning_0.6 victim_model`.
    """

    run: str
    kind: str
    variant: Variant | None = None
    role: str | None = None
    part: int | None = None  # of a defence's training

    def __str__(self) -> str:
        return " ".join(str(field) for field in self[1:] if field is not None)


@dataclass(frozen=True)
class Stage:
    """One step of an audit: `action(settings)`, once the stages that it needs are done."""

    key: StageKey
    action: Callable[[StageSettings], object]
    settings: StageSettings
    needs: tuple[StageKey, ...] = ()

    def after(self, *others: StageKey) -> "Stage":
        """The same stage, once these are done as well."""
        return replace(self, needs=(*self.needs, *others))

    def __str__(self) -> str:
        return f"{self.key.run} {self.key}".strip()


def stages_of_audit(plan: PlanSettings) -> list[Stage]:
    """All stages of one run in order: the data, each model with what is made of it, the tables.

    Three things are needed by several stages, which might run at once and make them twice. One stage makes each of them
    and the others wait for it: `data` downloads and splits, `NR original` makes the blind control, and the NR of a
    variant collects the answers that SR and MR read as well.
    """
    if plan.answers != AS_THEY_ARE:
        return answers_stages(plan)
    roles = roles_of(plan.shadow_count())
    data = Stage(StageKey(plan.name, "data"), train_originals, train_settings(plan, roles=()))
    models = [stage for role in roles for stage in model_stages(plan, role)]
    return [data, *models, *(attack_stages(plan, models) if plan.attacks else ())]


def answers_stages(plan: PlanSettings) -> list[Stage]:
    """The tables of models behind a defence of answers.

    Each waits for the table of the same models without the defence, whose stage has collected their answers: the audit
    without the defence must be run too.
    """
    tables = [stage for stage in stages_of_audit(replace(plan, answers=AS_THEY_ARE)) if stage.action is attack]
    keys = {stage.key: stage.key._replace(run=plan.name) for stage in tables}
    return [
        Stage(
            keys[stage.key],
            attack,
            replace(stage.settings, answers=plan.answers),
            (stage.key, *(keys[need] for need in stage.needs if need in keys)),
        )
        for stage in tables
    ]


def model_stages(plan: PlanSettings, role: str) -> Iterator[Stage]:
    """What makes one model and its compressions and, where no attack stage will ask them, a stage that asks them."""
    data = StageKey(plan.name, "data")
    train = StageKey(plan.name, "train", role=role)
    parts = [StageKey(plan.name, "part", role=role, part=number) for number in range(part_count(plan, role))]
    for key in parts:
        yield Stage(key, train_originals, replace(train_settings(plan, roles=(role,)), part=key.part), (data,))
    yield Stage(train, train_originals, train_settings(plan, roles=(role,)), (data, *parts))
    compressions = [StageKey(plan.name, "compress", variant, role) for variant in plan.variants]
    for key in compressions:
        yield Stage(key, compress_models, compress_settings(plan, key.variant, role), (train,))
    if is_asked_ahead(plan, role):
        key = StageKey(plan.name, "query", role=role)
        yield Stage(key, query_models, query_settings(plan, role), (train, *compressions))


def is_asked_ahead(plan: PlanSettings, role: str) -> bool:
    """Whether a stage of its own asks this model: its weights are deleted before the attacks, or no attacks follow."""
    return not plan.attacks or (plan.keep == "signals" and role != VICTIM)


def part_count(plan: PlanSettings, role: str) -> int:
    """How many parts of a model's training are stages of their own."""
    defence = plan.run.defence
    parts = DEFENCES[defence.name].parts if defence.defends(role) else None
    return parts.count(defence.argument) if parts else 0


def attack_stages(plan: PlanSettings, models: list[Stage]) -> Iterator[Stage]:
    """The tables: NR of every variant, then SR of every pair, then MR."""
    keys = [stage.key for stage in models]
    originals = [key for key in keys if key.kind in ("train", "query")]
    nr = {variant: StageKey(plan.name, "NR", variant) for variant in (ORIGINAL, *plan.variants)}
    yield Stage(nr[ORIGINAL], attack, attack_settings(plan, "NR", (ORIGINAL,)), tuple(originals))
    for variant in plan.variants:
        compressions = [key for key in keys if key.variant == variant]
        yield Stage(nr[variant], attack, attack_settings(plan, "NR", (variant,)), (nr[ORIGINAL], *compressions))
    sr = {variant: StageKey(plan.name, "SR", variant) for variant in plan.variants}
    for variant, key in sr.items():
        yield Stage(key, attack, attack_settings(plan, "SR", (variant,)), (nr[variant],))
    if plan.variants:
        yield Stage(StageKey(plan.name, "MR"), attack, attack_settings(plan, "MR", plan.variants), tuple(sr.values()))


def settings_for(plan: PlanSettings, kind: str) -> dict:
    """What every stage of a kind is told: the preset's settings, then the command's flags, which win."""
    settings = {**plan.stages.settings(kind), "device": plan.device, "threads": plan.threads, "run": plan.named_run}
    settings.pop("width", None)  # belongs to the run
    if plan.batch_size is not None:
        settings["batch_size"] = plan.batch_size
    return settings


def train_settings(plan: PlanSettings, roles: tuple[str, ...]) -> TrainSettings:
    settings = TrainSettings(**settings_for(plan, "train"), roles=roles, compile=plan.compile)
    return replace(settings, shadow_num=plan.shadow_num, seed=plan.seed, layout=plan.layout)


def compress_settings(plan: PlanSettings, variant: Variant, role: str) -> CompressSettings | QuantizeSettings:
    if not variant.is_fine_tuned:  # of the preset's settings only the batch size applies to it
        settings = settings_for(plan, variant.technique)
        common = {field.name: settings[field.name] for field in fields(StageSettings) if field.name in settings}
        return QuantizeSettings(**common, variant=variant, roles=(role,))
    defaults = {"lr": CLUSTERING_LR} if variant.technique == "clustering" else {}
    settings = {**defaults, **settings_for(plan, variant.technique)}
    return CompressSettings(**settings, variant=variant, roles=(role,), compile=plan.compile)


def asking_settings(plan: PlanSettings) -> dict:
    """What every stage that asks models is told."""
    settings = settings_for(plan, "attack")
    return {**settings, "asked": {**settings.get("asked", {}), **plan.asked}}


def query_settings(plan: PlanSettings, role: str) -> QuerySettings:
    settings = asking_settings(plan)
    dropped = "all" if plan.keep == "signals" else "none"
    return QuerySettings(**settings, variants=plan.variants, roles=(role,), drop_weights=dropped)


def attack_settings(plan: PlanSettings, scenario: str, variants: tuple[Variant, ...]) -> AttackSettings:
    settings = asking_settings(plan)
    return AttackSettings(**settings, scenario=scenario, variants=variants, recipe=plan.recipe, again=plan.again)
