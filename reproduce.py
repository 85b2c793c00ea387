"""The whole audit in one command: train, compress eight ways, attack (NR, SR, MR), one table and its figures.

    python reproduce.py                                                  # digits, three minutes, no download
    python reproduce.py --preset quick --dataset_name cifar10            # under an hour on two cores
    python reproduce.py --preset paper --dataset_name cifar10            # the paper's grid; wants a GPU

    python reproduce.py --shadow_num 8 --seeds 7 8 9                     # stronger attacks; the spread over trainings

    python reproduce.py --defences                                       # what defences cost, and what they leave
    python reproduce.py --jobs 4                                         # four stages at once on this machine
    python reproduce.py --engine ray --ray_address auto                  # the same stages as tasks on a Ray cluster

Runs the stages of the other scripts and skips what is done, so that it can be stopped and started at any time. A stage
makes one model or one table of attacks. Where stages run elsewhere (--jobs, Ray), one that dies is tried again, and one
that fails leaves the others alone.

Gives results/<run>/summary.md, summary.csv, models.csv, claims.csv and figures. <run> is <dataset>_<model>_<preset>;
for `paper`, which is nothing but the stages' defaults, it is <dataset>_<model>, the folder the stages use themselves.
With --seeds every seed has its run, <run>_seed<n>, and results/<run>_seeds says what they have in common.
With --defences there is a run for each defence and attacker, and results/<run>_defences compares them.
"""

from pathlib import Path

from compleak.pipeline import flags
from compleak.pipeline.comparison import check_defences, check_shadow_counts, joined_plan, runs_of, together_name
from compleak.pipeline.plan import Stage
from compleak.pipeline.ray_cluster import on_ray
from compleak.pipeline.schedule import run_plan
from compleak.pipeline.settings import EngineSettings, PlanSettings, ReproduceSettings
from compleak.pipeline.workers import in_process, processes
from compleak.reports.defences_page import write_defences_page
from compleak.reports.run_page import write_run_page
from compleak.reports.seeds_page import write_seeds_page
from compleak.runs.places import run_dir
from compleak.runs.run import open_run
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
    """Write each run's page, and the page over all of them where there are seeds or defences; print the last one."""
    root = settings.plan.run.root
    runs = [open_run(plan.named_run) for plan in plans]
    in_words = {**settings.plan.stages.in_words(), "networks of SAMIA and MR": f"--recipe {settings.plan.recipe}"}
    if settings.defences is not None:
        folder = run_dir(root, together_name(settings, "_defences"))
        say(write_defences_page(runs, folder, settings.command, in_words))
        say(f"tables and figure are in {folder}")
        return
    texts = [write_run_page(run, settings.command, in_words) for run in runs]
    folders = [run.dir for run in runs]
    if settings.seeds:
        folders.append(run_dir(root, together_name(settings, "_seeds")))
        texts.append(write_seeds_page(runs, folders[-1], settings.command))
    say(texts[-1])
    say(f"tables and figures are in {', '.join(map(str, folders))}")


def main(argv=None) -> None:
    settings = parse(argv)
    plans = runs_of(settings)
    check_defences(plans)
    check_shadow_counts(plans)
    run_stages(joined_plan(plans), settings)
    write_pages(plans, settings)


if __name__ == "__main__":
    run_script(main)
