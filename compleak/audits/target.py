"""Which signals files an attack script reads, and where its table goes."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from compleak.queries.collect import collect
from compleak.queries.defended import defended_file, refuse_useless
from compleak.runs.places import signals_file, table_file
from compleak.runs.run import Run, open_run
from compleak.runs.settings import AttackSettings
from compleak.runs.variants import ORIGINAL, Variant
from core.errors import UserError

LONGEST_NAME = 80  # characters of a folder that is named after several files


@dataclass(frozen=True)
class Target:
    """What is attacked. `run` is None for signals files that belong to no run.

    `jobs` has an entry for each block of the table: the name in its column `variant`, and its signals files, for NR
    [the model], for SR [original, compressed], for MR [original or None, *compressed].
    """

    run: Run | None
    jobs: dict[str, list[Path | None]]
    out: Path

    @property
    def files(self) -> list[Path]:
        """The signals files of all jobs, each once."""
        return list(dict.fromkeys(path for files in self.jobs.values() for path in files if path))


def target_of(settings: AttackSettings, device: torch.device) -> Target:
    """The target that the settings mean, the models of a run asked where they have not been asked."""
    if settings.files:
        return target_from_files(settings, device)
    run = open_run(settings.run)
    refuse_useless(settings.answers, run.config["num_cls"])
    variants = list(settings.variants)
    first = [ORIGINAL] if settings.scenario != "NR" and settings.with_original else []
    options = {"device": device, "batch_size": settings.batch_size}
    files = {variant: collect(run, variant, settings.asked, **options) for variant in [*first, *variants]}
    name = run.name + settings.answers.folder_suffix
    if settings.answers.name:
        for variant, file in files.items():
            files[variant] = defended_file(file, settings.answers, signals_file(run.root, name, variant), device)
    out = settings.out or table_file(run.root, name, settings.scenario, variants[0]).parent
    original = files.get(ORIGINAL)
    if settings.scenario == "NR":
        return Target(run, {str(variants[0]): [files[variants[0]]]}, out)
    if settings.scenario == "SR":
        return Target(run, {str(variants[0]): [original, files[variants[0]]]}, out)
    groups = families(variants)
    return Target(run, {name: [original, *(files[v] for v in group)] for name, group in groups.items()}, out)


def families(variants: list[Variant]) -> dict[str, list[Variant]]:
    """All variants together, then those of each technique where that is not all."""
    groups = {"all": list(variants)}
    for variant in variants:
        groups.setdefault(variant.technique, []).append(variant)
    return {name: group for name, group in groups.items() if name == "all" or len(group) < len(variants)}


def target_from_files(settings: AttackSettings, device: torch.device) -> Target:
    """The target of --signals. UserError where a file is named twice, or the table has no place to go."""
    files = list(settings.files)
    for file in files:
        if sum(file.resolve() == other.resolve() for other in files) > 1:
            raise UserError(f"--signals names {file} twice: give the signals of different models")
    out = settings.out or files[0].parent / f"{folder_for(files)}{settings.answers.folder_suffix}"
    check_out(out)
    name = files[-1].stem
    if settings.answers.name:
        places = [out / f"signals_{number}_{file.stem}.npz" for number, file in enumerate(files)]
        pairs = zip(files, places, strict=True)
        files = [defended_file(file, settings.answers, place, device) for file, place in pairs]
    if settings.scenario == "MR":
        return Target(None, {"all": files if settings.with_original else [None, *files]}, out)
    return Target(None, {name: files}, out)


def folder_for(files: list[Path]) -> str:
    """The name of the folder for the table of these files: their names joined.

    Names that are too long together are shortened. Files of several folders may bear the same name, so a short hash of
    their places is added.
    """
    name = "+".join(file.stem for file in files)
    places = [file.resolve() for file in files]
    is_short = len(files) == 1 or len(name) <= LONGEST_NAME
    if is_short and len({place.parent for place in places}) == 1:
        return name
    digest = hashlib.sha256("\n".join(map(str, places)).encode()).hexdigest()[:8]
    return f"{name}_{digest}" if is_short else f"{files[0].stem}+{len(files) - 1}_others_{digest}"


def check_out(folder: Path) -> None:
    """UserError where the folder cannot hold a table because it, or a folder above it, is a file."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"no table can lie in {folder}: {place} is a file, not a folder; name another with --out")
