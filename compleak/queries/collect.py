"""Join the answers of all models of a variant in one signals file, asking those that have not been asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from compleak.queries.answers import Question, answers_of, ask_ahead, probe_amounts
from compleak.queries.signals_file import Answers, read_rows, read_source, write
from compleak.queries.split_ai import refuse_without_split_ai, write_split_ai
from compleak.queries.targets import Targets, targets_of
from compleak.runs import checkpoints
from compleak.runs.roles import VICTIM, selected_roles
from compleak.runs.run import Run, dataset, open_run
from compleak.runs.settings import QuerySettings
from compleak.runs.variants import ORIGINAL, Variant
from core import devices
from core.console import say
from core.threads import threads_for_stage, use_threads
from data.splits import fingerprint


def collect(run: Run, variant: Variant, asked: Mapping[str, int], *, device: torch.device, batch_size: int) -> Path:
    """The signals file of a variant.

    A file that holds the answers of these very models is left as it is; one of fewer shadow models gives what it has.
    asked: how much is asked of the probes, by their names, as far as it was said (`probe_amounts`).
    """
    file = run.signals_file(variant)
    targets = targets_of(run)
    amounts = probe_amounts(run, variant, asked)
    questions = [Question(run, targets, variant, role, amounts) for role in run.roles]
    sources = [question.source() for question in questions]
    wanted = {"split": fingerprint(targets.split), "audit": fingerprint(targets.audit), "answers": sources}
    known = read_source(file)
    if known != wanted:
        earlier = earlier_answers(file, (known or {}).get("answers", []), sources)
        rows = [
            answers or answers_of(question, device, batch_size, file)
            for answers, question in zip(earlier, questions, strict=True)
        ]
        write(file, arrays_of(targets, dataset(run).labels, rows), wanted)
    for question in questions:
        question.file.unlink(missing_ok=True)
    return file


def earlier_answers(file: Path, known: Sequence[dict], sources: Sequence[dict]) -> list[Answers | None]:
    """For each source, the answers that the file holds of it already; None where it holds none."""
    return read_rows(file, [known.index(source) if source in known else None for source in sources])


def arrays_of(targets: Targets, labels: np.ndarray, rows: Sequence[Answers]) -> dict[str, np.ndarray]:
    """The content of a signals file (PROTOCOL §4)."""
    models = range(len(rows))
    arrays = {
        "logits": np.stack([answers.logits for answers in rows]),
        "labels": labels[targets.points],
        "member": np.stack([targets.members(row) for row in models]),
        "audit": np.stack([targets.audited(row) for row in models]),
        "points": targets.points,  # of the data set, for the blind control and for people
    }
    for name in rows[0].probes:
        arrays[name] = np.stack([answers.probes[name] for answers in rows])
    return arrays


def query_models(settings: QuerySettings) -> None:
    """Ask the models of the settings' roles, variant by variant, before they are attacked.

    Weights are then deleted where the settings say so; meta.json stays.
    """
    device = devices.choose(settings.device)
    use_threads(threads_for_stage(settings.threads))
    run = open_run(settings.run)
    if settings.split_ai:
        refuse_without_split_ai(run)
        collect(run, ORIGINAL, settings.asked, device=device, batch_size=settings.batch_size)
        write_split_ai(run)
        return
    variants = [ORIGINAL, *settings.variants]
    for role in selected_roles(run.roles, settings.roles):
        for variant in variants:
            ask_ahead(run, variant, role, settings.asked, device=device, batch_size=settings.batch_size)
        if settings.drop_weights == "all" or (settings.drop_weights == "shadows" and role != VICTIM):
            for variant in variants:
                checkpoints.drop_weights(run.role_dir(variant, role))
        say(f"{role}: asked as {len(variants)} variants")
