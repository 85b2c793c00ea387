"""Finished models of a run as ONNX files, and the task with which audit.py audits them on the run's own points.

Every file is run in onnxruntime, and its answers are compared with the checkpoint's. The files are written into a
folder of their own and moved to their places when all are right.
"""

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from compleak.queries.targets import Targets, targets_of
from compleak.runs import checkpoints
from compleak.runs.roles import VICTIM, selected_roles
from compleak.runs.run import Run, dataset, finished_variants, open_run
from compleak.runs.settings import ExportSettings
from compleak.runs.variants import ORIGINAL, Variant, in_paper_order
from compleak.training.evaluate import predict
from compleak.training.finished import finished_folder, load_model, model_meta
from core.console import progress, say
from core.errors import UserError
from core.files import make_folder, sha256, write_atomically, write_json, write_text
from core.provenance import provenance
from core.threads import threads_for_stage, threads_in_use, use_threads
from data.inputs import InputKind
from models.to_onnx import INPUT, onnx_model
from quantization import to_onnx

CHECKED_POINTS = 64
# What the largest difference of a logit may be, as a share of the largest logit.
FLOAT_TOLERANCE = 1e-3
# What the median difference may be, as a share of the largest logit, of models that round the inputs of their layers.
# onnxruntime computes QDQ layers in integers, with rounded biases: half of the logits of our networks move by less than
# 0.01, single ones by up to 0.05 before training, and by less than 0.002 and up to 0.007 after it.
ROUNDED_TOLERANCE = 0.05
POINTS, TASK, FACTS = "points.npz", "task.yaml", "export.json"
UNFINISHED = ".unfinished"


class Difference(NamedTuple):
    """How far an exported model's logits are from the checkpoint's, as shares of the largest logit."""

    largest: float
    median: float


def export_models(settings: ExportSettings) -> Path:
    """Write the models that the settings name, and what audit.py needs where they say so; returns the folder.

    UserError, with no file left or changed, where a model is missing, cannot be exported or answers otherwise than its
    checkpoint.
    """
    refuse_missing_libraries(settings.audit)
    use_threads(threads_for_stage(settings.threads))
    run = open_run(settings.run)
    roles = run.roles if settings.audit else selected_roles(run.roles, settings.roles)
    variants = exported_variants(run, settings)
    models_to_export = [(role, variant) for role in roles for variant in variants]
    for role, variant in models_to_export:
        refuse_unexportable(run, variant, role)
    targets = targets_of(run)
    inputs = checked_inputs(run, targets)
    models = {}
    with unfinished_folder(settings.out) as unfinished:
        for role, variant in progress(models_to_export, "exporting"):
            file = model_file(variant, role)
            models[file] = export_model(run, variant, role, inputs, unfinished / file)
        if settings.audit:
            write_audit(run, targets, variants, unfinished)
        facts = {"run": run.name, "data": run.config["data"], "models": models}
        write_json(unfinished / FACTS, {**facts, **provenance(torch.device("cpu"))})
        move_files(unfinished, settings.out)
    say(f"{len(models)} models: {settings.out}")
    if settings.audit:
        say(f"{len(targets.points)} points and the task for audit.py: {settings.out / TASK}")
    return settings.out


@contextlib.contextmanager
def unfinished_folder(out: Path) -> Iterator[Path]:
    """A folder within `out`, removed with all that is in it when the block ends, and `out` with it if it is empty."""
    make_folder(out)
    folder = out / f"{UNFINISHED}-{os.getpid()}"
    make_folder(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            out.rmdir()


def move_files(source: Path, target: Path) -> None:
    """Move all files to the same places below another folder, export.json last."""
    files = [file.relative_to(source) for file in source.rglob("*") if file.is_file()]
    for file in sorted(files, key=lambda file: (file.name == FACTS, file)):
        make_folder((target / file).parent)
        (source / file).replace(target / file)


def refuse_missing_libraries(audit: bool) -> None:
    """UserError where a library is not installed."""
    for name in ("onnx", "onnxruntime", *(["yaml"] if audit else [])):
        if importlib.util.find_spec(name) is None:
            raise UserError(f"export.py needs {name}: pip install -r requirements.txt")


def exported_variants(run: Run, settings: ExportSettings) -> list[Variant]:
    """The variants to export, in the paper's order. An audit needs the original among them."""
    variants = finished_variants(run) if settings.variants is None else settings.variants
    return in_paper_order([ORIGINAL, *variants] if settings.audit or not variants else variants)


def refuse_unexportable(run: Run, variant: Variant, role: str) -> None:
    """UserError where a run is on texts, a model is not finished, or its weights were dropped.

    Networks for texts have no ONNX form here.
    """
    if run.kind.encode is not None:
        raise UserError(f"{run.name} is a run on {run.kind.sets}, whose networks are not exported")
    model_meta(run, variant, role)
    if checkpoints.dropped(folder := finished_folder(run, variant, role)):
        raise UserError(f"the weights of {folder} were dropped to save space: delete the folder to make them again")


def model_file(variant: Variant, role: str) -> str:
    """Where a model is written, seen from the folder of the export."""
    return f"{role}/{variant}.onnx"


def checked_inputs(run: Run, targets: Targets) -> torch.Tensor:
    """Network inputs (n, ...) on which exported models are compared: points from all over the audit."""
    step = max(1, len(targets.points) // CHECKED_POINTS)
    data = dataset(run)
    return data.kind.to_input(torch.from_numpy(data.images[targets.points[::step][:CHECKED_POINTS]])).contiguous()


def export_model(run: Run, variant: Variant, role: str, inputs: torch.Tensor, file: Path) -> dict:
    """Write one model, compare it with its checkpoint, and say so; returns facts for export.json."""
    model = load_model(run, variant, role)
    expected = predict(model, inputs).numpy()
    proto = onnx_model(
        model,
        tuple(inputs.shape[1:]),
        batch=to_onnx.batch_of(model),
        writers=to_onnx.WRITERS,
        metadata=metadata_of(run, variant, role),
    )
    write_atomically(file, lambda part: part.write_bytes(proto.SerializeToString()))
    measured = difference(expected, answers_of_file(file, inputs.numpy()))
    refuse_difference(model, measured, f"{variant} {role}")
    size = file.stat().st_size
    say(
        f"{variant} {role}: {checkpoints.megabytes(size)}; logits differ from the checkpoint's by up to "
        f"{measured.largest:.1e} of the largest logit, half of them by less than {measured.median:.1e}, on "
        f"{len(inputs)} points"
    )
    meta = model_meta(run, variant, role)
    return {"sha256": sha256(file), "bytes": size, "checkpoint": meta["sha256"], "difference": measured._asdict()}


def answers_of_file(file: Path, inputs: np.ndarray) -> np.ndarray:
    """(n, C) float32: what onnxruntime computes of network inputs (n, ...), one by one where the file demands it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads_in_use()
    options.log_severity_level = 3  # errors alone
    # Without it, integer kernels of processors that lack VNNI overflow where large weights meet large inputs.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
    (described,) = session.get_inputs()
    size = described.shape[0] if isinstance(described.shape[0], int) else len(inputs)
    batches = [inputs[start : start + size] for start in range(0, len(inputs), size)]
    return np.concatenate([session.run(None, {INPUT: batch})[0] for batch in batches])


def difference(expected: np.ndarray, answers: np.ndarray) -> Difference:
    """How far logits (n, C) are from those expected."""
    shares = np.abs(expected - answers) / np.abs(expected).max()
    return Difference(float(shares.max()), float(np.median(shares)))


def refuse_difference(model: nn.Module, measured: Difference, title: str) -> None:
    """UserError where a file's answers are not the model's; models that round are judged by the median difference."""
    if to_onnx.rounds_inputs(model):
        which = "median"
        value = measured.median
        limit = ROUNDED_TOLERANCE
    else:
        which = "largest"
        value = measured.largest
        limit = FLOAT_TOLERANCE
    if not value <= limit:  # NaN is refused as well
        raise UserError(
            f"{title}: onnxruntime's logits differ from the checkpoint's, so nothing is exported. Their {which} "
            f"difference is {value:.3g} of the largest logit, and {limit:g} is allowed: try another version of "
            "onnxruntime"
        )


def metadata_of(run: Run, variant: Variant, role: str) -> dict[str, str]:
    """What a file says of itself: which model it is, and what turns stored images into its input."""
    metadata = {"compleak_run": run.name, "compleak_model": f"{variant} {role}"}
    for key, value in preprocessing_of(dataset(run).kind).items():
        text = value if isinstance(value, str) else ",".join(f"{number:g}" for number in value)
        metadata[f"compleak_{key}"] = text
    return metadata


def preprocessing_of(kind: InputKind) -> dict:
    """Mean and standard deviation of each channel, of pixels from 0 to 1, and the layout; nothing for tables.

    They are read off the images that are black and white.
    """
    if kind.name != "images":
        return {}
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 1, 3)
    black, white = kind.to_input(pixels)[:, :, 0, 0].double()
    std = 1 / (white - black)
    return {"mean": (-black * std).tolist(), "std": std.tolist(), "layout": "NCHW"}


def write_audit(run: Run, targets: Targets, variants: list[Variant], out: Path) -> None:
    """Write what audit.py needs beside the models: the points, which of them each model has seen, and the task."""
    data = dataset(run)
    arrays = {"x": data.images[targets.points], "y": data.labels[targets.points]}
    write_atomically(out / POINTS, lambda part: np.savez_compressed(part, **arrays))
    for file, positions in point_lists(run, targets):
        write_text(out / file, "".join(f"{position}\n" for position in positions))
    write_text(out / TASK, task_text(run, variants))


def point_lists(run: Run, targets: Targets) -> Iterator[tuple[str, np.ndarray]]:
    """For each list of points its file, seen from the folder of the export, and the positions in the file of points."""
    for row, role in enumerate(run.roles):
        member, audited = targets.members(row), targets.audited(row)
        yield f"{role}/members.txt", np.flatnonzero(member)
        yield f"{role}/audited.txt", np.flatnonzero(audited)
        if role == VICTIM:
            yield f"{role}/nonmembers.txt", np.flatnonzero(audited & ~member)


def task_text(run: Run, variants: list[Variant]) -> str:
    """The task file: an attacker who has the run's shadow models."""
    import yaml

    victim, *shadows = run.roles
    task = {
        "name": run.name,
        "seed": run.config["seed"],
        "data": POINTS,
        "models": model_files(variants, victim),
        "members": f"{victim}/members.txt",
        "nonmembers": f"{victim}/nonmembers.txt",
    }
    if preprocessing := preprocessing_of(dataset(run).kind):
        task["preprocessing"] = preprocessing
    task["attacker"] = "shadows"
    task["shadows"] = [
        {
            "models": model_files(variants, role),
            "members": f"{role}/members.txt",
            "audited": f"{role}/audited.txt",
        }
        for role in shadows
    ]
    return yaml.safe_dump(task, sort_keys=False)


def model_files(variants: list[Variant], role: str) -> dict[str, str]:
    return {str(variant): model_file(variant, role) for variant in variants}
