"""Several runs in one command as one plan: one for each seed, for each defence and attacker, or for each snapshot."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import models
from compleak.pipeline.plan import Stage, StageKey, stages_of_audit
from compleak.pipeline.settings import PlanSettings, ReproduceSettings
from compleak.queries.defended import refuse_useless
from compleak.runs import checkpoints
from compleak.runs.create import check_argument
from compleak.runs.names import defence_suffix, name_of
from compleak.runs.run import load_dataset, open_run
from compleak.runs.settings import (
    UNDEFENDED,
    AnswersSettings,
    CompressSettings,
    DefenceSettings,
    QuantizeSettings,
    RunSettings,
    TrainSettings,
)
from compleak.runs.variants import ORIGINAL
from compleak.training.compress import compress_models
from compleak.training.loop import Diverged
from compleak.training.make import check_recipe
from compleak.training.original import train_originals
from core.console import say
from core.errors import UserError
from defenses import DEFENCES, DEFENCES_OF_ANSWERS

SNAPSHOTS = tuple(tenth / 10 for tenth in range(1, 10))  # shares of the epochs, before the whole training
TUNED_ROLE = "shadow_model_0"
GROUP_NORM_TWIN = {"resnet18": "resnet18_gn"}  # the network that DP-SGD trains in place of one with batch norm


def plans_of(settings: ReproduceSettings) -> list[PlanSettings]:
    """The plans of all audits that a command asks for, each once: for each seed what `plans_of_seed` gives."""
    plans: dict[str, PlanSettings] = {}
    for seed in settings.seeds or (settings.plan.seed,):
        for plan in plans_of_seed(replace(settings.plan, seed=seed), settings):
            if settings.seeds:
                plan = plan.with_run(run_name=f"{plan.base_name}_seed{seed}")
            plans.setdefault(plan.name, plan)
    return list(plans.values())


def plans_of_seed(plan: PlanSettings, settings: ReproduceSettings) -> list[PlanSettings]:
    """The plans of one seed: the one given, or those that compare defences, snapshots or settings of a defence."""
    if settings.tuned:
        return tuning_plans(plan, settings.tuned)
    if settings.early_stopping:
        return snapshot_plans(plan)
    return [plan] if settings.defences is None else defended_plans(plan, settings)


def defended_plans(plan: PlanSettings, settings: ReproduceSettings) -> list[PlanSettings]:
    """The audits that compare defences: no defence, each defence, and each again with an adaptive attacker.

    With --undefended_finetuning each trained defence is also audited with plain fine-tuning. A defence of answers is
    put in front of the undefended run's models. Where DP-SGD trains another network (GROUP_NORM_TWIN), that network is
    audited without a defence, too.
    """
    plans = []
    for defence in (UNDEFENDED, *settings.defences):
        if isinstance(defence, AnswersSettings):
            plans += [replace(plan, answers=replace(defence, adaptive=adaptive)) for adaptive in (False, True)]
            continue
        fitting = with_fitting_network(plan, defence.name)
        plans.append(fitting)
        if defence != UNDEFENDED:
            versions = [defence]
            if settings.plain_finetuning:
                versions.append(replace(defence, undefended_finetuning=True))
            both = [replace(version, adaptive=adaptive) for version in versions for adaptive in (False, True)]
            plans += [fitting.with_run(defence=each) for each in both]
    return plans


def snapshot_plans(plan: PlanSettings) -> list[PlanSettings]:
    """The audits of one undefended training at SNAPSHOTS of its epochs, the whole training last.

    A non-adaptive attacker trains the shadow models to the end, an adaptive one stops them after as many epochs. No
    model is compressed.
    """
    alone = plan.of_original_alone()
    stopped = [
        DefenceSettings("early_stopping", share, adaptive=adaptive) for adaptive in (False, True) for share in SNAPSHOTS
    ]
    return [*(alone.with_run(defence=defence) for defence in stopped), alone]


def tuning_plans(plan: PlanSettings, candidates: Sequence[DefenceSettings]) -> list[PlanSettings]:
    """For each candidate the run in which the attacker trains a shadow model with it.

    It is compressed only for candidates with a learning rate of fine-tuning.
    """
    plans = []
    for defence in candidates:
        compressed = plan if defence.finetuning_lr is not None else plan.of_original_alone()
        fitting = with_fitting_network(compressed, defence.name)
        plans.append(fitting.with_run(defence=replace(defence, adaptive=True)))
    return plans


def stages_of(plans: Sequence[PlanSettings], settings: ReproduceSettings) -> list[Stage]:
    """The stages of a command's audits as one plan."""
    if settings.tuned:
        return tuning_stages(plans)
    return snapshot_stages(plans) if settings.early_stopping else joined_stages(plans)


def snapshot_stages(plans: Sequence[PlanSettings]) -> list[Stage]:
    """All stages of the runs: first those of adaptive attackers and of no defence, which train every model.

    Among these, each training goes on from where the next shorter run's training was stopped: `plans` has the shortest
    first. The runs of non-adaptive attackers follow, which only copy models.
    """
    training = [plan for plan in plans if plan.run.defence == UNDEFENDED or plan.run.defence.adaptive]
    copying = [plan for plan in plans if plan not in training]
    shorter = {plan.name: before.name for before, plan in pairwise(training) if before.seed == plan.seed}
    stages = joined_stages([*training, *copying])
    return [wait_for_shorter(stage, shorter.get(stage.key.run)) for stage in stages]


def wait_for_shorter(stage: Stage, shorter_run: str | None) -> Stage:
    """The same stage; if it trains a model, it also waits for the same role's training in the next shorter run."""
    if shorter_run is None or stage.key.kind != "train":
        return stage
    return stage.after(stage.key._replace(run=shorter_run))


def tuning_stages(plans: Sequence[PlanSettings]) -> list[Stage]:
    """Of all stages of the runs those that make the first shadow model, which is trained on the attacker's pool."""
    stages = [stage for stage in joined_stages(plans) if stage.key.kind == "data" or is_tuned(stage)]
    return [replace(stage, action=CANDIDATE_ACTIONS[stage.action]) if is_tuned(stage) else stage for stage in stages]


def is_tuned(stage: Stage) -> bool:
    return stage.key.kind in ("part", "train", "compress") and stage.key.role == TUNED_ROLE


def train_candidate(settings: TrainSettings) -> None:
    """Train a model of a tuning. One that diverges is left out, which is a result like any other, and no failure."""
    with leaving_out_diverged(settings.run):
        train_originals(settings)


def compress_candidate(settings: CompressSettings | QuantizeSettings) -> None:
    """Compress a model of a tuning, if its training did not diverge. A compressed one that does is left out, too."""
    original = open_run(settings.run).role_dir(ORIGINAL, TUNED_ROLE)
    if checkpoints.is_finished(original):
        with leaving_out_diverged(settings.run):
            compress_models(settings)


CANDIDATE_ACTIONS = {train_originals: train_candidate, compress_models: compress_candidate}


@contextmanager
def leaving_out_diverged(run: RunSettings) -> Iterator[None]:
    """Say of a training that diverges that its candidate is not chosen, and go on."""
    try:
        yield
    except Diverged as error:
        say(f"{name_of(run)} is not chosen: {error}")


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
    """UserError, before hours of other stages have run, where a defence is of no use.

    It cannot train its run's network, or it hides nothing of answers about so few classes.
    """
    for plan in plans:
        if plan.answers.name and DEFENCES_OF_ANSWERS[plan.answers.name].check:
            refuse_useless(plan.answers, class_count(plan.run))
        name = plan.run.identity["model_name"]
        if plan.run.defence.name:
            check_argument(plan.run.defence)
            check_recipe(plan.run.defence, plan.stages.train.get("optimizer", TrainSettings.optimizer), plan.compile)
        if plan.run.defence.name and name in models.NAMES:
            features = None if name in models.FOR_IMAGES else 8
            DEFENCES[plan.run.defence.name].step.check(models.build(name, 2, 0.125, features))


def class_count(run: RunSettings) -> int:
    """How many classes the run's data have."""
    data = load_dataset(run.identity["dataset_name"], run.data_dir, run.root, run.reading)
    return len(data.classes)


def check_shadow_counts(plans: Sequence[PlanSettings]) -> None:
    """UserError where runs that are to be compared would differ in their shadow models, before any stage has run."""
    counts = {plan.name: plan.shadow_count() for plan in plans}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        advice = f"give --shadow_num {max(counts.values())}"
        raise UserError(f"runs with as many shadow models each are needed, these would have: {listed}; {advice}")


def joined_stages(plans: Sequence[PlanSettings]) -> list[Stage]:
    """The stages of all runs as one plan.

    The runs read one data set, which the `data` stage of the first run may have to fetch: those of the others wait for
    it. Of the runs that have a model in common the first makes it, and the others wait to copy it.
    """
    stages, makers = [], {}
    for plan in plans:
        for stage in stages_of_audit(plan):
            if stage.key.kind == "data" and stages:
                stage = stage.after(stages[0].key)
            stages.append(wait_for_maker(stage, plan, makers))
    return stages


def wait_for_maker(stage: Stage, plan: PlanSettings, makers: dict[tuple, StageKey]) -> Stage:
    """The same stage; where an earlier run of the plan makes the same model, it waits to copy it.

    makers: of each model the stage that makes it. A stage that is the first to make its model is added.
    """
    if stage.key.kind not in ("part", "train", "compress"):
        return stage
    model = model_of(stage, plan)
    if stage.key.kind != "part":  # the whole model is copied, no part of it
        makers.setdefault(model, stage.key)
    maker = makers.get(model, stage.key)
    return stage if maker.run == stage.key.run else stage.after(maker)


def model_of(stage: Stage, plan: PlanSettings) -> tuple:
    """What tells a model from all others of a plan: the run whose settings decide how it is made, variant and role.

    Who attacks makes no difference to a model that the defence acts on. A model that it does not act on is that of the
    run without a defence. How compressed versions are fine-tuned makes none to models that are not fine-tuned.
    """
    defence = plan.run.defence if plan.run.defence.defends(stage.key.role) else UNDEFENDED
    if stage.key.variant is None or not stage.key.variant.is_fine_tuned:
        defence = replace(defence, undefended_finetuning=False, finetuning_lr=None)
    if defence.undefended_finetuning:
        defence = replace(defence, finetuning_lr=None)
    defence = replace(defence, adaptive=False)
    return plan.with_run(defence=defence).name, stage.key.variant, stage.key.role
