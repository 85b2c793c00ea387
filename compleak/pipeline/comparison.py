"""Several runs in one command: one for each seed, or for each defence and attacker, as one plan."""

from collections.abc import Sequence
from dataclasses import replace

import models
from compleak.pipeline.plan import Stage, StageKey, plan_of
from compleak.pipeline.settings import PlanSettings, ReproduceSettings
from compleak.runs.create import check_argument
from compleak.runs.names import defence_suffix
from compleak.runs.roles import VICTIM
from compleak.runs.settings import UNDEFENDED
from core.errors import UserError
from defenses import DEFENCES

GROUP_NORM_TWIN = {"resnet18": "resnet18_gn"}  # the network that DP-SGD trains in place of one with batch norm


def runs_of(settings: ReproduceSettings) -> list[PlanSettings]:
    """The audits that a command asks for, each once: one, or one for each seed, and for each defence and attacker."""
    plans: dict[str, PlanSettings] = {}
    for seed in settings.seeds or (settings.plan.seed,):
        of_seed = replace(settings.plan, seed=seed)
        for plan in [of_seed] if settings.defences is None else defended_plans(of_seed, settings):
            if settings.seeds:
                plan = plan.with_run(run_name=f"{plan.base_name}_seed{seed}")
            plans.setdefault(plan.name, plan)
    return list(plans.values())


def defended_plans(plan: PlanSettings, settings: ReproduceSettings) -> list[PlanSettings]:
    """The audits that compare defences: no defence, each defence, and each again with an adaptive attacker.

    DP-SGD needs a network with group normalisation, which is therefore audited without a defence as well.
    """
    plans = []
    for defence in (UNDEFENDED, *settings.defences):
        fitting = with_fitting_network(plan, defence.name)
        plans.append(fitting)
        if defence != UNDEFENDED:
            plans += [fitting.with_run(defence=replace(defence, adaptive=adaptive)) for adaptive in (False, True)]
    return plans


def with_fitting_network(plan: PlanSettings, defence: str) -> PlanSettings:
    """The same audit with a network that the defence can train."""
    network = plan.run.identity["model_name"]
    if defence != "dp" or network not in GROUP_NORM_TWIN:
        return plan
    name = f"{plan.run.run_name}_gn" if plan.run.run_name else None
    return plan.with_run(model_name=GROUP_NORM_TWIN[network], run_name=name)


def together_name(settings: ReproduceSettings, ending: str) -> str:
    """The folder of what several runs have in common: `<run>_seeds` or `<run>_defences`, with the runs' defence."""
    return settings.plan.base_name + ending + defence_suffix(settings.plan.run.defence)


def check_defences(plans: Sequence[PlanSettings]) -> None:
    """UserError where a defence cannot train its run's network, before hours of other stages have run."""
    for plan in plans:
        name = plan.run.identity["model_name"]
        if plan.run.defence.name:
            check_argument(plan.run.defence)
        if plan.run.defence.name and name in models.NAMES:
            features = 8 if name in models.FOR_FEATURES else None
            DEFENCES[plan.run.defence.name].step.check(models.build(name, 2, 0.125, features))


def check_shadow_counts(plans: Sequence[PlanSettings]) -> None:
    """UserError where runs that are to be compared would differ in their shadow models, before any stage has run."""
    counts = {plan.name: plan.shadow_count() for plan in plans}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        advice = f"give --shadow_num {max(counts.values())}"
        raise UserError(f"runs with as many shadow models each are needed, these would have: {listed}; {advice}")


def joined_plan(plans: Sequence[PlanSettings]) -> list[Stage]:
    """The stages of all runs as one plan.

    The runs read one data set, so their `data` stages, which may have to fetch it, follow one another. A model that two
    runs have in common is made in one, and the other waits to copy it.
    """
    stages, data_before = [], ()
    for plan in plans:
        data, *others = plan_of(plan)
        stages += [replace(data, needs=data_before), *others]
        data_before = (data.key,)
    lenders = {plan.name: plan for plan in plans}
    keys = {stage.key for stage in stages}
    return [wait_for_twin(stage, lenders[stage.key.run], keys) for stage in stages]


def wait_for_twin(stage: Stage, plan: PlanSettings, keys: set[StageKey]) -> Stage:
    """The same stage; where another run of the plan makes the same model, it needs that model's stage as well."""
    if stage.key.kind not in ("train", "part", "compress"):
        return stage
    kind = "train" if stage.key.kind == "part" else stage.key.kind  # the whole model is copied, no part of it
    twin = stage.key._replace(run=twin_run(plan, stage.key.role), kind=kind, part=None)
    if twin.run == stage.key.run:
        return stage
    return replace(stage, needs=(*stage.needs, twin)) if twin in keys else stage


def twin_run(plan: PlanSettings, role: str) -> str:
    """The run that has the same model of this role, its own where there is none.

    The victim of an adaptive attacker is that of a non-adaptive one, whose shadow models are the undefended run's.
    """
    defence = plan.run.defence
    if defence.adaptive and role == VICTIM:
        return plan.with_run(defence=replace(defence, adaptive=False)).name
    if defence.name and not defence.adaptive and role != VICTIM:
        return plan.with_run(defence=UNDEFENDED).name
    return plan.name
