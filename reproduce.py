"""The whole audit in one command: train, compress eight ways, attack (NR, SR, MR), one table and its figures.

    python reproduce.py                                                  # digits, three minutes, no download
    python reproduce.py --preset quick --dataset_name cifar10            # under an hour on two cores
    python reproduce.py --preset paper --dataset_name cifar10            # the paper's grid; wants a GPU

    python reproduce.py --shadow_num 8 --seeds 7 8 9                     # stronger attacks; the spread over trainings

    python reproduce.py --defences                                       # what defences cost, and what they leave
    python reproduce.py --early_stopping                                 # the same in the course of one training
    python reproduce.py --tune_defence dp:1                              # DP-SGD's own learning rate and batch size
    python reproduce.py --compare results/RUN results/RUN                # one page over runs of several data sets
    python reproduce.py --jobs 4                                         # four stages at once on this machine
    python reproduce.py --no_attacks --keep signals                      # models and answers where there is a GPU; copy
                                                                         # --root and attack on any other machine
    python reproduce.py --engine ray --ray_address auto                  # the same stages as tasks on a Ray cluster

Runs the stages of the other scripts and skips what is done, so that it can be stopped and started at any time. A stage
makes one model or one table of attacks. Where stages run elsewhere (--jobs, Ray), one that dies is tried again, and one
that fails leaves the others alone.

Gives results/<run>/summary.md, summary.csv, models.csv, claims.csv and figures. <run> is <dataset>_<model>_<preset>;
for `paper`, which is nothing but the stages' defaults, it is <dataset>_<model>, the folder the stages use themselves.
With --seeds every seed has its run, <run>_seed<n>, and results/<run>_seeds says what they have in common.
With --compare nothing is run: comparison/, beside the first RUN, says how the claims fall across the runs.
With --defences there is a run for each defence and attacker, and results/<run>_defences compares them.
--early_stopping gives results/<run>_early_stopping, --tune_defence results/<run>_tuning.
"""

from dataclasses import replace
from pathlib import Path

from compleak.findings.defences import Audit
from compleak.pipeline import flags
from compleak.pipeline.comparison import check_defences, check_shadow_counts, plans_of, stages_of, together_name
from compleak.pipeline.plan import Stage, asking_settings
from compleak.pipeline.ray_cluster import on_ray
from compleak.pipeline.schedule import run_plan
from compleak.pipeline.settings import EngineSettings, PlanSettings, ReproduceSettings
from compleak.pipeline.workers import in_process, processes
from compleak.reports.across_page import write_across_page
from compleak.reports.defences_page import write_defences_page
from compleak.reports.early_stopping_page import write_early_stopping_page
from compleak.reports.run_page import write_run_page
from compleak.reports.seeds_page import write_seeds_page
from compleak.reports.tuning_page import write_tuning_page
from compleak.runs.places import run_dir
from compleak.runs.run import Run, open_run
from compleak.runs.variants import ORIGINAL, TECHNIQUES
from core.console import progress, run_script, say
from core.files import read_json, write_json


def parse(argv=None) -> ReproduceSettings:
    return flags.reproduce_settings(flags.reproduce_parser(__doc__), argv)


def engine_of(settings: EngineSettings):
    """A context manager that gives the engine on which stages run."""
    if settings.engine == "ray":
        return on_ray(settings.ray_address, settings.cpus_per_task, settings.gpus_per_task)
    return in_process() if settings.jobs == 1 else processes(settings.jobs)


def run_stages(stages: list[Stage], settings: ReproduceSettings) -> None:
    """Run all stages, with one progress bar, and keep the seconds of each with its run."""
    root = settings.plan.run.root
    with progress(None, "stages", total=len(stages)) as bar, engine_of(settings.engine) as engine:

        def on_start(stage: Stage) -> None:
            bar.set_description(str(stage))

        def on_done(stage: Stage, seconds: float) -> None:
            keep_seconds(str(stage.key), seconds, run_dir(root, stage.key.run) / "seconds.json")
            bar.update()

        run_plan(stages, engine, on_start, on_done)


def keep_seconds(stage: str, seconds: float, file: Path) -> None:
    """Keep a stage's seconds, the most it took: a later run of the same command finds the work done."""
    noted = read_json(file) if file.exists() else {}
    write_json(file, {**noted, stage: max(round(seconds, 1), noted.get(stage, 0.0))})


def write_pages(plans: list[PlanSettings], settings: ReproduceSettings) -> None:
    """Write the pages of what the command has run, and print the last one.

    Of a comparison (defences, snapshots, settings) that is one page, otherwise a page for each run and, with seeds, the
    page over all of them.
    """
    root = settings.plan.run.root
    runs = [open_run(plan.named_run) for plan in plans]
    in_words = {**settings_in_words(settings.plan), "networks of SAMIA and MR": f"--recipe {settings.plan.recipe}"}
    if page := write_page_of_comparison(runs, plans, settings, in_words):
        say(page)
        return
    audited = [(run, plan.audited) for run, plan in zip(runs, plans, strict=True)]
    texts = [write_run_page(run, variants, settings.command, in_words) for run, variants in audited]
    folders = [run.dir for run in runs]
    if settings.seeds:
        folders.append(run_dir(root, together_name(settings, "_seeds")))
        texts.append(write_seeds_page(runs, folders[-1], settings.command))
    say(texts[-1])
    say(f"tables and figures are in {', '.join(map(str, folders))}")


def settings_in_words(plan: PlanSettings) -> dict[str, str]:
    """The preset's flags of each kind of stage, with those that were given in their place; pages name the width."""
    given = {} if plan.batch_size is None else {"batch_size": plan.batch_size}
    every = {name: value for name, value in {**plan.stages.every, **given}.items() if name != "width"}
    kinds = {
        kind: {name: value for name, value in getattr(plan.stages, kind).items() if name not in given}
        for kind in ("train", *TECHNIQUES)
    }
    attack = {**plan.stages.attack, "asked": asking_settings(plan)["asked"]}
    return replace(plan.stages, every=every, attack=attack, **kinds).in_words()


def write_page_of_comparison(
    runs: list[Run], plans: list[PlanSettings], settings: ReproduceSettings, in_words: dict[str, str]
) -> str:
    """Write the one page of runs that compare defences, snapshots or settings; returns it, "" for other runs."""
    folders = {
        ending: run_dir(settings.plan.run.root, together_name(settings, ending))
        for ending in ("_defences", "_early_stopping", "_tuning", "_finetuning_tuning")
    }
    if settings.tuned:
        has_finetuning = any(defence.finetuning_lr is not None for defence in settings.tuned)
        folder = folders["_finetuning_tuning" if has_finetuning else "_tuning"]
        versions = [(ORIGINAL, *plan.variants) for plan in plans]
        page = write_tuning_page(runs, versions, folder, settings.command, in_words)
    elif settings.early_stopping:
        folder = folders["_early_stopping"]
        compared = folders["_defences"] / "runs.csv"
        page = write_early_stopping_page(runs, folder, compared, settings.command, in_words)
    elif settings.defences is not None:
        folder = folders["_defences"]
        audits = [Audit(run, plan.audited, plan.answers) for run, plan in zip(runs, plans, strict=True)]
        page = write_defences_page(audits, folder, settings.command, in_words)
    else:
        return ""
    return f"{page}\ntables and figures are in {folder}"


def compare_runs(settings: ReproduceSettings) -> None:
    """Write the page over finished runs of any data sets and networks, and print it."""
    folder = settings.compare[0].parent / (settings.plan.run.run_name or "comparison")
    say(write_across_page(settings.compare, folder))
    say(f"tables and figure are in {folder}")


def main(argv=None) -> None:
    settings = parse(argv)
    if settings.compare:
        compare_runs(settings)
        return
    plans = plans_of(settings)
    check_defences(plans)
    check_shadow_counts(plans)
    run_stages(stages_of(plans, settings), settings)
    if not settings.plan.attacks:
        say("all models are made and have answered: the same command without --no_attacks attacks them")
        return
    write_pages(plans, settings)


if __name__ == "__main__":
    run_script(main)
