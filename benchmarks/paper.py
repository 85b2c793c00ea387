"""The paper's grid as a whole: its bytes on disk, and its hours, computed from the measured rows."""

import tempfile
from pathlib import Path

import torch
from torch import nn

import attacks
from benchmarks import attack_stage, loops, synthetic
from benchmarks.measure import Row, Size
from compleak.runs import checkpoints
from compleak.runs.variants import ORIGINAL, PAPER_GRID, Variant
from core import console

# `reproduce.py --preset paper --dataset_name cifar10`: the stages' defaults
MODELS = 2  # a victim and a shadow
MEMBERS = 20_000  # images that a model is trained on
POINTS = 50_000  # images that a model is queried with
AUDITED = 20_000  # images in a model's audit set
EPOCHS = 100
TUNING_EPOCHS = 30
DISK_BUDGET = 700.0  # MB
SECONDS_BUDGET = 600.0  # on an H200


def measure_disk(size: Size, device: torch.device) -> list[Row]:
    """Megabytes of each variant's checkpoint, of one signals file, and of everything that the grid writes."""
    source = loops.network(size)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        rows.append(megabytes(str(ORIGINAL), saved_bytes(folder, source.state_dict())))
        for variant in console.progress(PAPER_GRID, "packing"):
            rows.append(megabytes(str(variant), saved_bytes(folder, packed_tensors(source, variant, size))))
        momentum = [parameter.detach() for parameter in source.parameters()]
        resume_bytes = saved_bytes(folder, {"weights": source.state_dict(), "momentum": momentum})
        signals = synthetic.write(Path(folder), [str(ORIGINAL)], size.audited)[0].stat().st_size
    rows.append(megabytes("signals.npz of one variant", signals, f"{5 * size.audited:,} points"))
    return [*rows, grid_row(rows, resume_bytes, size)]


def packed_tensors(source: nn.Module, variant: Variant, size: Size) -> dict:
    """What the checkpoint of a compressed network holds."""
    prepared = variant.module.prepare(source, variant.parsed_degree).train()
    prepared(loops.resident_batch(size, torch.device("cpu"))[0])  # int8 reads its input ranges from a batch
    return variant.module.pack(prepared.eval())


def saved_bytes(folder: str, tensors: dict) -> int:
    return checkpoints.save(Path(folder), tensors, {}, {})["bytes"]


def megabytes(what: str, count: int, note: str = "") -> Row:
    return Row(what, count / 1e6, "MB", note=note)


def grid_row(rows: list[Row], resume_bytes: int, size: Size) -> Row:
    """Megabytes of all checkpoints, signals and scores, and of the largest state of a stopped training."""
    *models, signals = [row.value for row in rows]
    tables = len(models) * len(attacks.NR) + (len(models) - 1) * len(attacks.SR) + 4 * len(attacks.MR)
    scores = (tables + 2 * len(models) + 4) * 2 * size.audited * 8 / 1e6  # float64; the controls have scores too
    total = MODELS * sum(models) + len(models) * signals + scores + resume_bytes / 1e6
    return Row("the paper's grid in all", total, "MB", DISK_BUDGET, note="without the data set, with a resume state")


def estimate_preset(rows: list[Row], device: torch.device) -> list[Row]:
    """Seconds of the paper preset, computed from the rows measured on this device; no rows where one is missing."""
    values = {row.what: row.value for row in rows}
    needed = (loops.LOOP, loops.PRUNED, loops.QAT, loops.CLUSTERED, loops.ASK, loops.SENSITIVITY, attack_stage.STAGE)
    if not all(values.get(what, 0) > 0 for what in needed):
        return []
    tuned_steps = 4 * values[loops.PRUNED] + values[loops.QAT] + 3 * values[loops.CLUSTERED]
    training = MODELS * MEMBERS * (EPOCHS + TUNING_EPOCHS * tuned_steps) / values[loops.LOOP]
    querying = 9 * MODELS * (POINTS / values[loops.ASK] + AUDITED / values[loops.SENSITIVITY])
    parts = {"training and compression": training, "signals": querying, "attacks": values[attack_stage.STAGE]}
    note = "from the rows above; k-means and files not counted"
    estimates = [Row(f"paper preset: {name}", seconds, "s", note=note) for name, seconds in parts.items()]
    budget = SECONDS_BUDGET if device.type == "cuda" else None
    return [*estimates, Row("paper preset in all", sum(parts.values()), "s", budget, note=note)]
